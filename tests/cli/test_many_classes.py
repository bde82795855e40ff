"""From a folder of many classes to the page of a run, predictions, folds and comparisons."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

NUM_SUBJECTS, CELLS = 6, 2
TRAINING = ("--model", "resnet18-narrow", "--epochs", "2", "--batch-size", "32", "--precision", "fp32")


def write_cells(folder: Path, num_classes: int, subject_of: Callable[[int, int], str]) -> None:
    """Small cells, whose colour says the class, of `NUM_SUBJECTS` subjects a class."""
    generator = np.random.default_rng(num_classes)
    for label in range(num_classes):
        share = label / num_classes
        colour = (40 + 200 * share, 60 + 75 * (label % 3), 220 - 180 * share)
        for number in range(NUM_SUBJECTS):
            people = folder / f"kind-{label + 1:02d}" / subject_of(label, number)
            people.mkdir(parents=True, exist_ok=True)
            for cell in range(CELLS):
                image = np.zeros((48, 48, 3), np.uint8)
                cv2.circle(image, (24, 24), 16, colour, -1)
                noise = generator.normal(0, 12, image.shape) * (image > 0)
                cv2.imwrite(str(people / f"cell_{label}_{number}_{cell}.png"), (image + noise).clip(0, 255))


@pytest.fixture(scope="module", params=[5, 15], ids=["5 classes", "15 classes"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ldata, ltrain) -> Path:
    """A folder with ``cells``, ``cache`` and ``run``, by two commands."""
    folder = tmp_path_factory.mktemp("many")
    write_cells(folder / "cells", request.param, lambda label, number: f"patient_{label * NUM_SUBJECTS + number:03d}")
    built = ldata("build", folder / "cells", "--cache", folder / "cache", "--size", "32", "--recipe", "raw")
    assert built.exit_code == 0, built.output
    done = ltrain("train", "--cache", folder / "cache", "--out", folder / "run", "--device", "cpu", *TRAINING)
    assert done.exit_code == 0, done.output
    assert f"{request.param} classes: kind-01" in done.stderr
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_are_scikit_learns_of_the_predictions(trained: Path) -> None:
    results = json.loads((trained / "run" / "test" / "results.json").read_text())
    rows, classes = rows_of(trained / "run" / "test" / "predictions.csv"), results["classes"]
    labels = np.array([classes.index(row["label"]) for row in rows])
    predictions = np.array([classes.index(row["prediction"]) for row in rows])
    probabilities = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    assert (predictions == probabilities.argmax(axis=1)).all()
    one_hot = np.eye(len(classes))[labels]
    expected = {
        "balanced_accuracy": balanced_accuracy_score(labels, predictions),
        "weighted_f1": f1_score(labels, predictions, average="weighted"),
        "macro_f1": f1_score(labels, predictions, average="macro"),
        "mcc": matthews_corrcoef(labels, predictions),
        "auroc": roc_auc_score(one_hot, probabilities),
        "auprc": average_precision_score(one_hot, probabilities),
        "brier": brier_score_loss(labels, probabilities),
        "nll": log_loss(labels, probabilities),
    }
    found = {name: results["metrics"][name] for name in expected}
    # Nine digits of a probability near 0 limit the NLL.
    assert found == pytest.approx(expected, abs=1e-9, rel=1e-8)
    assert results["positive"] is None
    assert len(results["metrics"]["per_class"]) == len(classes)


def test_the_page_has_every_class(trained: Path) -> None:
    classes = json.loads((trained / "run" / "test" / "results.json").read_text())["classes"]
    page = (trained / "run" / "test" / "summary.md").read_text()
    assert f"{len(classes)} classes: `kind-01`" in page
    assert "Each class against the rest" in page
    assert all(f"| {name} |" in page for name in classes)
    assert "Positive class" not in page
    subjects = rows_of(trained / "run" / "test" / "subjects.csv")
    assert {row["prediction_mean"] for row in subjects} <= {*classes}
    assert all(f"mean_probability_{name}" in subjects[0] for name in classes)


def test_it_is_resumed_evaluated_and_used(trained: Path, ltrain, json_of) -> None:
    run, cells = trained / "run", trained / "cells"
    resumed = ltrain("train", "--out", run, "--resume", "--epochs", "3", "--device", "cpu")
    assert resumed.exit_code == 0, resumed.output
    told = json_of(ltrain("evaluate", run, "--part", "valid", "--device", "cpu", "--json"))
    classes = told["results"]["classes"]
    out, answers = trained / "new.csv", trained / "answers.csv"
    used = ltrain("predict", run, cells / "kind-01", "--out", out, "--submission", answers, "--device", "cpu")
    assert used.exit_code == 0, used.output
    rows = rows_of(out)
    assert len(rows) == NUM_SUBJECTS * CELLS
    assert all(sum(float(row[f"probability_{name}"]) for name in classes) == pytest.approx(1) for row in rows)
    assert {row["label"] for row in rows_of(answers)} <= {*classes}


def test_folds_and_comparisons(trained: Path, ltrain, json_of) -> None:
    folds = ltrain(
        *("kfold", "--folds", "2", "--cache", trained / "cache", "--out", trained / "folds", "--device", "cpu"),
        *TRAINING,
    )
    assert folds.exit_code == 0, folds.output
    assert "sensitivity" not in folds.stdout
    told = json_of(ltrain("compare", trained / "run", trained / "folds", "--out", trained / "compared", "--json"))
    assert len(told["runs"]) == 2
    assert "sensitivity" not in told["runs"][0]["images"]["metrics"]


def test_none_of_many_classes_is_positive(trained: Path, ltrain, error_of) -> None:
    refused = ltrain("train", "--cache", trained / "cache", "--positive", "kind-01", "--out", trained / "no")
    assert "one of two classes is the positive one" in error_of(refused, 2)
    assert not (trained / "no").exists()


def test_subjects_with_cells_of_every_class(tmp_path: Path, ldata, ltrain) -> None:
    """A differential count: the same patients in the folder of every kind, which an option confirms."""
    write_cells(tmp_path / "cells", 4, lambda label, number: f"patient_{number:03d}")
    built = ldata(
        *("build", tmp_path / "cells", "--cache", tmp_path / "cache", "--size", "32", "--recipe", "raw"),
        *("--subject-from", "folder"),
    )
    assert built.exit_code == 0, built.output
    done = ltrain("train", "--cache", tmp_path / "cache", "--out", tmp_path / "run", "--device", "cpu", *TRAINING)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "run" / "test" / "results.json").read_text())
    assert results["split"]["stamp"].startswith("subject-disjoint")
    assert results["subjects"]["mean"] is None
    assert len(results["subjects"]["share_errors"]) == 4
    for row in rows_of(tmp_path / "run" / "test" / "subjects.csv"):
        assert sum(float(row[f"label_share_kind-0{kind}"]) for kind in range(1, 5)) == pytest.approx(1)
