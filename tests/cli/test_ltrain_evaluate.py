"""``ltrain evaluate``: another checkpoint, other views, other BatchNorm statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def results_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_other_views_and_statistics_have_a_folder_of_their_own(
    own_run: Path, ltrain: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    options = ("--tta", "rotations:4", "--tta-average", "probabilities", "--batchnorm", "running", "--draws", 100)
    result = ltrain("evaluate", own_run, "--part", "valid", *options, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (
        "BatchNorm statistics: running (running); views of an image: rotations:4, mean of probabilities"
        in result.stdout
    )
    out = own_run / "valid-final-rotations4-probabilities-running"
    judging = results_in(out)["judging"]
    assert judging["checkpoint"] == "best"
    assert judging["tta"] == {"views": "rotations:4", "average": "probabilities"}
    assert judging["batchnorm"] == {"chosen": "running"}
    assert judging["calibration"]["fitted_on"] == "valid"
    assert results_in(out)["intervals"]["image"]["num_draws"] == 100
    assert {name: content for name, content in files_below(own_run).items() if not name.startswith(out.name)} == before


def test_run_of_an_earlier_version_is_evaluated_with_its_best_checkpoint(own_run: Path, ltrain: Callable) -> None:
    (own_run / "final.safetensors").unlink()
    result = ltrain("evaluate", own_run, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "has no final checkpoint" in result.stderr
    found = results_in(own_run / "test")
    assert found["judging"] == {"checkpoint": "best", "precision": "fp32"}
    assert found["calibrated"] is None


def test_best_checkpoint_is_evaluated_as_training_left_it(own_run: Path, ltrain: Callable) -> None:
    assert ltrain("evaluate", own_run, "--checkpoint", "best", "--device", "cpu").exit_code == 0
    assert results_in(own_run / "test-best")["judging"] == {"checkpoint": "best", "precision": "fp32"}


def test_person_reads_subjects_and_each_caution_once(own_run: Path, ltrain: Callable) -> None:
    told = ltrain("evaluate", own_run, "--device", "cpu").stdout
    assert "per subject (mean probability): " in told
    assert "calibrated" not in told, "fitted on too few subjects"
    assert told.count("caution: Few subjects") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tta", "five-crop"), "five-crop"),
        (("--tta-average", "logits"), "only one view"),
        (("--part", "train", "--tta", "rotations:1"), "rotations"),
    ],
)
def test_wrong_views_are_refused_and_nothing_is_written(
    options: tuple[str, ...], message: str, own_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    assert message in error_of(ltrain("evaluate", own_run, *options, "--device", "cpu"), 2)
    assert files_below(own_run) == before
