"""Judging predictions: labels and probabilities in, named numbers out. No torch, no files.

A number that is not defined (the AUROC of a split that holds one class) is None, never NaN: it stays visible as
missing in JSON and cannot be averaged by accident. scikit-learn computes the metrics; this module names them,
decides when they are defined, and warns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sklearn_metrics

from leukemia_data.errors import UsageError

ONE_CLASS_SHARE = 0.98
POSITIVE = 1


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """What a two-class network did on one split, per image.

    Parameters
    ----------
    num_samples : int
        Images judged.
    confusion : tuple of tuples of int
        ``confusion[label][prediction]``.
    accuracy : float
        Share of right predictions.
    recall_per_class : tuple of float or None
        Share of each class that was recognised: specificity (class 0) and sensitivity (class 1).
        None for a class the split does not hold.
    balanced_accuracy : float or None
        Mean of the recalls.
    weighted_f1 : float
        F1 per class, averaged with the classes' share of the labels.
    macro_f1 : float or None
        Plain mean of the F1 per class.
    auroc : float or None
        Area under the ROC curve of class 1's probability.
    one_class_warning : str or None
        A sentence when nearly all predictions are one class although the labels hold two.
    """

    num_samples: int
    confusion: tuple[tuple[int, int], tuple[int, int]]
    accuracy: float
    recall_per_class: tuple[float | None, float | None]
    balanced_accuracy: float | None
    weighted_f1: float
    macro_f1: float | None
    auroc: float | None
    one_class_warning: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def classification_metrics(
    labels_N: npt.NDArray[np.integer[Any]],
    probabilities_NK: npt.NDArray[np.floating[Any]],
    classes: Sequence[str] = ("hem", "all"),
) -> ClassificationMetrics:
    """Judge probabilities against labels.

    Parameters
    ----------
    labels_N : int array (N,)
        0 or 1.
    probabilities_NK : float array (N,2)
        Rows sum to 1. The prediction is the larger one, class 0 when they are equal.
    classes : sequence of two str
        Names of class 0 and 1, for the warning's text.

    Raises
    ------
    UsageError
        If there is nothing to judge, or shapes, labels or probabilities are not as described.
    """
    _check(labels_N, probabilities_NK)
    predictions_N = probabilities_NK.argmax(axis=1)
    confusion = sklearn_metrics.confusion_matrix(labels_N, predictions_N, labels=[0, 1])
    support = confusion.sum(axis=1)
    recall = tuple(float(confusion[k, k] / support[k]) if support[k] else None for k in (0, 1))
    f1 = sklearn_metrics.f1_score(labels_N, predictions_N, labels=[0, 1], average=None, zero_division=0.0)
    two_classes = bool(support.all())
    return ClassificationMetrics(
        num_samples=len(labels_N),
        confusion=_as_ints(confusion),
        accuracy=float(np.trace(confusion) / support.sum()),
        recall_per_class=(recall[0], recall[1]),
        balanced_accuracy=float(np.mean(np.diag(confusion) / support)) if two_classes else None,
        weighted_f1=float(f1 @ support / support.sum()),
        macro_f1=float(f1.mean()) if two_classes else None,
        auroc=_auroc(labels_N, probabilities_NK) if two_classes else None,
        one_class_warning=one_class_warning(confusion, classes),
    )


def _check(labels_N: npt.NDArray[Any], probabilities_NK: npt.NDArray[Any]) -> None:
    if len(labels_N) == 0:
        raise UsageError("no samples to judge: the split is empty")
    if labels_N.ndim != 1 or probabilities_NK.shape != (len(labels_N), 2):
        raise UsageError(
            f"metrics need labels (N,) and probabilities (N,2), got {labels_N.shape} and {probabilities_NK.shape}"
        )
    if not np.isin(labels_N, (0, 1)).all():
        raise UsageError(f"labels must be 0 or 1, got {sorted(set(labels_N.tolist()))[:5]}")
    in_range = bool(((probabilities_NK >= 0) & (probabilities_NK <= 1)).all())
    if not in_range or not np.allclose(probabilities_NK.sum(axis=1), 1, atol=1e-4):
        raise UsageError("probabilities must lie in [0, 1] and sum to 1 in every row")


def _as_ints(confusion: npt.NDArray[np.integer[Any]]) -> tuple[tuple[int, int], tuple[int, int]]:
    (a, b), (c, d) = confusion.tolist()
    return (a, b), (c, d)


def _auroc(labels_N: npt.NDArray[Any], probabilities_NK: npt.NDArray[Any]) -> float:
    return float(sklearn_metrics.roc_auc_score(labels_N, probabilities_NK[:, POSITIVE]))


def one_class_warning(confusion: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> str | None:
    """Return a warning when over 98 % of predictions are one class while the labels hold both.

    That is what stale BatchNorm statistics look like, as well as a network that has learnt the class balance only.

    Parameters
    ----------
    confusion : int array (2,2)
        ``confusion[label, prediction]``.
    classes : sequence of two str
        Their names.
    """
    predicted = confusion.sum(axis=0)
    share = predicted.max() / predicted.sum()
    if share <= ONE_CLASS_SHARE or not confusion.sum(axis=1).all():
        return None
    return (
        f"{share:.1%} of the predictions are {classes[int(predicted.argmax())]!r} although the labels hold both "
        "classes: the network has collapsed, or its BatchNorm statistics do not fit its weights"
    )


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
    macro_f1 : float or None
        None where the labels hold one class only.
    """

    prediction: int
    accuracy: float
    weighted_f1: float
    macro_f1: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def majority_baseline(labels_N: npt.NDArray[np.integer[Any]]) -> MajorityBaseline:
    """Return the scores of always answering the more frequent class of `labels_N` (class 1 when equal)."""
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
        macro_f1=scores.macro_f1,
    )


def subjects_per_class(
    labels_N: npt.NDArray[np.integer[Any]], subjects_N: Sequence[str | None], num_classes: int = 2
) -> tuple[int, ...] | None:
    """Count the subjects that have a sample of each class.

    Parameters
    ----------
    labels_N : int array (N,)
        Class of each sample.
    subjects_N : sequence of str or None
        Subject of each sample; None or "" where the source does not say.
    num_classes : int
        Length of the result.

    Returns
    -------
    tuple of int, or None
        None when the subject of any sample is unknown: a count of the rest would pass for the whole.
    """
    if len(labels_N) != len(subjects_N):
        raise UsageError(f"{len(labels_N)} labels but {len(subjects_N)} subjects")
    if not all(subjects_N):
        return None
    pairs = {(int(label), subject) for label, subject in zip(labels_N, subjects_N, strict=True)}
    return tuple(sum(label == k for label, _ in pairs) for k in range(num_classes))
