"""Looking into the folders of runs, and comparing them."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from safetensors.torch import load_file

from leukemia_models.runs.run_folder import RunFolder


def tensors_of(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run).checkpoint(which))


def assert_same_weights(first: Path, second: Path) -> None:
    for which in ("last", "best"):
        one, other = tensors_of(first, which), tensors_of(second, which)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def history_rows(run: Path) -> list[dict[str, str]]:
    with RunFolder(run).history.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(run: Path, finished_run: Path) -> None:
    assert_same_weights(run, finished_run)
    timings = {"seconds", "images_per_s", "data_wait_share"}
    rows, expected = (
        [{name: value for name, value in row.items() if name not in timings} for row in history_rows(path)]
        for path in (run, finished_run)
    )
    assert rows == expected
    assert (run / "test" / "predictions.csv").read_bytes() == (finished_run / "test" / "predictions.csv").read_bytes()
