"""What a network must beat: labels in, the scores of always giving the same answer out. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.samples.number_arrays import as_labels
from leukemia_models.judging.metrics import POSITIVE, classification_metrics


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """What answering one class always would score: the mark a network must beat.

    Its balanced accuracy and its AUROC are 0.5, whatever the data.

    Parameters
    ----------
    prediction : int
        The class that is always answered: the more frequent one.
    accuracy, weighted_f1 : float
        Its scores.
    auprc : float
        Of a constant score: the share of class 1.
    macro_f1 : float or None
        None where the labels hold one class only.
    """

    prediction: int
    accuracy: float
    weighted_f1: float
    auprc: float
    macro_f1: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def majority_baseline(labels_N: npt.NDArray[np.integer[Any]]) -> MajorityBaseline:
    """Return the scores of always answering the more frequent class of `labels_N` (class 1 when equal)."""
    labels_N = as_labels(labels_N, "labels_N")
    if len(labels_N) == 0:
        raise UsageError("no samples to judge: the split is empty")
    share_positive = float(np.mean(labels_N == POSITIVE))
    prediction = int(share_positive >= 0.5)
    probabilities = np.zeros((len(labels_N), 2))
    probabilities[:, prediction] = 1
    scores = classification_metrics(labels_N, probabilities)
    return MajorityBaseline(
        prediction=prediction,
        accuracy=scores.accuracy,
        weighted_f1=scores.weighted_f1,
        auprc=share_positive,
        macro_f1=scores.macro_f1,
    )
