from __future__ import annotations

import json

import numpy as np
import pytest

from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.subject_level import subject_level, subject_samples, subject_table


def samples_of(rows: list[tuple[str, int, float]]) -> EvaluatedSamples:
    subjects, labels, probabilities = zip(*rows, strict=True)
    ids = tuple(str(number) for number in range(len(rows)))
    return EvaluatedSamples(ids, tuple(subjects), np.array(labels), np.array(probabilities))


# Subject 10: two images of three below 0.5, but a mean above; H1: a tie of votes, mean 0.55.
ROWS = [
    ("10", 1, 0.4),
    ("10", 1, 0.45),
    ("10", 1, 0.95),
    ("2", 1, 0.8),
    ("H1", 0, 0.9),
    ("H1", 0, 0.2),
    ("H2", 0, 0.1),
    ("", 0, 0.3),
]


def test_table_by_hand() -> None:
    table = subject_table(samples_of(ROWS))
    assert table["subject"].tolist() == ["H1", "H2", "2", "10"]
    assert table["label"].tolist() == [0, 0, 1, 1]
    assert table["images"].tolist() == [2, 1, 1, 3]
    assert table["share_right"].tolist() == pytest.approx([0.5, 1, 1, 1 / 3])
    assert table["mean_probability"].tolist() == pytest.approx([0.55, 0.1, 0.8, 0.6])
    assert table["vote_share"].tolist() == pytest.approx([0.5, 0, 1, 1 / 3])
    assert table["prediction_mean"].tolist() == [1, 0, 1, 1]
    assert table["prediction_vote"].tolist() == [0, 0, 1, 0]


def test_mean_and_vote_are_evaluated_over_subjects() -> None:
    found = subject_level(samples_of(ROWS))
    assert found.mean is not None
    assert found.vote is not None
    assert found.mean.confusion == ((1, 1), (0, 2))
    assert found.vote.confusion == ((2, 0), (1, 1))
    assert found.mean.auroc == 1.0  # 0.55 and 0.1 against 0.8 and 0.6
    assert found.vote.auroc == pytest.approx((2 + 1) / 4)
    assert found.mean.brier == pytest.approx(np.mean([0.55**2, 0.01, 0.04, 0.16]))
    assert found.vote.brier is None
    assert found.num_unknown_images == 1
    assert found.mixed_subjects == ()


def test_threshold_is_that_of_images_and_means() -> None:
    found = subject_level(samples_of(ROWS), threshold=0.42)
    assert found.table["vote_share"].tolist() == pytest.approx([0.5, 0, 1, 2 / 3])
    assert found.vote is not None
    assert found.vote.confusion == ((2, 0), (0, 2))


def test_subject_with_both_labels_is_listed_but_not_evaluated() -> None:
    found = subject_level(samples_of([*ROWS, ("x", 0, 0.1), ("x", 1, 0.1)]))
    assert found.mixed_subjects == ("x",)
    assert found.mean is not None
    assert found.mean.num_samples == 4
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    [row] = [row for row in content["subjects"] if row["subject"] == "x"]
    assert row["label"] is None
    assert row["share_right"] == 0.5


def test_without_names_there_is_nothing_to_evaluate() -> None:
    found = subject_level(samples_of([("", 0, 0.3), ("", 1, 0.6)]))
    assert (found.mean, found.vote, found.num_unknown_images) == (None, None, 2)
    assert found.table.empty
    json.dumps(found.to_dict(), allow_nan=False)


def test_subjects_as_samples() -> None:
    found = subject_samples(samples_of(ROWS), "vote")
    assert found is not None
    assert found.ids == found.subjects == ("H1", "H2", "2", "10")
    assert found.probabilities_N == pytest.approx([0.5, 0, 1, 1 / 3])
