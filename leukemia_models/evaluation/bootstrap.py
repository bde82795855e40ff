"""Bootstrap intervals of metrics, by resampling subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError, listed
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples
from leukemia_models.evaluation.metrics import METRICS, POSITIVE, Metric, Outcome, brier_terms, metric_names, nll_terms
from leukemia_models.evaluation.resampling import (
    DEFAULT_BOOTSTRAP,
    SAME_NOTE,
    BootstrapSettings,
    Interval,
    bootstrapped_metrics,
    percentile_interval,
    subject_groups,
    trust_note,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_CHUNK_VALUES = 100_000
"""Draws times images in one array: 0.8 MB, which fits the processor's caches."""


def drawn_metrics(samples: EvaluatedSamples, subject_N: Ints, draws_DS: Ints, threshold: float) -> dict[str, Floats]:
    """Return the metrics with intervals of every draw, float64 (D,), NaN where undefined.

    Parameters
    ----------
    samples : EvaluatedSamples
    subject_N : int64 array (N,)
        Index of each sample's subject.
    draws_DS : int64 array (D,S)
        Count of each subject in each draw.
    threshold : float
        Of two classes the prediction is class 1 where its probability is above.
    """
    num_subjects, num_classes = draws_DS.shape[1], samples.num_classes
    cell_N = num_classes * samples.labels_N + samples.predictions_N(threshold)
    confusion_SC = np.zeros((num_subjects, num_classes**2))
    np.add.at(confusion_SC, (subject_N, cell_N), 1)
    losses_SL = np.stack(
        [
            np.bincount(subject_N, terms(samples.labels_N, samples.probabilities_NK), num_subjects)
            for terms in (brier_terms, nll_terms)
        ],
        axis=1,
    )
    confusion_DC: Floats = draws_DS @ confusion_SC
    counts_D = confusion_DC.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        brier_D, nll_D = (draws_DS @ losses_SL / counts_D[:, None]).T
        drawn = {
            **confusion_metrics(confusion_DC),
            **_ranking_metrics(samples, subject_N, draws_DS),
            "brier": brier_D,
            "nll": nll_D,
        }
    for name in bootstrapped_metrics(num_classes):
        metric = METRICS.get(name)
        if metric.of_confusions is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn[name] = np.asarray(metric.of_confusions(confusion_DC), np.float64)
        elif name not in drawn:
            drawn[name] = _value_of_each_draw(metric, samples, draws_DS[:, subject_N], threshold)
    return drawn


def _value_of_each_draw(metric: Metric, samples: EvaluatedSamples, weights_DN: Ints, threshold: float) -> Floats:
    """Return a metric of every draw, computed on samples that are repeated by their counts."""
    outcomes = (
        Outcome(
            np.repeat(samples.labels_N, weights_N), np.repeat(samples.probabilities_NK, weights_N, axis=0), threshold
        )
        for weights_N in weights_DN
    )
    return np.array([np.nan if (value := metric.of(outcome)) is None else value for outcome in outcomes], np.float64)


