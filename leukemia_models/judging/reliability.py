"""Do probabilities mean what they say: probabilities and labels in, bins and the calibration error out. No torch.

All of it is about the probability of class 1: of the images that a network calls "70 % ALL", 70 % should be ALL. It
does not depend on a threshold. (Some authors bin the probability of the predicted class instead; for two classes at the
threshold 0.5 that folds the two halves of the same diagram onto each other, and errors of different sign may cancel.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_models.judging.judged_samples import labels_and_probabilities

NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Equal-width bins of the probability of class 1; sums add up over any partition of the samples.

    Parameters
    ----------
    counts_M : float array (M,)
        Samples in each bin.
    probability_sums_M : float array (M,)
        Sum of their probabilities of class 1.
    positives_M : float array (M,)
        How many of them are of class 1.
    """

    counts_M: npt.NDArray[np.float64]
    probability_sums_M: npt.NDArray[np.float64]
    positives_M: npt.NDArray[np.float64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Borders of the bins, M + 1 numbers from 0 to 1."""
        return np.linspace(0, 1, len(self.counts_M) + 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]: how far said and true shares lie apart, weighted by samples."""
        return float(np.abs(self.probability_sums_M - self.positives_M).sum() / self.counts_M.sum())


def reliability_bins(
    labels_N: npt.NDArray[np.integer[Any]], probabilities_N: npt.NDArray[np.floating[Any]], num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sort samples into bins by their probability of class 1.

    Parameters
    ----------
    labels_N : int array (N,)
        0 or 1.
    probabilities_N : float array (N,)
        Of class 1; a bin holds its lower border, the last one both.
    num_bins : int
        How many of equal width.
    """
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities_N)
    bin_N = np.minimum((probabilities_N * num_bins).astype(np.int64), num_bins - 1)
    return ReliabilityBins(
        np.bincount(bin_N, minlength=num_bins).astype(np.float64),
        np.bincount(bin_N, probabilities_N, num_bins).astype(np.float64),
        np.bincount(bin_N, labels_N, num_bins).astype(np.float64),
    )
