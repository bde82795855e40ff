"""Resampling of subjects for bootstrap intervals. No torch.

Cells of one person are alike, so the sample size is the number of people. A draw takes, within each class, as many
subjects as there are, with replacement, and all their images (see :func:`subject_groups`). Draws depend on the seed and
the subjects' names.

A class of n subjects has only C(2n-1, n) different resamples (35 for 4, 126 for 5, 92,378 for 10), whose variance is
too small by a factor (n-1)/n. With fewer than :data:`MIN_SUBJECTS` there is therefore no interval, with fewer than
:data:`ENOUGH_SUBJECTS` one with a caution. The calibration error has no interval, because resampling itself raises it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_whole
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples, subject_counts_text
from leukemia_models.evaluation.metrics import METRICS, metric_names

MIN_SUBJECTS = 5
ENOUGH_SUBJECTS = 10
SAME_NOTE = (
    "A metric that is the same in every resample has no interval: that all these subjects were classified alike does "
    "not mean that others would be."
)


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """Settings of a bootstrap.

    Parameters
    ----------
    num_draws : int
        At least 100.
    seed : int
        At least 0.
    level : float
        Fraction of draws inside the interval, in (0, 1).

    Raises
    ------
    UsageError
        If a value is out of range.
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


class Interval(NamedTuple):
    """The limits of a percentile interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class SubjectGroups:
    """The subjects of samples.

    Parameters
    ----------
    subject_N : int64 array (N,)
        Index of each sample's subject, in the order of their names.
    stratum_S : int64 array (S,)
        Of each subject; as many are drawn of each stratum as it has.
    per_class : tuple of int
        Number of subjects of each class, (K,): of those in its stratum, or that have samples of it.
    """

    subject_N: npt.NDArray[np.int64]
    stratum_S: npt.NDArray[np.int64]
    per_class: tuple[int, ...]

    def draw(self, settings: BootstrapSettings) -> npt.NDArray[np.int64]:
        """Return the count of each subject in each draw, int64 (D,S)."""
        generator = np.random.default_rng(settings.seed)
        draws_DS = np.zeros((settings.num_draws, len(self.stratum_S)), np.int64)
        for stratum in np.unique(self.stratum_S):
            members = np.flatnonzero(self.stratum_S == stratum)
            even = np.full(len(members), 1 / len(members))
            draws_DS[:, members] = generator.multinomial(len(members), even, settings.num_draws)
        return draws_DS

    def metric_names(self) -> tuple[str, ...]:
        """Return the metrics with enough subjects of the class that decides them, or of all.

        Of more than two classes those without any subject do not count.
        """
        num_classes = len(self.per_class)
        enough = [count >= MIN_SUBJECTS for count in self.per_class]
        has_all = all(
            is_enough or (num_classes > 2 and not count)
            for is_enough, count in zip(enough, self.per_class, strict=True)
        )
        of_class = {name: METRICS.get(name).of_class for name in bootstrapped_metrics(num_classes)}
        return tuple(name for name, label in of_class.items() if (has_all if label is None else enough[label]))


def bootstrapped_metrics(num_classes: int = 2) -> tuple[str, ...]:
    """Return the names of the metrics with intervals."""
    return tuple(name for name in metric_names(num_classes) if METRICS.get(name).has_interval)


def subject_groups(samples: EvaluatedSamples) -> SubjectGroups | None:
    """Return the subjects of samples, or None if one is unknown.

    Subjects are drawn within their class, which is that of most of their images, the first of equals. Where more than
    half of the subjects have images of several of more than two classes, as in differential counts, they are drawn from
    all, and count for each class that they have.
    """
    if not all(samples.subjects):
        return None
    names, subject_N = np.unique(np.array(samples.subjects, object), return_inverse=True)
    counts_SK = np.zeros((len(names), samples.num_classes), np.int64)
    np.add.at(counts_SK, (subject_N, samples.labels_N), 1)
    has_class_SK = counts_SK > 0
    is_differential = samples.num_classes > 2 and np.mean(has_class_SK.sum(axis=1) > 1) > 0.5
    stratum_S = np.zeros(len(names), np.int64) if is_differential else counts_SK.argmax(axis=1)
    counted_K = has_class_SK.sum(axis=0) if is_differential else np.bincount(stratum_S, minlength=samples.num_classes)
    return SubjectGroups(subject_N.astype(np.int64), stratum_S, tuple(counted_K.tolist()))


def percentile_interval(values_D: npt.NDArray[np.float64], level: float) -> Interval | None:
    """Return the interval of the middle `level` of the finite draws; None if there are none, or all are equal.

    Method: percentile interval, Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    defined = values_D[np.isfinite(values_D)]
    if len(defined) == 0 or np.ptp(defined) < 1e-9:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def trust_note(samples: EvaluatedSamples, groups: SubjectGroups | None, classes: Sequence[str]) -> str | None:
    """Return why there are no intervals, or why to distrust them; None for ten or more subjects of each class."""
    if groups is None:
        num_unknown = sum(not subject for subject in samples.subjects)
        return (
            f"No intervals: the subjects of {num_unknown:,} of {len(samples):,} images are unknown, and resampled "
            "images alone would make them far too narrow."
        )
    shown = [label for label, count in enumerate(groups.per_class) if count or len(classes) == 2]
    counts = subject_counts_text([groups.per_class[label] for label in shown], [classes[label] for label in shown])
    fewest = min(groups.per_class[label] for label in shown)
    if fewest >= ENOUGH_SUBJECTS:
        return None
    if fewest >= MIN_SUBJECTS:
        return (
            f"The intervals are rough, and rather too narrow: they resample few subjects, {counts} "
            f"(fewer than {ENOUGH_SUBJECTS} in a class)."
        )
    some = len(classes) == 2 and max(groups.per_class) >= MIN_SUBJECTS
    return (
        f"{'Intervals only for metrics of one class' if some else 'No intervals'}: the evaluated subjects are "
        f"{counts}, and fewer than {MIN_SUBJECTS} of a class cannot show how much subjects differ."
    )