def confusion_metrics(confusion_DC: Floats) -> dict[str, Floats]:
    """Return metrics (D,) of counts (D,K*K), of two classes (label, prediction) = (0,0), (0,1), (1,0), (1,1).

    NaN where undefined. Of more than two classes means are over those with samples in a draw.
    """
    if confusion_DC.shape[1] == 4:
        return _confusion_metrics_of_two(confusion_DC)
    num_classes = math.isqrt(confusion_DC.shape[1])
    confusion_DKK = confusion_DC.reshape(-1, num_classes, num_classes)
    hits_DK = np.diagonal(confusion_DKK, axis1=1, axis2=2)
    support_DK, called_DK = confusion_DKK.sum(axis=2), confusion_DKK.sum(axis=1)
    total_D = support_DK.sum(axis=1)
    has_several_D = np.count_nonzero(support_DK, axis=1) > 1
    sizes_DK = support_DK + called_DK
    f1_DK = 2 * hits_DK / np.maximum(sizes_DK, 1)
    recalls_D = (hits_DK / np.maximum(support_DK, 1)).sum(axis=1) / np.count_nonzero(support_DK, axis=1)
    # Gorodkin (2004), Comparing two K-category assignments by a K-category correlation coefficient.
    together_D = hits_DK.sum(axis=1) * total_D - (support_DK * called_DK).sum(axis=1)
    spread_D = np.sqrt(
        (total_D**2 - np.square(support_DK).sum(axis=1)) * (total_D**2 - np.square(called_DK).sum(axis=1))
    )
    mcc_D = np.where(spread_D > 0, together_D / np.where(spread_D > 0, spread_D, 1), 0)
    return {
        "balanced_accuracy": np.where(has_several_D, recalls_D, np.nan),
        "weighted_f1": (f1_DK * support_DK).sum(axis=1) / total_D,
        "macro_f1": np.where(has_several_D, f1_DK.sum(axis=1) / np.count_nonzero(sizes_DK, axis=1), np.nan),
        "mcc": np.where(has_several_D, mcc_D, np.nan),
        "accuracy": hits_DK.sum(axis=1) / total_D,
    }


def _confusion_metrics_of_two(confusion_DC: Floats) -> dict[str, Floats]:
    true_0, false_1, false_0, true_1 = confusion_DC.T
    label_0, label_1 = true_0 + false_1, true_1 + false_0
    called_0, called_1 = true_0 + false_0, true_1 + false_1
    total = label_0 + label_1
    specificity, sensitivity = true_0 / label_0, true_1 / label_1
    f1_0, f1_1 = 2 * true_0 / (label_0 + called_0), 2 * true_1 / (label_1 + called_1)
    spread = np.sqrt(label_0 * label_1 * called_0 * called_1)
    # Without predictions of one class the correlation is 0 by convention, as in scikit-learn.
    mcc = np.where(spread > 0, (true_0 * true_1 - false_0 * false_1) / np.where(spread > 0, spread, 1), 0)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "weighted_f1": (f1_0 * label_0 + f1_1 * label_1) / total,
        "macro_f1": (f1_0 + f1_1) / 2,
        "mcc": np.where(label_0 * label_1 > 0, mcc, np.nan),
        "accuracy": (true_0 + true_1) / total,
    }


def _ranking_metrics(samples: EvaluatedSamples, subject_N: Ints, draws_DS: Ints) -> dict[str, Floats]:
    """Return AUROC and average precision of every draw: of class 1 of two, else the mean over the classes in it."""
    labels = (POSITIVE,) if samples.num_classes == 2 else range(samples.num_classes)
    found = [_ranking_of_class(samples, label, subject_N, draws_DS) for label in labels]
    if len(found) == 1:
        return dict(found[0])
    return {name: _mean_of_defined(np.stack([each[name] for each in found])) for name in ("auroc", "auprc")}


def _mean_of_defined(values_KD: Floats) -> Floats:
    is_defined_KD = np.isfinite(values_KD)
    return np.asarray(np.where(is_defined_KD, values_KD, 0).sum(axis=0) / is_defined_KD.sum(axis=0))


