"""Prediction of a class from features: what is reported, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from leukemia_data.scanning.class_prediction import predict_classes
from leukemia_data.sources.reading import WORTH_A_WARNING


def tells(features, labels, groups=None, seed=0) -> bool:
    found = predict_classes(
        np.asarray(features, float), labels, np.arange(len(labels)) if groups is None else groups, seed=seed
    )
    chance = 1 / (labels.max() + 1)
    return found.low > chance and found.balanced_accuracy >= WORTH_A_WARNING * chance


@pytest.mark.parametrize("num", [8, 12, 48])
def test_a_column_that_separates_is_found_with_wilsons_interval(num):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], num)
    features = np.stack([np.where(labels, 600, 224), rng.normal(size=2 * num), rng.normal(size=2 * num)], axis=1)
    found = predict_classes(features, labels, np.arange(2 * num))
    assert (found.balanced_accuracy, found.features) == (1.0, (0,))
    lowest = binomtest(num, num).proportion_ci(0.99, method="wilson").low
    # Two independent recalls: the distance below their mean is that of one over the root of two.
    assert 1 - found.low == pytest.approx((1 - lowest) / np.sqrt(2))
    assert found.high == pytest.approx(1)


def test_the_same_seed_gives_the_same_numbers():
    rng = np.random.default_rng(1)
    labels, features = rng.integers(0, 2, 60), rng.normal(size=(60, 3))
    one, again, other = (predict_classes(features, labels, np.arange(60), seed=seed) for seed in (4, 4, 5))
    assert one == again
    assert one != other


def test_classes_dealt_at_random_to_mixed_frames_are_reported_in_at_most_one_source_of_twenty():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 12)
    num_told = 0
    for _ in range(80):
        side = rng.choice([224.0, 300, 450, 600], 24)
        features = np.stack([side, side * rng.choice([1, 4 / 3], 24), rng.normal(size=24), rng.integers(0, 2, 24)], 1)
        num_told += tells(features, labels)
    assert num_told <= 3


def test_subjects_with_cameras_of_their_own_are_no_classes():
    """Six images of each of sixteen people, whose camera is drawn by person."""
    rng = np.random.default_rng(7)
    people = np.repeat(np.arange(16), 6)
    labels = people // 8
    by_person, by_image = 0, 0
    for _ in range(40):
        features = np.stack([rng.choice([224.0, 300, 450, 600, 720], 16)[people], rng.normal(size=96)], axis=1)
        by_person += tells(features, labels, people)
        by_image += tells(features, labels)
    assert by_person <= 2
    assert by_image >= 15
    assert tells(np.where(labels, 224, 600)[:, None], labels, people)


def test_the_interval_counts_people():
    labels = np.repeat([0, 1], 40)
    people = np.repeat(np.arange(8), 10)
    features = np.where(labels, 224.0, 600.0)[:, None]
    by_person = predict_classes(features, labels, people)
    lowest = binomtest(4, 4).proportion_ci(0.99, method="wilson").low
    assert 1 - by_person.low == pytest.approx((1 - lowest) / np.sqrt(2))
    assert by_person.low < predict_classes(features, labels, np.arange(80)).low


def test_one_class_of_five_from_another_camera():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(5), 20)
    features = np.stack([np.where(labels == 3, 1024.0, 450.0), rng.normal(size=100)], axis=1)
    found = predict_classes(features, labels, np.arange(100))
    assert found.balanced_accuracy > 0.33
    assert found.features[0] == 0
    assert tells(features, labels)
    assert not tells(features[:, 1:], labels)


def test_eight_classes_of_eight_sizes():
    labels = np.repeat(np.arange(8), 10)
    # Each split of equal classes gains the same, so three levels need not find all eight.
    assert tells((labels * 100.0)[:, None], labels)


def test_nothing_that_varies_is_chance():
    labels = np.repeat([0, 1, 2], 10)
    found = predict_classes(np.ones((30, 4)), labels, np.arange(30))
    assert (found.balanced_accuracy, found.features) == (pytest.approx(1 / 3), ())
