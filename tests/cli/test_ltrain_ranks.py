"""``ltrain`` under torchrun: two processes end as one does."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .nodes import MeetingPlace, Node

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch knows no process groups"),
]


def torchrun(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "cli.ltrain",
    ]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "PYTHONUTF8": "1"}
    return subprocess.run(
        [*launch, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_of(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def test_two_machines_do_what_one_process_does_and_two_processes_go_on(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    """One step over the whole training part; small networks are compared to the last digits in the library's tests.

    Where a value before a ReLU is zero within rounding, the gradient takes one way or the other. One process that
    computes with one thread and with two differs by up to 3 % in a layer's step here, and so may two processes.
    """
    options = [*train_options, "--epochs", 1, "--batch-size", 16]
    alone = tmp_path / "alone"
    result = ltrain(*options, "--out", alone)
    assert result.exit_code == 0, result.output
    meeting = MeetingPlace()
    nodes = [Node(tmp_path / name, meeting, "2", *options, "--out", "run") for name in ("here", "there")]
    try:
        assert [node.wait() for node in nodes] == [0, 0], [node.said for node in nodes]
    finally:
        for node in nodes:
            node.lose_power()
    said = "".join(node.said for node in nodes)
    assert said.count("test (") == 1
    assert said.count("epoch   1/1") == 1
    # Of two machines that share no folder, the one of the first rank has the run.
    [two] = [node.home / "run" for node in nodes if (node.home / "run").exists()]
    assert files_of(two) == files_of(alone)
    weights, expected = (load_file(folder / "last.safetensors") for folder in (two, alone))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        error = (weights[name].double() - value.double()).norm()
        assert error <= 0.06 * value.double().norm(), name
    (row,), (other,) = history(two), history(alone)
    assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-4)
    assert float(row["valid_loss"]) == pytest.approx(float(other["valid_loss"]), rel=1e-2)
    assert row["train_accuracy"] == other["train_accuracy"]

    config = json.loads((two / "run.json").read_text(encoding="utf-8"))
    (two / "run.json").write_text(json.dumps({**config, "cache_dir": "gone"}), encoding="utf-8")
    moved = ("--cache", train_options[train_options.index("--cache") + 1])
    done = torchrun("--resume", "--epochs", 2, "--out", two, "--device", "cpu", *moved, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in history(two)] == ["1", "2"]
    assert history(two)[0] == row
