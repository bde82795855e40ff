"""Curves of an evaluation: how well probabilities are calibrated, and ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from leukemia_data.lazy_imports import Library
from leukemia_data.records.arguments import as_labels, as_numbers
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples, labels_and_probabilities

if TYPE_CHECKING:
    import sklearn.metrics

    sklearn_metrics = sklearn.metrics
else:
    # It takes as long to import as torch: not before the first evaluation.
    sklearn_metrics = Library("sklearn.metrics")

Floats = npt.NDArray[np.float64]
NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Equal-width bins of a probability, and how often what it promises is so.

    Parameters
    ----------
    counts_M : float array (M,)
        Number of samples in each bin.
    probability_sums_M : float array (M,)
        Sum of their probabilities.
    positives_M : float array (M,)
        Number of samples of class 1; of more than two classes, of those whose most probable class is right.
    """

    counts_M: Floats
    probability_sums_M: Floats
    positives_M: Floats

    @property
    def edges(self) -> Floats:
        """Edges of the bins, (M + 1,), from 0 to 1."""
        return np.linspace(0, 1, len(self.counts_M) + 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in [0, 1]: mean distance of probability and frequency, weighted by samples."""
        return float(np.abs(self.probability_sums_M - self.positives_M).sum() / self.counts_M.sum())


def reliability_bins(
    labels_N: npt.NDArray[np.integer[Any]], probabilities: npt.NDArray[np.floating[Any]], num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Return bins of samples by a probability; a bin includes its lower edge, the last one both.

    Parameters
    ----------
    labels_N : int array (N,)
    probabilities : float array (N,) or (N,K)
        Of class 1 of two classes; or of all classes, of which the largest is binned if there are more than two (Guo et
        al. 2017, On Calibration of Modern Neural Networks).
    num_bins : int
    """
    if np.ndim(probabilities) == 2 and np.shape(probabilities)[1] > 2:
        numbers_NK = as_numbers(probabilities, "probabilities")
        is_right_N = numbers_NK.argmax(axis=1) == as_labels(labels_N, "labels_N")
        labels_N, probabilities = is_right_N.astype(np.int64), numbers_NK.max(axis=1)
    elif np.ndim(probabilities) == 2:
        probabilities = as_numbers(probabilities, "probabilities")[:, 1]
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities)
    bin_N = np.minimum((probabilities_N * num_bins).astype(np.int64), num_bins - 1)
    return ReliabilityBins(
        np.bincount(bin_N, minlength=num_bins).astype(np.float64),
        np.bincount(bin_N, probabilities_N, num_bins).astype(np.float64),
        np.bincount(bin_N, labels_N, num_bins).astype(np.float64),
    )


Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


def roc_of_class(samples: EvaluatedSamples, label: int) -> tuple[Floats, Floats]:
    """Return the ROC curve of a class against the rest as rising false and true positive rates."""
    scores_N = samples.probabilities_NK[:, label]
    false_rates, true_rates, _ = sklearn_metrics.roc_curve(samples.labels_N == label, scores_N)
    return false_rates, true_rates


def mean_roc(samples: EvaluatedSamples) -> tuple[Floats, Floats]:
    """Return a ROC curve as rising false and true positive rates.

    Of two classes it is that of class 1. Of more it is the mean of the curves of the classes with samples, each against
    the rest, whose area is the mean of theirs.
    """
    if samples.num_classes == 2:
        return roc_of_class(samples, 1)
    curves = [roc_of_class(samples, label) for label in np.unique(samples.labels_N).tolist()]
    # Where a curve rises straight up, both ends are needed for an exact area.
    grid = np.unique(np.concatenate([false_rates for false_rates, _ in curves]))
    low, high = (np.mean([_value_at(grid, rates, values, side) for rates, values in curves], axis=0) for side in SIDES)
    return np.repeat(grid, 2), np.stack([low, high], axis=1).ravel()


def _value_at(grid: Floats, rates: Floats, values: Floats, side: Side) -> Floats:
    """Interpolate a rising curve at a grid, with the lower or upper value where it jumps."""
    places = np.searchsorted(rates, grid, side=side)
    exact = places - 1 if side == "right" else places
    exact = exact.clip(0, len(rates) - 1)
    return np.where(rates[exact] == grid, values[exact], np.interp(grid, rates, values))
