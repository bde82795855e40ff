from __future__ import annotations

import json

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.bootstrap import paired_bootstrap, subject_bootstrap
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.metrics import METRICS
from leukemia_models.evaluation.resampling import BootstrapSettings

FEW = BootstrapSettings(num_draws=300)


def simulated(rng: np.random.Generator, num_subjects: int, effect: float, num_cells: int = 40) -> EvaluatedSamples:
    """Cells whose score depends on the class, the cell and, by `effect`, the subject."""
    subject = np.repeat(np.arange(2 * num_subjects), num_cells)
    labels = subject % 2
    mood = rng.normal(0, effect, 2 * num_subjects)
    log_odds = 1.0 * (2 * labels - 1) + mood[subject] + rng.normal(0, 1, len(subject))
    names = tuple(f"{'H' if label == 0 else ''}{number}" for number, label in zip(subject, labels, strict=True))
    return EvaluatedSamples(tuple(map(str, range(len(subject)))), names, labels, 1 / (1 + np.exp(-log_odds)))


def as_own_subjects(samples: EvaluatedSamples) -> EvaluatedSamples:
    """As if every image were of another person: what an image bootstrap assumes."""
    return EvaluatedSamples(samples.ids, samples.ids, samples.labels_N, samples.probabilities_N)


def width(samples: EvaluatedSamples, name: str) -> float:
    interval = subject_bootstrap(samples, settings=FEW).intervals[name]
    return interval.high - interval.low


def test_intervals_hold_the_value_and_skip_the_calibration_error(rng: np.random.Generator) -> None:
    samples = simulated(rng, 12, 0.7)
    found = subject_bootstrap(samples, settings=FEW)
    values = classification_metrics(samples.labels_N, samples.probabilities_NK).values()
    assert set(found.intervals) == set(METRICS) - {"ece"}
    assert all(interval.low < values[name] < interval.high for name, interval in found.intervals.items())
    assert found.subjects_per_class == (12, 12)
    assert found.note is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_order_of_the_rows_does_not_matter(rng: np.random.Generator) -> None:
    samples = simulated(rng, 6, 0.7)
    shuffled = samples.take(rng.permutation(len(samples)))
    one, other = (subject_bootstrap(each, settings=FEW).intervals for each in (samples, shuffled))
    for name in one:
        assert (one[name].low, one[name].high) == pytest.approx((other[name].low, other[name].high))


@pytest.mark.parametrize("name", ["balanced_accuracy", "auroc", "weighted_f1", "brier"])
def test_strong_subject_effect_makes_intervals_wider_than_images_do(rng: np.random.Generator, name: str) -> None:
    strong, none = simulated(rng, 12, 1.5), simulated(rng, 12, 0.0)
    assert width(strong, name) > 3 * width(as_own_subjects(strong), name)
    assert width(none, name) < 2 * width(as_own_subjects(none), name)


def test_intervals_of_subjects_cover_the_truth_and_those_of_images_do_not() -> None:
    """Sensitivity of a network over a population of subjects, known exactly: 80 data sets of 30 subjects."""
    rng = np.random.default_rng(0)
    covered = {"subjects": 0, "images": 0}
    settings = BootstrapSettings(num_draws=150)
    for _ in range(80):
        shares = rng.beta(2.4, 0.6, 30)  # mean 0.8, standard deviation 0.2
        right = rng.binomial(20, shares)
        calls = np.concatenate([np.arange(20) < count for count in right])
        subject = np.repeat(np.arange(30), 20)
        samples = EvaluatedSamples(
            tuple(map(str, range(600))), tuple(map(str, subject)), np.ones(600, np.int64), calls * 1.0
        )
        for kind, each in (("subjects", samples), ("images", as_own_subjects(samples))):
            interval = subject_bootstrap(each, settings=settings).intervals["sensitivity"]
            covered[kind] += interval.low <= 0.8 <= interval.high
    assert covered["subjects"] / 80 > 0.85
    assert covered["images"] / 80 < 0.75


def test_few_subjects_get_a_sentence_in_place_of_an_interval(rng: np.random.Generator) -> None:
    found = subject_bootstrap(simulated(rng, 4, 0.5), settings=FEW)
    assert found.intervals == {}
    assert str(found.note).startswith("No intervals")
    assert "rough" in str(subject_bootstrap(simulated(rng, 5, 0.5), settings=FEW).note)


def test_faultless_subjects_do_not_give_an_interval_of_no_width() -> None:
    labels = np.repeat([0, 1], 12)
    ids = tuple(map(str, range(24)))
    found = subject_bootstrap(EvaluatedSamples(ids, ids, labels, labels.astype(float)), settings=FEW)
    assert found.intervals == {}
    assert "same in every resample" in str(found.note)


