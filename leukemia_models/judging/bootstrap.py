"""How sure a number is: judged samples in, intervals by resampling subjects out. No torch.

One network, or two that were judged on the same images. What is drawn, and when there is no interval, is said in
:mod:`leukemia_models.judging.resampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError, listed
from leukemia_models.judging.bootstrap_sums import drawn_metrics
from leukemia_models.judging.judged_samples import DEFAULT_THRESHOLD, JudgedSamples
from leukemia_models.judging.metrics import METRIC_NAMES, classification_metrics
from leukemia_models.judging.resampling import (
    DEFAULT_BOOTSTRAP,
    SAME_NOTE,
    BootstrapSettings,
    Interval,
    percentile_interval,
    subject_groups,
    trust_note,
)

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SubjectBootstrap:
    """Intervals of one judged part.

    Parameters
    ----------
    settings : BootstrapSettings
        How they were drawn.
    subjects_per_class : tuple of int, or None
        How many were resampled; None where the subject of an image is unknown.
    intervals : mapping of str to Interval
        By metric; metrics without one are absent.
    note : str or None
        Why there are none, or how far to trust them.
    """

    settings: BootstrapSettings
    subjects_per_class: tuple[int, int] | None
    intervals: Mapping[str, Interval]
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "unit": "subject",
            **asdict(self.settings),
            "subjects_per_class": self.subjects_per_class,
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "note": self.note,
        }


def subject_bootstrap(
    samples: JudgedSamples,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    settings: BootstrapSettings = DEFAULT_BOOTSTRAP,
    classes: Sequence[str] = ("hem", "all"),
) -> SubjectBootstrap:
    """Return intervals of the metrics of `samples`, by resampling subjects.

    Parameters
    ----------
    samples : JudgedSamples
        Images; or subjects, one row each, for intervals of subject-level metrics.
    threshold : float
        The prediction is class 1 where its probability lies above.
    settings : BootstrapSettings
        Number of draws, seed, level.
    classes : sequence of two str
        Names of class 0 and 1, for the note.
    """
    groups = subject_groups(samples)
    intervals = {}
    if groups is not None and (names := groups.metric_names()):
        drawn = drawn_metrics(samples, groups.subject_N, groups.draw(settings), threshold)
        intervals = {name: percentile_interval(drawn[name], settings.level) for name in names}
    same_note = SAME_NOTE if None in intervals.values() else None
    return SubjectBootstrap(
        settings=settings,
        subjects_per_class=groups.per_class if groups else None,
        intervals={name: interval for name, interval in intervals.items() if interval is not None},
        note=_joined(trust_note(samples, groups, classes), same_note),
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
        Of the difference; None where there are too few subjects, or all draws agree.
    share_at_most_zero : float or None
        Share of draws in which the first was not higher than the second: near 0 or 1 where one is surely higher. None
        where there is no interval.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None = None
    share_at_most_zero: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "interval": [self.interval.low, self.interval.high] if self.interval else None,
            "share_at_most_zero": self.share_at_most_zero,
        }


@dataclass(frozen=True, kw_only=True)
class PairedBootstrap:
    """How two networks differ on the same images.

    Parameters
    ----------
    settings, subjects_per_class, note
        As for :class:`SubjectBootstrap`.
    differences : mapping of str to Difference
        By metric, all of :data:`~leukemia_models.judging.metrics.METRIC_NAMES`.
    """

    settings: BootstrapSettings
    subjects_per_class: tuple[int, int] | None
    differences: Mapping[str, Difference]
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "unit": "subject",
            **asdict(self.settings),
            "subjects_per_class": self.subjects_per_class,
            "differences": {name: difference.to_dict() for name, difference in self.differences.items()},
            "note": self.note,
        }


def paired_bootstrap(
    first: JudgedSamples,
    second: JudgedSamples,
    *,
    thresholds: tuple[float, float] = (DEFAULT_THRESHOLD, DEFAULT_THRESHOLD),
    settings: BootstrapSettings = DEFAULT_BOOTSTRAP,
    classes: Sequence[str] = ("hem", "all"),
) -> PairedBootstrap:
    """Compare two networks on the same images: both are judged on the same draws of subjects.

    Parameters
    ----------
    first, second : JudgedSamples
        Joined by id, whatever their order. For subject-level metrics hand in one row a subject, see
        :func:`~leukemia_models.judging.subject_level.subject_samples`.
    thresholds : tuple of two floats
        Of the first and of the second.
    settings, classes
        As for :func:`subject_bootstrap`.

    Raises
    ------
    UsageError
        If the two do not hold the same images with the same labels and subjects.
    """
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
        # Equal networks differ by exactly nothing, whatever the order of the additions.
        difference_of_draws = {name: (one[name] - other[name]).round(_DIGITS) for name in names}
    differences = {
        name: _difference(plain[0][name], plain[1][name], difference_of_draws.get(name), settings.level)
        for name in METRIC_NAMES
    }
    is_same = any(differences[name].interval is None for name in difference_of_draws)
    return PairedBootstrap(
        settings=settings,
        subjects_per_class=groups.per_class if groups else None,
        differences=differences,
        note=_joined(trust_note(first, groups, classes), SAME_NOTE if is_same else None),
    )


def _joined(*notes: str | None) -> str | None:
    return " ".join(note for note in notes if note) or None


def _difference(
    first: float | None, second: float | None, draws_D: npt.NDArray[np.float64] | None, level: float
) -> Difference:
    if first is None or second is None:
        return Difference(first, second, None)
    defined = np.zeros(0) if draws_D is None else draws_D[np.isfinite(draws_D)]
    interval = percentile_interval(defined, level)
    # Where all draws agree on no difference, "not higher in 100 % of them" would read as "surely lower".
    share = float(np.mean(defined <= 0)) if interval else None
    return Difference(first, second, first - second, interval, share)


def _in_order_of(samples: JudgedSamples, model: JudgedSamples) -> JudgedSamples:
    """Return `samples` with the rows in the order of `model`'s ids."""
    for each in (samples, model):
        if len(set(each.ids)) < len(each.ids):
            raise UsageError("the two cannot be compared: an image has several predictions")
    row_of = {name: row for row, name in enumerate(samples.ids)}
    different = sorted(row_of.keys() ^ set(model.ids))
    if different:
        raise UsageError(
            f"the two were judged on different images ({len(different):,} are in one only: "
            f"{listed(different, most=3)}); compare runs with the same split, on the same part"
        )
    ordered = samples.take(np.array([row_of[name] for name in model.ids], np.int64))
    if ordered.subjects != model.subjects or not np.array_equal(ordered.labels_N, model.labels_N):
        raise UsageError("the two were judged on the same images with different labels or subjects")
    return ordered
