from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import subjects_per_class
from leukemia_models.evaluation.metrics import METRICS


def answers(*classes: int) -> np.ndarray:
    """Certain probabilities for the given predictions."""
    return np.eye(2)[list(classes)]


def test_small_case_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    probability_1 = np.array([0.1, 0.2, 0.8, 0.9, 0.7, 0.6, 0.55, 0.3])
    found = classification_metrics(labels, np.stack([1 - probability_1, probability_1], axis=1))
    assert found.confusion == ((2, 1), (1, 4))
    assert found.accuracy == pytest.approx(6 / 8)
    assert found.recall_per_class == pytest.approx((2 / 3, 4 / 5))
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 4 / 5) / 2)
    f1_0, f1_1 = 4 / 6, 8 / 10
    assert found.macro_f1 == pytest.approx((f1_0 + f1_1) / 2)
    assert found.weighted_f1 == pytest.approx((3 * f1_0 + 5 * f1_1) / 8)
    pairs_in_order = 5 + 5 + 1  # for each 0: how many of the 1s score higher
    assert found.auroc == pytest.approx(pairs_in_order / 15)
    # Falling scores: 1, 0, 1, 1, 1, 1, 0, 0 -> precision at each 1.
    assert found.auprc == pytest.approx((1 / 1 + 2 / 3 + 3 / 4 + 4 / 5 + 5 / 6) / 5)
    assert found.mcc == pytest.approx((2 * 4 - 1 * 1) / np.sqrt(3 * 5 * 3 * 5))
    assert found.brier == pytest.approx(np.mean([0.01, 0.04, 0.64, 0.01, 0.09, 0.16, 0.45**2, 0.49]))
    assert found.nll == pytest.approx(-np.log([0.9, 0.8, 0.2, 0.9, 0.7, 0.6, 0.55, 0.3]).mean())
    assert (found.sensitivity, found.specificity) == pytest.approx((4 / 5, 2 / 3))
    assert found.one_class_warning is None
    assert found.num_samples == 8


def test_agrees_with_scikit_learn_on_random_data() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    probabilities = generator.dirichlet([1, 1.4], 300)
    predictions = probabilities.argmax(1)
    found = classification_metrics(labels, probabilities)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert found.weighted_f1 == pytest.approx(f1_score(labels, predictions, average="weighted"))
    assert found.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert found.recall_per_class == pytest.approx(tuple(recall_score(labels, predictions, average=None)))
    assert found.auroc == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    assert found.auprc == pytest.approx(average_precision_score(labels, probabilities[:, 1]))
    assert found.mcc == pytest.approx(matthews_corrcoef(labels, predictions))
    assert found.brier == pytest.approx(brier_score_loss(labels, probabilities[:, 1]))
    assert found.nll == pytest.approx(log_loss(labels, probabilities))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9])
def test_threshold_decides_the_predictions_alone(threshold: float) -> None:
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(0, 2, 200), generator.integers(0, 11, 200) / 10
    probabilities = np.stack([1 - scores, scores], axis=1)
    found = classification_metrics(labels, probabilities, threshold=threshold)
    plain = classification_metrics(labels, probabilities)
    assert found.threshold == threshold
    assert found.accuracy == pytest.approx(np.mean((scores > threshold) == labels))
    for name in ("auroc", "auprc", "brier", "ece", "nll"):
        assert getattr(found, name) == getattr(plain, name)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_threshold_outside_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        classification_metrics(np.array([0, 1]), answers(0, 1), threshold=threshold)


def test_certain_and_wrong_costs_a_finite_number() -> None:
    found = classification_metrics(np.array([0, 1]), answers(1, 1))
    assert found.nll == pytest.approx(-np.log(1e-9) / 2, rel=1e-6)


def test_votes_are_no_probabilities() -> None:
    found = classification_metrics(np.array([0, 1]), answers(0, 1), are_probabilities=False)
    assert (found.brier, found.ece, found.nll) == (None, None, None)
    assert found.auroc == 1.0


def test_values_hold_every_name() -> None:
    values = classification_metrics(np.array([0, 1]), answers(0, 1)).values()
    assert tuple(values) == METRICS.names()
    assert values["sensitivity"] == 1.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_in_the_labels_leaves_the_rest_undefined(label: int) -> None:
    labels = np.full(4, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(labels, answers(label, label, label, 1 - label))
    assert found.accuracy == found.recall_per_class[label] == 0.75
    assert found.recall_per_class[1 - label] is None
    assert found.weighted_f1 == pytest.approx(6 / 7)
    undefined = (found.balanced_accuracy, found.macro_f1, found.auroc, found.auprc, found.mcc)
    assert undefined == (None,) * 5
    assert found.brier == 0.25
    assert found.one_class_warning is None


def test_json_holds_no_nan() -> None:
    found = classification_metrics(np.array([1, 1]), answers(1, 1)).to_dict()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["auroc"] is None
    assert json.loads(text)["confusion"] == [[0, 0], [0, 2]]


@pytest.mark.parametrize(("num_other", "warns"), [(0, True), (1, True), (2, False), (3, False)])
def test_one_class_warning_starts_above_98_percent(num_other: int, warns: bool) -> None:
    labels = np.array([0] * 30 + [1] * 70)
    found = classification_metrics(labels, answers(*[0] * num_other, *[1] * (100 - num_other)), ("hem", "all"))
    assert (found.one_class_warning is not None) == warns
    if warns:
        assert "'all'" in found.one_class_warning


def test_equal_probabilities_are_class_0() -> None:
    assert classification_metrics(np.array([0, 1]), np.full((2, 2), 0.5)).confusion == ((1, 0), (1, 0))


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 2)), "empty"),
        ([0, 1], np.full((3, 2), 1 / 2), r"\(3, 2\)"),
        ([0, 1], np.full((2, 1), 1.0), r"\(2, 1\)"),
        ([0, 3], np.full((2, 3), 1 / 3), "0 to 2"),
        ([0, 2], answers(0, 1), "0 or 1"),
        ([0, -1], answers(0, 1), "0 or 1"),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 1.0]]), "sum to 1"),
        ([0, 1], np.array([[3.0, -2.0], [0.0, 1.0]]), "sum to 1"),
        ([0, 1], np.array([[0.5, 0.6], [0.0, 1.0]]), "sum to 1"),
    ],
)
def test_wrong_input_is_refused(labels: list[int], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        classification_metrics(np.array(labels, dtype=np.int64), probabilities)


def test_subjects_are_counted_per_class() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 1])
    assert subjects_per_class(labels, ["1", "1", "2", "H1", "H1", "H3", "H3"]) == (2, 3)


@pytest.mark.parametrize("unknown", [None, ""])
def test_unknown_subjects_are_not_counted_as_one(unknown: str | None) -> None:
    assert subjects_per_class(np.array([0, 1]), ["H1", unknown]) is None
