"""The input of evaluations: labels, probabilities and subjects of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_indices, as_labels, as_numbers

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class EvaluatedSamples:
    """Samples with a label and the probability of class 1.

    Parameters
    ----------
    ids : tuple of str
    subjects : tuple of str
        Subject of each sample; "" where unknown.
    labels_N : int64 array (N,)
        0 or 1.
    probabilities_N : float64 array (N,)
        Of class 1, in [0, 1].

    Raises
    ------
    UsageError
        If there is no sample, the lengths differ, or a label or probability is not as described.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    labels_N: npt.NDArray[np.int64]
    probabilities_N: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        labels_N, probabilities_N = labels_and_probabilities(self.labels_N, self.probabilities_N)
        object.__setattr__(self, "labels_N", labels_N)
        object.__setattr__(self, "probabilities_N", probabilities_N)
        lengths = len(self.ids), len(self.subjects), len(labels_N)
        if len({*lengths}) != 1:
            raise UsageError(f"ids, subjects and labels differ in number: {lengths}")
        if not self.ids:
            raise UsageError("no image to evaluate has a label")
        if not np.isin(self.labels_N, (0, 1)).all():
            raise UsageError(f"labels must be 0 or 1, got {sorted(set(self.labels_N.tolist()))[:5]}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def probabilities_NK(self) -> npt.NDArray[np.float64]:
        """Probabilities of both classes, (N,2)."""
        return np.stack([1 - self.probabilities_N, self.probabilities_N], axis=1)

    def with_probabilities(self, probabilities_N: npt.NDArray[np.float64]) -> EvaluatedSamples:
        """Return the same samples with other probabilities of class 1."""
        return replace(self, probabilities_N=probabilities_N)

    def take(self, rows: npt.NDArray[np.int64]) -> EvaluatedSamples:
        """Return the samples at the given rows, in that order; raise UsageError for no or unknown rows."""
        rows = as_indices(rows, len(self), "rows")
        return EvaluatedSamples(
            tuple(self.ids[row] for row in rows),
            tuple(self.subjects[row] for row in rows),
            self.labels_N[rows],
            self.probabilities_N[rows],
        )


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
