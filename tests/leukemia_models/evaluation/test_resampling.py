from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.resampling import (
    BootstrapSettings,
    SubjectGroups,
    bootstrapped_metrics,
    percentile_interval,
    subject_groups,
    trust_note,
)

CLASSES = ("hem", "all")


def samples_of(subjects: list[str], labels: list[int]) -> EvaluatedSamples:
    ids = tuple(str(number) for number in range(len(labels)))
    return EvaluatedSamples(ids, tuple(subjects), np.array(labels), np.full(len(labels), 0.5))


def groups_of(num_negative: int, num_positive: int) -> SubjectGroups:
    count = num_negative + num_positive
    strata = np.repeat([0, 1], [num_negative, num_positive])
    return SubjectGroups(np.arange(count), strata, (num_negative, num_positive))


def test_each_draw_keeps_the_number_of_subjects_of_each_class() -> None:
    groups = groups_of(6, 9)
    draws = groups.draw(BootstrapSettings(num_draws=300))
    assert draws.shape == (300, 15)
    assert set(draws[:, :6].sum(axis=1)) == {6}
    assert set(draws[:, 6:].sum(axis=1)) == {9}
    # Every subject is drawn once on average; a fraction (1 - 1/9)^9 of the draws leaves it out.
    assert draws.mean(axis=0) == pytest.approx(1, abs=0.25)
    assert (draws[:, 6:] == 0).mean() == pytest.approx((1 - 1 / 9) ** 9, abs=0.03)


def test_seed_decides_the_draws() -> None:
    groups = groups_of(5, 5)
    first, same, other = (groups.draw(BootstrapSettings(num_draws=100, seed=seed)) for seed in (0, 0, 1))
    assert (first == same).all()
    assert (first != other).any()


def test_subjects_are_numbered_by_name_whatever_the_order() -> None:
    groups = subject_groups(samples_of(["b", "a", "b", "c"], [1, 0, 1, 0]))
    assert groups is not None
    assert groups.subject_N.tolist() == [1, 0, 1, 2]
    assert groups.stratum_S.tolist() == [0, 1, 0]
    assert groups.per_class == (2, 1)


def test_mixed_subject_is_drawn_with_its_larger_class() -> None:
    groups = subject_groups(samples_of(["a", "a", "a", "b", "b"], [1, 1, 0, 1, 0]))
    assert groups is not None
    assert groups.stratum_S.tolist() == [1, 0]


def test_one_unknown_subject_leaves_no_groups() -> None:
    samples = samples_of(["a", ""], [0, 1])
    assert subject_groups(samples) is None
    assert "1 of 2 images are unknown" in str(trust_note(samples, None, CLASSES))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((4, 4), "No intervals: the evaluated subjects are 4 of class 'hem' and 4 of class 'all'"),
        ((1, 30), "Intervals only for metrics of one class: the evaluated subjects are 1 of class 'hem'"),
        ((5, 30), "rough"),
        ((9, 10), "9 of class 'hem' and 10 of class 'all'"),
        ((10, 10), None),
    ],
)
def test_few_subjects_give_a_caution(counts: tuple[int, int], words: str | None) -> None:
    note = trust_note(samples_of(["a"], [0]), groups_of(*counts), CLASSES)
    assert note is None if words is None else words in str(note)


def test_a_recall_needs_subjects_of_its_class_alone() -> None:
    assert groups_of(5, 5).metric_names() == bootstrapped_metrics()
    assert groups_of(4, 5).metric_names() == ("sensitivity",)
    assert groups_of(5, 0).metric_names() == ("specificity",)
    assert groups_of(4, 4).metric_names() == ()
    assert "ece" not in bootstrapped_metrics()


def test_interval_is_the_middle_of_the_defined_draws() -> None:
    values = np.append(np.arange(101.0), [np.nan, np.nan])
    interval = percentile_interval(values, 0.9)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((5, 95))


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, 1.0, 1.0 - 1e-15]])
def test_no_interval_from_draws_that_agree(values: list[float]) -> None:
    assert percentile_interval(np.array(values), 0.95) is None


@pytest.mark.parametrize("values", [{"num_draws": 99}, {"seed": -1}, {"level": 0.0}, {"level": 1.0}])
def test_wrong_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="bootstrap"):
        BootstrapSettings(**values)