def _ranking_of_class(samples: EvaluatedSamples, label: int, subject_N: Ints, draws_DS: Ints) -> dict[str, Floats]:
    """Return AUROC and average precision of a class against the rest in every draw, computed in chunks of draws."""
    scores_N = samples.probabilities_NK[:, label]
    falling_N = np.argsort(-scores_N, kind="stable")
    scores_N = scores_N[falling_N]
    last_of_tie = np.flatnonzero(np.append(scores_N[1:] != scores_N[:-1], True))
    is_positive_N = samples.labels_N[falling_N] == label
    length = max(MAX_CHUNK_VALUES // len(samples), 1)
    chunks = [
        _ranking_of_weights(draws_DS[start : start + length][:, subject_N[falling_N]], is_positive_N, last_of_tie)
        for start in range(0, len(draws_DS), length)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in ("auroc", "auprc")}


def _ranking_of_weights(
    weights_DN: Ints, is_positive_N: npt.NDArray[np.bool_], last_of_tie: Ints
) -> Mapping[str, Floats]:
    """Return the areas under the ROC and precision-recall curves, which have one step for each distinct score."""
    positives_DT = np.cumsum(weights_DN * is_positive_N, axis=1)[:, last_of_tie]
    called_DT = np.cumsum(weights_DN, axis=1)[:, last_of_tie]
    gained_DT = np.diff(positives_DT, axis=1, prepend=0)
    negatives_DT = called_DT - positives_DT
    num_positives_D, num_negatives_D = positives_DT[:, -1], negatives_DT[:, -1]
    # Each positive loses to the negatives above it, and to half of those that tie with it.
    met_DT = (negatives_DT + np.pad(negatives_DT, ((0, 0), (1, 0)))[:, :-1]) / 2
    lost_D = (gained_DT * met_DT).sum(axis=1)
    precision_DT = positives_DT / np.maximum(called_DT, 1)
    average_precision_D = (gained_DT * precision_DT).sum(axis=1) / num_positives_D
    return {
        "auroc": 1 - lost_D / (num_positives_D * num_negatives_D),
        # Undefined without negatives, where the precision is always 1.
        "auprc": np.where(num_negatives_D > 0, average_precision_D, np.nan),
    }


@dataclass(frozen=True, kw_only=True)
class SubjectBootstrap:
    """Intervals of metrics.

    Parameters
    ----------
    settings : BootstrapSettings
    subjects_per_class : tuple of int, or None
        Number of resampled subjects; None where the subject of an image is unknown.
    intervals : mapping of str to Interval
        By metric, for metrics that have one.
    note : str or None
        Why there are none, or why to distrust them.
    """

    settings: BootstrapSettings
    subjects_per_class: tuple[int, ...] | None
    intervals: Mapping[str, Interval]
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return _to_dict(self, intervals={name: list(interval) for name, interval in self.intervals.items()})


def subject_bootstrap(
    samples: EvaluatedSamples,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    settings: BootstrapSettings = DEFAULT_BOOTSTRAP,
    classes: Sequence[str] = ("hem", "all"),
) -> SubjectBootstrap:
    """Return intervals of the metrics of `samples`.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images; or one row a subject, for subject-level metrics.
    threshold : float
        Of two classes the prediction is class 1 where its probability is above.
    settings : BootstrapSettings
    classes : sequence of str
        Names of the classes, for the note.
    """
    groups = subject_groups(samples)
    intervals = {}
    if groups is not None and (names := groups.metric_names()):
        drawn = drawn_metrics(samples, groups.subject_N, groups.draw(settings), threshold)
        intervals = {name: percentile_interval(drawn[name], settings.level) for name in names}
    return SubjectBootstrap(
        settings=settings,
        subjects_per_class=groups.per_class if groups else None,
        intervals={name: interval for name, interval in intervals.items() if interval is not None},
        note=_note(trust_note(samples, groups, classes), is_same=None in intervals.values()),
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two networks on the same images.

    Parameters
    ----------
    first, second : float or None
        The metric of each; None where undefined.
    difference : float or None
        First minus second.
    interval : Interval or None
        Of the difference; None where there are too few subjects, or all draws are equal.
    share_at_most_zero : float or None
        Fraction of draws in which the first is not higher than the second; None without an interval.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None = None
    share_at_most_zero: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


@dataclass(frozen=True, kw_only=True)
class PairedBootstrap:
    """Differences of the metrics of two networks on the same images.

    Parameters
    ----------
    settings, subjects_per_class, note
        As for :class:`SubjectBootstrap`.
    differences : mapping of str to Difference
        For all metrics of so many classes, see :func:`~leukemia_models.evaluation.metrics.metric_names`.
    """

    settings: BootstrapSettings
    subjects_per_class: tuple[int, ...] | None
    differences: Mapping[str, Difference]
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return _to_dict(self, differences={name: each.to_dict() for name, each in self.differences.items()})


def _to_dict(bootstrap: SubjectBootstrap | PairedBootstrap, **results: Any) -> dict[str, Any]:  # noqa: ANN401
    settings = {"unit": "subject", **asdict(bootstrap.settings), "subjects_per_class": bootstrap.subjects_per_class}
    return {**settings, **results, "note": bootstrap.note}


def paired_bootstrap(
    first: EvaluatedSamples,
    second: EvaluatedSamples,
    *,
    thresholds: tuple[float, float] = (DEFAULT_THRESHOLD, DEFAULT_THRESHOLD),
    settings: BootstrapSettings = DEFAULT_BOOTSTRAP,
    classes: Sequence[str] = ("hem", "all"),
) -> PairedBootstrap:
    """Compare two networks on the same images and the same draws of subjects.

    Parameters
    ----------
    first, second : EvaluatedSamples
        In any order. For subject-level metrics one row a subject, see
        :func:`~leukemia_models.evaluation.subject_level.subject_samples`.
    thresholds : tuple of two floats
        Of the first and of the second.
    settings, classes
        As for :func:`subject_bootstrap`.

    Raises
    ------
    UsageError
        If the two do not have the same images with the same labels and subjects.
    """
    if first.num_classes != second.num_classes:
        raise UsageError(f"the two have {first.num_classes} and {second.num_classes} classes: they cannot be compared")
    pair = ((first, thresholds[0]), (_in_order_of(second, first), thresholds[1]))
    plain = [
        classification_metrics(each.labels_N, each.probabilities_NK, classes, threshold=threshold).values()
        for each, threshold in pair
    ]
    groups = subject_groups(first)
    difference_of_draws = {}
    if groups is not None and (names := groups.metric_names()):
        draws_DS = groups.draw(settings)
        one, other = (drawn_metrics(each, groups.subject_N, draws_DS, threshold) for each, threshold in pair)
        # Rounded, so that equal networks differ by exactly 0 for any order of additions.
        difference_of_draws = {name: (one[name] - other[name]).round(12) for name in names}
    differences = {
        name: _difference(plain[0][name], plain[1][name], difference_of_draws.get(name), settings.level)
        for name in metric_names(first.num_classes)
    }
    is_same = any(differences[name].interval is None for name in difference_of_draws)
    return PairedBootstrap(
        settings=settings,
        subjects_per_class=groups.per_class if groups else None,
        differences=differences,
        note=_note(trust_note(first, groups, classes), is_same=is_same),
    )


def _note(trust: str | None, *, is_same: bool) -> str | None:
    return " ".join(filter(None, (trust, SAME_NOTE if is_same else None))) or None


def _difference(
    first: float | None, second: float | None, draws_D: npt.NDArray[np.float64] | None, level: float
) -> Difference:
    if first is None or second is None:
        return Difference(first, second, None)
    defined = np.zeros(0) if draws_D is None else draws_D[np.isfinite(draws_D)]
    interval = percentile_interval(defined, level)
    # Without an interval all draws may be 0: "not higher in 100 % of draws" would then be misleading.
    at_most_zero = float(np.mean(defined <= 0)) if interval else None
    return Difference(first, second, first - second, interval, at_most_zero)


def _in_order_of(samples: EvaluatedSamples, model: EvaluatedSamples) -> EvaluatedSamples:
    """Return `samples` in the order of the ids of `model`."""
    for each in (samples, model):
        if len(set(each.ids)) < len(each.ids):
            raise UsageError("the two cannot be compared: an image has several predictions")
    row_of = {name: row for row, name in enumerate(samples.ids)}
    different = sorted(row_of.keys() ^ set(model.ids))
    if different:
        raise UsageError(
            f"the two were evaluated on different images ({len(different):,} are in one only: "
            f"{listed(different, most=3)}); compare runs with the same split, on the same part"
        )
    ordered = samples.take(np.array([row_of[name] for name in model.ids], np.int64))
    if ordered.subjects != model.subjects or not np.array_equal(ordered.labels_N, model.labels_N):
        raise UsageError("the two were evaluated on the same images with different labels or subjects")
    return ordered
