"""``ltrain`` under torchrun: two machines end as one process does."""

from __future__ import annotations

import csv
import json
import shutil
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


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_of(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def test_two_machines_go_on_with_a_run_as_one_process_does(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    """One step over the whole training part; small networks are compared to the last digits in the library's tests.

    Where a value before a ReLU is zero within rounding, the gradient takes one way or the other. One process that
    computes with one thread and with two differs by up to 3 % in a layer's step here, and so may two processes.
    """
    alone, started = tmp_path / "alone", tmp_path / "started" / "run"
    result = ltrain(
        *train_options, "--epochs", 1, "--batch-size", 16, "--sync-batchnorm", "--precision", "fp32", "--out", alone
    )
    assert result.exit_code == 0, result.output
    # A machine does not know whether it will have the first rank; none has the cache where it was.
    shutil.copytree(alone, started)
    config = json.loads((started / "run.json").read_text(encoding="utf-8"))
    (started / "run.json").write_text(json.dumps({**config, "cache_dir": "gone"}), encoding="utf-8")
    homes = [Path(shutil.copytree(started.parent, tmp_path / name)) for name in ("here", "there")]
    going_on = ("--resume", "--epochs", 2, "--device", "cpu")
    moved = ("--cache", train_options[train_options.index("--cache") + 1])
    meeting = MeetingPlace()
    nodes = [Node(home, meeting, "2", *going_on, *moved, "--out", "run") for home in homes]
    try:
        assert ltrain(*going_on, "--out", alone).exit_code == 0
        assert [node.wait() for node in nodes] == [0, 0], [node.said for node in nodes]
    finally:
        for node in nodes:
            node.lose_power()
    said = "".join(node.said for node in nodes)
    assert said.count("test (") == 1
    assert said.count("epoch   2/2") == 1
    assert ", 2 processes" in said
    assert "batches of 16 in 2 micro-batches (2 processes, 1 each), BatchNorm over 16 images of all processes" in said
    # Of two machines that share no folder, the one of the first rank has the run.
    two, untouched = sorted((home / "run" for home in homes), key=lambda run: -len(history(run)))
    assert {path: (untouched / path).read_bytes() for path in files_of(untouched)} == {
        path: (started / path).read_bytes() for path in files_of(started)
    }
    assert files_of(two) == files_of(alone)
    weights, expected = (load_file(folder / "last.safetensors") for folder in (two, alone))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        error = (weights[name].double() - value.double()).norm()
        assert error <= 0.06 * value.double().norm(), name
    (begun, row), (same, other) = history(two), history(alone)
    assert begun == same
    assert row["epoch"] == "2"
    assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-4)
    assert float(row["valid_loss"]) == pytest.approx(float(other["valid_loss"]), rel=1e-2)
    assert row["train_accuracy"] == other["train_accuracy"]
