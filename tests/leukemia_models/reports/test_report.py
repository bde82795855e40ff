from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.errors import RunError
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.evaluation.classification import classification_metrics, majority_baseline
from leukemia_models.reports.evaluation_figures import write_history
from leukemia_models.reports.results import Results, SplitCounts, SplitSummary, cautions, read_results, write_results
from leukemia_models.training.history import EpochRecord, TrainHistory

LABELS = np.repeat([0, 1], [4, 6])
PROBABILITIES = np.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1, 1, 0]]


NO_LEAK = LeakCheck(shared_subjects=0, shared_images=0, unknown_subjects=0)
SHARED = LeakCheck(shared_subjects=5, shared_images=2, unknown_subjects=0)
UNKNOWN = LeakCheck(shared_subjects=0, shared_images=0, unknown_subjects=10)


def summary(leaks: LeakCheck, subjects: tuple[int, ...] | None) -> SplitSummary:
    parts = {"train": SplitCounts((30, 60), (9, 20)), "valid": SplitCounts((4, 6), subjects)}
    return SplitSummary("subject", leaks, "valid", parts)


def results(split: SplitSummary) -> Results:
    return Results(
        model_name="resnet18",
        classes=("hem", "all"),
        settings={"epochs": 3, "optimizer": {"lr": 0.005}, "note": "a|b"},
        split=split,
        epoch=2,
        metrics=classification_metrics(LABELS, PROBABILITIES),
        baseline=majority_baseline(LABELS),
    )


DISJOINT = results(summary(NO_LEAK, (10, 12)))
MIXED = results(summary(SHARED, (10, 12)))


def test_stamp_names_what_is_on_two_sides() -> None:
    assert summary(NO_LEAK, (1, 1)).stamp == "subject-disjoint"
    assert summary(SHARED, (1, 1)).stamp == (
        "PATIENT-MIXED (5 subjects on both sides, 2 identical images on both sides)"
    )
    assert summary(UNKNOWN, None).stamp == "PATIENT-MIXED (10 images of unknown subjects)"


def test_enough_disjoint_subjects_need_no_caution() -> None:
    assert cautions(DISJOINT) == []


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (
            summary(NO_LEAK, (9, 12)),
            "Few subjects, 9 of class 'hem' and 12 of class 'all'",
        ),
        (summary(SHARED, (10, 12)), "cells of the same patients"),
        (summary(UNKNOWN, None), "subjects of the evaluated images are unknown"),
        (summary(UNKNOWN, (10, 12)), "subjects of some other images are unknown"),
    ],
)
def test_cautions_are_plain_sentences(split: SplitSummary, words: str) -> None:
    (sentence,) = cautions(results(split))
    assert words in sentence


def test_collapsed_network_and_other_warnings_are_shown() -> None:
    collapsed = classification_metrics(LABELS, np.eye(2)[[1] * 10])
    found = cautions(replace(DISJOINT, metrics=collapsed, warnings=("Something else.",)))
    assert found[0] == "Something else."
    assert "100.0% of the predictions are 'all'" in found[1]


def test_undefined_numbers_are_null(tmp_path: Path) -> None:
    labels = np.ones(3, dtype=np.int64)
    metrics = classification_metrics(labels, np.eye(2)[[1, 1, 0]])
    write_results(tmp_path / "results.json", replace(DISJOINT, metrics=metrics, baseline=majority_baseline(labels)))
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert (found["auroc"], found["auprc"], found["mcc"], found["specificity"]) == (None,) * 4


def test_results_json_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, MIXED)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["split"]["stamp"] == MIXED.split.stamp
    assert found["split"]["parts"]["train"]["subjects_per_class"] == [9, 20]
    assert found["metrics"]["confusion"] == [[3, 1], [1, 5]]
    assert found["metrics"]["recall_per_class"] == [0.75, 5 / 6]
    assert found["baseline"]["prediction"] == 1
    assert found["cautions"] == cautions(MIXED)
    assert found["format_version"] == 2
    assert (found["subjects"], found["calibrated"], found["intervals"]) == (None, None, {})
    assert found["settings"]["optimizer"] == {"lr": 0.005}
    assert list(tmp_path.iterdir()) == [path]


def test_title_names_network_epoch_and_part() -> None:
    assert DISJOINT.title == "resnet18, epoch 2: valid images"
    assert replace(DISJOINT, epoch=None).title == "resnet18: valid images"


def test_results_survive_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_results(tmp_path / "results.json", replace(DISJOINT, settings={"out": odd}))
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["settings"]["out"] == odd


def test_history_csv_has_a_row_an_epoch_and_the_stamp(tmp_path: Path) -> None:
    record = EpochRecord(
        epoch=1,
        lr=0.1,
        train_loss=0.5,
        train_accuracy=0.75,
        valid_loss=None,
        valid_accuracy=None,
        valid_balanced_accuracy=None,
        valid_weighted_f1=None,
        valid_auroc=None,
        seconds=2.0,
        images_per_s=70.0,
    )
    path = tmp_path / "history.csv"
    write_history(path, TrainHistory((record, replace(record, epoch=2))), "PATIENT-MIXED")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["valid_auroc"] == ""
    assert float(rows[0]["train_accuracy"]) == 0.75
    assert {row["split"] for row in rows} == {"PATIENT-MIXED"}


SOUND = {
    "model_name": "resnet18",
    "classes": ["hem", "all"],
    "settings": {},
    "epoch": None,
    "split": {"kind": "subject", "stamp": "subject-disjoint"},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ["hem"]}, "classes are not two or more different names"),
        ({"classes": ["hem", "hem"]}, "classes are not two or more different names"),
        ({"classes": ["hem", 1]}, "classes are not two or more different names"),
        ({"classes": "ab"}, "classes are not two or more different names"),
        ({"split": None}, "split has no kind and stamp"),
        ({"split": {"kind": 1, "stamp": ""}}, "split has no kind and stamp"),
        ({"settings": []}, r"settings is \[\]"),
        ({"model_name": None}, "model_name is None"),
        ({"epoch": "3"}, "epoch is '3'"),
        ({"epoch": True}, "epoch is True"),
    ],
)
def test_results_without_what_every_reader_counts_on_are_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(SOUND), encoding="utf-8")
    assert read_results(path) == SOUND
    path.write_text(json.dumps({**SOUND, **change}), encoding="utf-8")
    with pytest.raises(RunError, match=f"is damaged .{reason}"):
        read_results(path)


@pytest.mark.parametrize("text", ["[]", "3", '{"a": NaN}', "[" * 100_000, '{"a": 1, "a": 2}'])
def test_what_is_no_document_of_results_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"results\.json"):
        read_results(tmp_path / "results.json")
