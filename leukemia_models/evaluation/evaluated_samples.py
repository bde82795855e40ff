"""The input of evaluations: labels, probabilities and subjects of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_indices, as_labels, as_numbers

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class EvaluatedSamples:
    """Samples with a label and the probability of each class.

    Parameters
    ----------
    ids : tuple of str
    subjects : tuple of str
        Subject of each sample; "" where unknown.
    labels_N : int64 array (N,)
        0 to K-1, for K >= 2 classes.
    probabilities_NK : float64 array (N,K)
        In [0, 1]. Of two classes also (N,), the probabilities of class 1.

    Raises
    ------
    UsageError
        If there is no sample, the lengths differ, or a label or probability is not as described.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    labels_N: npt.NDArray[np.int64]
    probabilities_NK: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        probabilities_NK = class_probabilities(self.probabilities_NK)
        labels_N = as_labels(self.labels_N, "labels_N")
        lengths = len(self.ids), len(self.subjects), len(labels_N), len(probabilities_NK)
        if labels_N.ndim != 1 or len({*lengths}) != 1:
            raise UsageError(f"ids, subjects, labels and probabilities differ in number: {lengths}")
        if not self.ids:
            raise UsageError("no image to evaluate has a label")
        require_labels(labels_N, probabilities_NK.shape[1])
        object.__setattr__(self, "labels_N", labels_N)
        object.__setattr__(self, "probabilities_NK", probabilities_NK)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return int(self.probabilities_NK.shape[1])

    @property
    def probabilities_N(self) -> npt.NDArray[np.float64]:
        """Probabilities of class 1 of two, (N,)."""
        _, probabilities_N = self.probabilities_NK.T
        return np.asarray(probabilities_N)

    def predictions_N(self, threshold: float = DEFAULT_THRESHOLD) -> npt.NDArray[np.int64]:
        """Return the predicted classes, see :func:`predicted_classes`."""
        return predicted_classes(self.probabilities_NK, threshold)

    def with_probabilities(self, probabilities_NK: npt.NDArray[np.float64]) -> EvaluatedSamples:
        """Return the same samples with other probabilities."""
        return replace(self, probabilities_NK=probabilities_NK)

    def take(self, rows: npt.NDArray[np.int64]) -> EvaluatedSamples:
        """Return the samples at the given rows, in that order; raise UsageError for no or unknown rows."""
        rows = as_indices(rows, len(self), "rows")
        return EvaluatedSamples(
            tuple(self.ids[row] for row in rows),
            tuple(self.subjects[row] for row in rows),
            self.labels_N[rows],
            self.probabilities_NK[rows],
        )


def class_probabilities(probabilities: object) -> npt.NDArray[np.float64]:
    """Return probabilities of all classes (N,K); those of class 1 alone, (N,), are completed.

    Raises
    ------
    UsageError
        If they have another shape, or one is outside [0, 1].
    """
    numbers = as_numbers(probabilities, "probabilities_NK")
    if numbers.ndim == 1:
        numbers = np.stack([1 - numbers, numbers], axis=1)
    if numbers.ndim != 2 or numbers.shape[1] < 2:
        raise UsageError(
            f"probabilities_NK must be of shape (N,K) for two classes or more, or (N,) for class 1, got {numbers.shape}"
        )
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise UsageError("probabilities_NK must be in [0, 1]")
    return numbers


def require_labels(labels_N: npt.NDArray[np.int64], num_classes: int) -> None:
    """Raise a UsageError unless all labels are 0 to ``num_classes - 1``."""
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < num_classes:
        known = "0 or 1" if num_classes == 2 else f"0 to {num_classes - 1}"
        raise UsageError(f"labels must be {known}, got {sorted(set(labels_N.tolist()))[:5]}")


def predicted_classes(
    probabilities_NK: npt.NDArray[np.float64], threshold: float = DEFAULT_THRESHOLD
) -> npt.NDArray[np.int64]:
    """Return the predicted class of each row (N,).

    Of two classes it is class 1 where its probability is above `threshold`; of more the most probable one, the first
    of equals.
    """
    if probabilities_NK.shape[1] == 2:
        return np.asarray(probabilities_NK[:, 1] > threshold, np.int64)
    return np.asarray(probabilities_NK.argmax(axis=1), np.int64)


def labels_and_probabilities(
    labels_N: object, probabilities_N: object
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return labels and probabilities of class 1 as arrays (N,).

    Raises
    ------
    UsageError
        If they are not numbers of one dimension and length, or a probability is outside [0, 1].
    """
    labels, probabilities = as_labels(labels_N, "labels_N"), as_numbers(probabilities_N, "probabilities_N")
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise UsageError(
            f"labels_N and probabilities_N must be one number for each sample, got shapes {labels.shape} and "
            f"{probabilities.shape}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise UsageError("probabilities_N must be in [0, 1]")
    return labels, probabilities


def subjects_per_class(
    labels_N: npt.NDArray[np.integer[Any]], subjects_N: Sequence[str | None], num_classes: int = 2
) -> tuple[int, ...] | None:
    """Return the number of subjects with samples of each class, or None if the subject of any sample is unknown.

    Parameters
    ----------
    labels_N : int array (N,)
    subjects_N : sequence of str or None
        None or "" where unknown.
    num_classes : int
        Length of the result.
    """
    if len(labels_N) != len(subjects_N):
        raise UsageError(f"{len(labels_N)} labels but {len(subjects_N)} subjects")
    if not all(subjects_N):
        return None
    pairs = {(int(label), subject) for label, subject in zip(labels_N, subjects_N, strict=True)}
    return tuple(sum(label == k for label, _ in pairs) for k in range(num_classes))


MAX_LISTED_CLASSES = 4
"""Texts, tables and figures of more classes are made shorter."""


def subject_counts_text(counts: Sequence[int], classes: Sequence[str], quoted: Callable[[str], str] = repr) -> str:
    """Return the number of subjects of each class in words, of many classes the smallest and the largest number.

    >>> print(subject_counts_text([4, 9], ["hem", "all"]))
    4 of class 'hem' and 9 of class 'all'
    >>> print(subject_counts_text([4, 9, 3, 9, 9], list("abcde")))
    3 (class 'c') to 9 of each of 5 classes
    """
    if len(classes) <= MAX_LISTED_CLASSES:
        *others, last = (f"{count} of class {quoted(name)}" for count, name in zip(counts, classes, strict=True))
        return f"{', '.join(others)} and {last}" if others else last
    fewest, most = min(counts), max(counts)
    if fewest == most:
        return f"{fewest} of each of {len(classes)} classes"
    return f"{fewest} (class {quoted(classes[list(counts).index(fewest)])}) to {most} of each of {len(classes)} classes"
