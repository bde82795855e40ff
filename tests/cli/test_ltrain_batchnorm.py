"""``ltrain batchnorm-demo``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import pytest

from leukemia_models.experiments import batchnorm_experiment
from leukemia_models.experiments.batchnorm_experiment import ExperimentSize, run_experiment


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the cells."""
    size = ExperimentSize(num_subjects=9, train_cells_per_subject=4, valid_cells_per_subject=4, batch_size=8)
    monkeypatch.setattr(batchnorm_experiment, "run_experiment", partial(run_experiment, size=size))


@pytest.mark.usefixtures("tiny")
def test_table_csv_json_and_figures_say_the_same(
    tmp_path: Path, ltrain: Callable, json_of: Callable, files_below: Callable
) -> None:
    out = tmp_path / "new" / "demo"
    said = json_of(ltrain("batchnorm-demo", "--out", out, "--epochs", 2, "--json"))
    assert said == json.loads((out / "batchnorm.json").read_text(encoding="utf-8"))
    assert (said["train_images"], said["valid_images"], said["split"]) == (24, 12, "subject-disjoint")
    with (out / "batchnorm.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4
    for row in rows:
        scores = said["epochs"][int(row["epoch"]) - 1][row["way"]]
        assert float(row["loss"]) == scores["loss"]
        assert float(row["share_positive"]) == scores["share_positive"]
        assert bool(int(row["one_class"])) == (scores["one_class_warning"] is not None)
    assert cv2.imread(str(out / "batchnorm.png")) is not None
    assert (out / "batchnorm.pdf").read_bytes().startswith(b"%PDF")

    again = ltrain("batchnorm-demo", "--out", tmp_path / "again", "--epochs", 2)
    assert again.exit_code == 0, again.output
    assert files_below(tmp_path / "again") == files_below(out)  # the seed decides all
    first = said["epochs"][0]["eval_reestimated"]
    [line] = [line for line in again.stdout.splitlines() if line.startswith("1  ")]
    assert f"{first['accuracy']:.3f}" in line


def test_wrong_requests(scratch: Path, ltrain: Callable, error_of: Callable) -> None:
    (scratch / "file").write_text("in the way")
    assert "cannot make this folder" in error_of(ltrain("batchnorm-demo", "--out", "file/demo"), 1)
    assert "--out" in error_of(ltrain("batchnorm-demo"), 2)
    assert "--lr" in error_of(ltrain("batchnorm-demo", "--out", "demo", "--lr", 0), 2)
    assert not (scratch / "demo").exists()
