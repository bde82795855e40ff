from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from leukemia_models.evaluation import bootstrap as bootstrap_sums
from leukemia_models.evaluation.bootstrap import drawn_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.resampling import bootstrapped_metrics


def weighted_metrics(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, threshold: float) -> dict[str, float]:
    """scikit-learn's metrics of samples with integer weights."""
    calls = (scores > threshold).astype(int)
    of_label = np.where(labels == 1, scores, 1 - scores).clip(1e-9, 1 - 1e-9)
    recall = oracle.recall_score(labels, calls, average=None, labels=[0, 1], sample_weight=weights, zero_division=0)
    return {
        "specificity": recall[0],
        "sensitivity": recall[1],
        "balanced_accuracy": recall.mean(),
        "weighted_f1": oracle.f1_score(labels, calls, average="weighted", sample_weight=weights),
        "macro_f1": oracle.f1_score(labels, calls, average="macro", sample_weight=weights),
        "mcc": oracle.matthews_corrcoef(labels, calls, sample_weight=weights),
        "accuracy": oracle.accuracy_score(labels, calls, sample_weight=weights),
        "auroc": oracle.roc_auc_score(labels, scores, sample_weight=weights),
        "auprc": oracle.average_precision_score(labels, scores, sample_weight=weights),
        "brier": np.average((scores - labels) ** 2, weights=weights),
        "nll": np.average(-np.log(of_label), weights=weights),
    }


@pytest.fixture
def samples(rng: np.random.Generator) -> EvaluatedSamples:
    """Twelve subjects, two of them with both labels, and scores with many ties, 0 and 1 among them."""
    subject = np.sort(rng.integers(0, 12, 150))
    labels = np.where(subject < 2, rng.integers(0, 2, 150), subject % 2)
    scores = ((labels + rng.normal(0, 1, 150) + 2) / 5).clip(0, 1).round(1)
    return EvaluatedSamples(tuple(map(str, range(150))), tuple(map(str, subject)), labels, scores)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("max_values", [2_000_000, 400])
def test_equals_a_plain_loop_over_the_draws(
    samples: EvaluatedSamples,
    rng: np.random.Generator,
    threshold: float,
    max_values: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap_sums, "MAX_CHUNK_VALUES", max_values)
    subject = np.array([int(name) for name in samples.subjects])
    draws = rng.integers(0, 3, (25, 12))
    draws[0] = 1
    found = drawn_metrics(samples, subject, draws, threshold)
    assert set(found) == set(bootstrapped_metrics())
    for number, draw in enumerate(draws):
        expected = weighted_metrics(samples.labels_N, samples.probabilities_N, draw[subject].astype(float), threshold)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected)


def test_a_draw_of_one_class_leaves_the_rest_undefined_without_a_warning() -> None:
    samples = EvaluatedSamples(("a", "b"), ("s", "t"), np.array([0, 1]), np.array([0.2, 0.9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn_metrics(samples, np.array([0, 1]), np.array([[2, 0], [0, 2]]), 0.5)
    for name in ("balanced_accuracy", "auroc", "auprc", "mcc"):
        assert np.isnan(found[name]).all()
    assert found["accuracy"].tolist() == [1, 1]
    assert found["specificity"][0] == found["sensitivity"][1] == 1
