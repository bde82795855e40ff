"""Drawing subjects instead of images: evaluated samples in, how often each subject counts in each draw out. No torch.

Cells of one person are alike, so people, not cells, are the sample size. A draw takes, within each class, as many
subjects as there are, with replacement, and all their images come along. Draws are a function of the seed and of the
subjects' names.

With n subjects of a class there are only C(2n-1, n) different resamples of it (35 for 4, 126 for 5, 92,378 for 10), and
resamples scatter by a factor (n-1)/n too little in variance. Below :data:`MIN_SUBJECTS` there is therefore no interval
but a sentence, and below :data:`ENOUGH_SUBJECTS` one with a caution. The calibration error has no interval: resampling
by itself makes it larger, so percentiles would lie beside the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_whole
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.metrics import METRICS

MIN_SUBJECTS = 5
ENOUGH_SUBJECTS = 10
SAME_IN_ALL_DRAWS = 1e-9
SAME_NOTE = (
    "A number that is the same in every resample has no interval: that all these subjects were classified alike does "
    "not mean that others would be."
)
_BOTH = (0, 1)


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """How intervals are drawn.

    Parameters
    ----------
    num_draws : int
        At least 100.
    seed : int
        Decides the draws.
    level : float
        Share of draws inside the interval, in (0, 1).

    Raises
    ------
    UsageError
        If a number is out of range.
    """

    num_draws: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        as_whole(self.num_draws, "num_draws")
        as_whole(self.seed, "seed")
        if self.num_draws < 100 or self.seed < 0 or not 0 < self.level < 1:
            raise UsageError(f"a bootstrap needs 100 draws or more, a seed from 0 and a level in (0, 1), got {self}")


DEFAULT_BOOTSTRAP = BootstrapSettings()


@dataclass(frozen=True, slots=True)
class Interval:
    """Two percentiles of a metric over the draws."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class SubjectGroups:
    """The subjects behind some samples.

    Parameters
    ----------
    subject_N : int64 array (N,)
        Number of each sample's subject, from 0 in the order of their names.
    class_S : int64 array (S,)
        Class that each subject is drawn with.
    """

    subject_N: npt.NDArray[np.int64]
    class_S: npt.NDArray[np.int64]

    @property
    def per_class(self) -> tuple[int, int]:
        """How many subjects are drawn with each class."""
        negatives, positives = np.bincount(self.class_S, minlength=2).tolist()
        return negatives, positives

    def draw(self, settings: BootstrapSettings) -> npt.NDArray[np.int64]:
        """Return how often each subject counts in each draw: int64 (D,S)."""
        generator = np.random.default_rng(settings.seed)
        draws_DS = np.zeros((settings.num_draws, len(self.class_S)), np.int64)
        for label in _BOTH:
            members = np.flatnonzero(self.class_S == label)
            if len(members):
                even = np.full(len(members), 1 / len(members))
                draws_DS[:, members] = generator.multinomial(len(members), even, settings.num_draws)
        return draws_DS

    def metric_names(self) -> tuple[str, ...]:
        """Return the metrics for which each class that they look at has enough subjects."""
        return tuple(name for name in bootstrapped_metrics() if self._are_enough(METRICS.get(name).of_class))

    def _are_enough(self, label: int | None) -> bool:
        classes = _BOTH if label is None else (label,)
        return all(self.per_class[k] >= MIN_SUBJECTS for k in classes)


def bootstrapped_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that may have an interval."""
    return tuple(name for name in METRICS if METRICS.get(name).has_interval)


def subject_groups(samples: EvaluatedSamples) -> SubjectGroups | None:
    """Number the subjects of samples; None when one is unknown.

    A subject with images of both labels is drawn with the class of most of them (class 0 when they are as many).
    """
    if not all(samples.subjects):
        return None
    subject_N = np.unique(np.array(samples.subjects, object), return_inverse=True)[1].astype(np.int64)
    positive_share_S = np.bincount(subject_N, samples.labels_N) / np.bincount(subject_N)
    return SubjectGroups(subject_N, (positive_share_S > 0.5).astype(np.int64))


def percentile_interval(values_D: npt.NDArray[np.float64], level: float) -> Interval | None:
    """Return the middle `level` of the draws; draws in which a metric is undefined are left out.

    None where no draw defines it, or all of them agree: from subjects without an error, resampling cannot learn that
    others have some.

    Method: percentile interval, Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    defined = values_D[np.isfinite(values_D)]
    if len(defined) == 0 or np.ptp(defined) < SAME_IN_ALL_DRAWS:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def trust_note(samples: EvaluatedSamples, groups: SubjectGroups | None, classes: Sequence[str]) -> str | None:
    """Return why there are no intervals, or how far to trust them; None for ten and more subjects of each class."""
    if groups is None:
        num_unknown = sum(not subject for subject in samples.subjects)
        return (
            f"No intervals: the subjects of {num_unknown:,} of {len(samples):,} images are unknown, and resampled "
            "images alone would make them far too narrow."
        )
    counts = " and ".join(f"{count} of class {name!r}" for count, name in zip(groups.per_class, classes, strict=True))
    fewest = min(groups.per_class)
    if fewest >= ENOUGH_SUBJECTS:
        return None
    if fewest >= MIN_SUBJECTS:
        return (
            f"The intervals are rough, and rather too narrow: they resample few subjects, {counts} "
            f"(fewer than {ENOUGH_SUBJECTS} in a class)."
        )
    some = max(groups.per_class) >= MIN_SUBJECTS
    return (
        f"{'Intervals only for what one class decides alone' if some else 'No intervals'}: the evaluated subjects are "
        f"{counts}, and fewer than {MIN_SUBJECTS} of a class cannot show how much subjects differ."
    )
