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


def test_two_processes_do_what_one_does_and_go_on(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    """One step over the whole training part; small networks are compared to the last digits in the library's tests.

    Where a value before a ReLU is zero within rounding, the gradient takes one way or the other. One process that
    computes with one thread and with two differs by up to 3 % in a layer's step here, and so may two processes.
    """
    options = [*train_options, "--epochs", 1, "--batch-size", 16]
    alone, two = tmp_path / "alone", tmp_path / "two"
    result = ltrain(*options, "--out", alone)
    assert result.exit_code == 0, result.output
    done = torchrun(*options, "--out", two, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test (") == 1
    assert done.stderr.count("epoch   1/1") == 1
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


def test_wrong_request_ends_both_processes(tmp_path: Path, train_options: list[object]) -> None:
    done = torchrun(*train_options, "--split", "half", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode != 0
    assert "Error: " in done.stderr
    assert "half" in done.stderr
    assert not (tmp_path / "run").exists()
