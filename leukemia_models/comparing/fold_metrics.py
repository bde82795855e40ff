"""The metrics of single folds, and their mean and spread: a fold's predictions in, numbers out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leukemia_models.comparing.fold_predictions import FoldPredictions
from leukemia_models.judging.metrics import METRIC_NAMES, classification_metrics
from leukemia_models.judging.predictions import judged_samples
from leukemia_models.judging.subject_counts import subjects_per_class

DEFINED_WITH_ONE_CLASS = ("sensitivity", "specificity")


@dataclass(frozen=True, kw_only=True)
class FoldMetrics:
    """One fold, judged by itself.

    Parameters
    ----------
    name, split, stamp : str
        As in :class:`FoldPredictions`.
    epoch : int or None
        The epoch whose weights were judged.
    images_per_class : tuple of int
        Held out, one number per class.
    subjects_per_class : tuple of int or None
        None where the subject of an image is unknown.
    values : mapping of str to float or None
        By names of :data:`~leukemia_models.judging.metrics.METRIC_NAMES`. Where one class alone was held out, its
        recall is the only number that says something; all others are None.
    """

    name: str
    split: str
    stamp: str
    epoch: int | None
    images_per_class: tuple[int, ...]
    subjects_per_class: tuple[int, ...] | None
    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One metric over the folds in which it is defined.

    Parameters
    ----------
    mean, sd, low, high : float or None
        Mean, standard deviation (divided by the number of folds less one), smallest and largest value; None where too
        few folds define them: none, or fewer than two for the standard deviation.
    num_folds, num_undefined : int
        Folds that define the metric, and folds that do not.
    """

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    num_folds: int
    num_undefined: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Summarise one metric's values, one per fold."""
        defined = [value for value in values if value is not None]
        return cls(
            mean=statistics.fmean(defined) if defined else None,
            sd=statistics.stdev(defined) if len(defined) > 1 else None,
            low=min(defined, default=None),
            high=max(defined, default=None),
            num_folds=len(defined),
            num_undefined=len(values) - len(defined),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def fold_metrics(fold: FoldPredictions) -> FoldMetrics:
    """Judge one fold by itself, per image, at the threshold 0.5."""
    samples = judged_samples(fold.table, fold.classes)
    values = classification_metrics(samples.labels_N, samples.probabilities_NK, fold.classes).values()
    images = tuple(int((samples.labels_N == label).sum()) for label in range(len(fold.classes)))
    if not all(images):
        values = {name: values[name] if name in DEFINED_WITH_ONE_CLASS else None for name in METRIC_NAMES}
    return FoldMetrics(
        name=fold.name,
        split=str(fold.split),
        stamp=fold.leaks.stamp,
        epoch=fold.epoch,
        images_per_class=images,
        subjects_per_class=subjects_per_class(samples.labels_N, samples.subjects),
        values=values,
    )


def spread_over_folds(folds: Sequence[FoldMetrics]) -> dict[str, Spread]:
    """Summarise every metric over the folds; each fold counts the same, whatever its size."""
    return {name: Spread.of([fold.values[name] for fold in folds]) for name in METRIC_NAMES}