def test_paired_difference_is_the_difference_on_the_same_draws(rng: np.random.Generator) -> None:
    first = simulated(rng, 12, 1.0)
    worse = first.with_probabilities((first.probabilities_N * 0.8 + 0.2 * rng.random(len(first))).clip(0, 1))
    found = paired_bootstrap(first, worse.take(rng.permutation(len(first))), settings=FEW)
    one, other = (subject_bootstrap(each, settings=FEW).intervals for each in (first, worse))
    for name in ("auroc", "balanced_accuracy", "nll"):
        difference = found.differences[name]
        values = [
            classification_metrics(each.labels_N, each.probabilities_NK).values()[name] for each in (first, worse)
        ]
        assert difference.first == pytest.approx(values[0])
        assert difference.second == pytest.approx(values[1])
        assert difference.difference == pytest.approx(values[0] - values[1])
        assert difference.interval is not None
        assert difference.interval.low < difference.difference < difference.interval.high
        # Both use the same subjects, so the difference has a narrower interval than the two values.
        assert difference.interval.high - difference.interval.low < 0.8 * (one[name].high - other[name].low)
    assert found.differences["auroc"].share_at_most_zero < 0.05
    assert found.differences["nll"].share_at_most_zero > 0.95
    assert found.differences["ece"].interval is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_paired_interval_by_a_plain_loop() -> None:
    """Accuracy of ten subjects with one image each: a draw's difference is a mean of the subjects' differences."""
    rng = np.random.default_rng(3)
    labels, ids = np.repeat([0, 1], 5), tuple(map(str, range(10)))
    first = EvaluatedSamples(ids, ids, labels, rng.random(10))
    second = first.with_probabilities(rng.random(10))
    gain = ((first.probabilities_N > 0.5) == labels) * 1.0 - ((second.probabilities_N > 0.5) == labels)
    draws = []
    for weights_0, weights_1 in zip(
        (generator := np.random.default_rng(0)).multinomial(5, [0.2] * 5, 500),
        generator.multinomial(5, [0.2] * 5, 500),
        strict=True,
    ):
        draws.append(np.average(gain, weights=np.concatenate([weights_0, weights_1])))
    found = paired_bootstrap(first, second, settings=BootstrapSettings(num_draws=500)).differences["accuracy"]
    assert found.interval is not None
    expected = np.quantile(draws, [0.025, 0.975])
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert found.share_at_most_zero == pytest.approx(np.mean(np.array(draws).round(12) <= 0))


def test_a_network_and_itself_differ_by_nothing(rng: np.random.Generator) -> None:
    samples = simulated(rng, 8, 1.0)
    for difference in paired_bootstrap(samples, samples, settings=FEW).differences.values():
        assert difference.difference == 0
        assert difference.interval is None
        # Not 1, which would mean "always lower".
        assert difference.share_at_most_zero is None


def test_a_difference_that_is_the_same_in_all_draws_is_explained(rng: np.random.Generator) -> None:
    samples = simulated(rng, 12, 1.0)
    found = paired_bootstrap(samples, samples, settings=FEW)
    assert "same in every resample" in str(found.note)


def test_thresholds_may_differ(rng: np.random.Generator) -> None:
    samples = simulated(rng, 8, 1.0)
    found = paired_bootstrap(samples, samples, thresholds=(0.3, 0.7), settings=FEW).differences
    assert found["sensitivity"].difference > 0
    assert found["sensitivity"].share_at_most_zero == 0 or found["sensitivity"].interval is None
    assert found["auroc"].difference == 0


def test_other_images_labels_or_subjects_are_refused(rng: np.random.Generator) -> None:
    samples = simulated(rng, 5, 0.5)
    with pytest.raises(UsageError, match=r"different images \(1 are in one only: 399\)"):
        paired_bootstrap(samples, samples.take(np.arange(len(samples) - 1)), settings=FEW)
    relabelled = EvaluatedSamples(samples.ids, samples.subjects, 1 - samples.labels_N, samples.probabilities_N)
    with pytest.raises(UsageError, match="different labels or subjects"):
        paired_bootstrap(samples, relabelled, settings=FEW)
    doubled = EvaluatedSamples(("0", *samples.ids[:-1]), samples.subjects, samples.labels_N, samples.probabilities_N)
    with pytest.raises(UsageError, match="several predictions"):
        paired_bootstrap(samples, doubled, settings=FEW)


def test_few_subjects_leave_plain_differences(rng: np.random.Generator) -> None:
    samples = simulated(rng, 2, 0.5)
    found = paired_bootstrap(samples, samples.with_probabilities(samples.probabilities_N**2), settings=FEW)
    assert all(difference.interval is None for difference in found.differences.values())
    assert found.differences["nll"].difference is not None
    assert str(found.note).startswith("No intervals")
