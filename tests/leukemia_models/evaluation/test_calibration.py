from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.calibration import (
    TEMPERATURE_RANGE,
    Calibration,
    fit_calibration,
    fit_temperature,
    fit_threshold,
    scaled_probabilities,
)
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples


def overconfident(rng: np.random.Generator, count: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those with log-odds `factor` times too large."""
    true_log_odds = rng.normal(0, 1.5, count)
    labels = (rng.random(count) < expit(true_log_odds)).astype(np.int64)
    return labels, expit(factor * true_log_odds)


def samples_of(labels: np.ndarray, probabilities: np.ndarray, num_subjects: int = 30) -> EvaluatedSamples:
    names = tuple(f"{label}-{number % num_subjects}" for number, label in enumerate(labels))
    return EvaluatedSamples(tuple(map(str, range(len(labels)))), names, labels, probabilities)


def test_temperature_is_logistic_regression_without_intercept(rng: np.random.Generator) -> None:
    labels, probabilities = overconfident(rng, 500, 2.5)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit(probabilities)[:, None], labels)
    assert fit_temperature(labels, probabilities) == pytest.approx(1 / model.coef_[0, 0], rel=1e-4)


def test_temperature_of_a_very_sure_network_by_hand() -> None:
    # All predictions have the log-odds 8 and nine of ten are right: the scaled probability must be 0.9.
    labels = np.array([1] * 90 + [0] * 10)
    assert fit_temperature(labels, expit(np.full(100, 8.0))) == pytest.approx(8 / np.log(9), rel=1e-4)


@pytest.mark.parametrize("factor", [12.0, 30.0])
def test_temperature_of_very_sure_networks_has_the_lowest_loss(rng: np.random.Generator, factor: float) -> None:
    labels, probabilities = overconfident(rng, 40, factor)
    found = fit_temperature(labels, probabilities)
    tried = np.geomspace(*TEMPERATURE_RANGE, 400)
    losses = [log_loss(labels, scaled_probabilities(probabilities, temperature)) for temperature in tried]
    assert log_loss(labels, scaled_probabilities(probabilities, found)) <= min(losses) + 1e-9
    assert found == pytest.approx(tried[np.argmin(losses)], rel=0.02)


def test_temperature_undoes_overconfidence_on_other_images(rng: np.random.Generator) -> None:
    labels, probabilities = overconfident(rng, 20_000, 2.5)
    calibration = fit_calibration(samples_of(labels[:10_000], probabilities[:10_000]), fitted_on="valid")
    assert calibration.temperature == pytest.approx(2.5, rel=0.08)
    assert calibration.note is None
    others = samples_of(labels[10_000:], probabilities[10_000:])
    before, after = (
        classification_metrics(each.labels_N, each.probabilities_NK) for each in (others, calibration.apply(others))
    )
    assert after.nll < before.nll
    assert after.ece < before.ece / 3
    assert after.auroc == pytest.approx(before.auroc)
    assert after.confusion == before.confusion


def test_scaling_keeps_half_and_order() -> None:
    scaled = scaled_probabilities(np.array([0.0, 0.2, 0.5, 0.9, 1.0]), 2.0)
    assert scaled[2] == pytest.approx(0.5)
    assert (np.diff(scaled) > 0).all()
    assert scaled[1] == pytest.approx(1 / (1 + np.sqrt(0.8 / 0.2)))


@pytest.mark.parametrize(("labels", "border"), [([0, 1], TEMPERATURE_RANGE[0]), ([1, 0], TEMPERATURE_RANGE[1])])
def test_temperature_stays_within_its_range_and_says_so(labels: list[int], border: float) -> None:
    samples = samples_of(np.array(labels), np.array([0.3, 0.7]))
    found = fit_calibration(samples, fitted_on="valid")
    assert found.temperature == pytest.approx(border, rel=1e-3)
    assert "limit of its range" in str(found.note)
    assert "few subjects, 1 of class 'hem' and 1 of class 'all'" in str(found.note)
    assert "Do not use them" in str(found.note)


def test_threshold_is_as_good_as_the_best_of_all(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, 120)
    probabilities = ((labels * 0.3 + rng.random(120)) / 1.3).round(2)
    found = fit_threshold(labels, probabilities)
    tried = np.arange(0, 1, 0.005)
    scores = [balanced_accuracy_score(labels, probabilities > threshold) for threshold in tried]
    assert balanced_accuracy_score(labels, probabilities > found) == pytest.approx(max(scores))
    nearest = tried[np.isclose(scores, max(scores))]
    assert abs(found - 0.5) <= np.abs(nearest - 0.5).min() + 0.01


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], 0.5),
        ([0, 1], [0.6, 0.9], 0.75),
        ([0, 1], [0.1, 0.3], 0.2),
        ([0, 1], [0.5, 0.8], 0.5),  # a probability at the threshold is class 0
        ([0, 1], [0.2, 0.5], 0.35),
        ([0, 1, 1], [0.3, 0.3, 0.3], 0.5),
        ([0, 1], [0.0, 1.0], 0.5),
        ([1, 0], [0.2, 0.8], 0.1),  # where 0.5 is wrong twice, one class for all is better
    ],
)
def test_threshold_by_hand(labels: list[int], probabilities: list[float], expected: float) -> None:
    assert fit_threshold(np.array(labels), np.array(probabilities)) == pytest.approx(expected)


def test_one_class_cannot_be_fitted() -> None:
    with pytest.raises(UsageError, match="both classes"):
        fit_calibration(samples_of(np.array([1, 1]), np.array([0.3, 0.7])), fitted_on="valid")


def test_unknown_subjects_are_reported() -> None:
    samples = EvaluatedSamples(("a", "b", "c"), ("", "x", "y"), np.array([0, 1, 0]), np.array([0.3, 0.7, 0.8]))
    assert "unknown" in str(fit_calibration(samples, fitted_on="valid").note)


def test_calibration_survives_json() -> None:
    calibration = Calibration(temperature=1.5, threshold=0.4, fitted_on="valid", num_images=3, note="few")
    assert Calibration(**json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"threshold": 1.0}, {"temperature": float("inf")}])
def test_numbers_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="temperature"):
        Calibration(**{"temperature": 1.0, "threshold": 0.5, "fitted_on": "valid", "num_images": 1, **values})
