from __future__ import annotations

import numpy as np
import pytest

from leukemia_models.evaluation.curves import reliability_bins


def test_bins_by_hand() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    probabilities = np.array([0.1, 0.2, 0.25, 0.5, 1.0])
    found = reliability_bins(labels, probabilities, num_bins=4)
    assert found.counts_M.tolist() == [2, 1, 1, 1]  # 0.25 and 0.5 open the bin above, 1.0 closes the last
    assert found.probability_sums_M == pytest.approx([0.3, 0.25, 0.5, 1.0])
    assert found.positives_M.tolist() == [1, 1, 0, 1]
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.calibration_error == pytest.approx((abs(0.3 - 1) + abs(0.25 - 1) + 0.5 + 0) / 5)


def test_error_is_the_weighted_gap_of_the_bins(rng: np.random.Generator) -> None:
    labels, probabilities = rng.integers(0, 2, 400), rng.random(400)
    gaps = 0.0
    for k in range(15):
        inside = (probabilities >= k / 15) & (probabilities < (k + 1) / 15)
        gaps += inside.mean() * abs(labels[inside].mean() - probabilities[inside].mean())
    assert reliability_bins(labels, probabilities).calibration_error == pytest.approx(gaps)


def test_true_probabilities_have_a_small_error(rng: np.random.Generator) -> None:
    probabilities = rng.random(40_000)
    labels = (rng.random(40_000) < probabilities).astype(int)
    assert reliability_bins(labels, probabilities).calibration_error < 0.02
    assert reliability_bins(1 - labels, probabilities).calibration_error > 0.4
