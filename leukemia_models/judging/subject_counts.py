"""How many subjects a set of samples shows of each class. Light: whoever only describes a split loads no metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError


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
