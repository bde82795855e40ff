"""Arrays of numbers as users give them (weights, probabilities, labels), converted or refused where they enter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError


def as_numbers(values: object, name: str) -> NDArray[np.float64]:
    """Return real numbers of any shape as an array of float64.

    Parameters
    ----------
    values
        An array, a list, a pandas Series (its values count, no labels), or a tensor on the CPU; of whole numbers or
        floats. None at all is an empty array.
    name
        Of the argument, for the message.

    Returns
    -------
    ndarray, float64
        It may be the array given, not a copy.

    Raises
    ------
    UsageError
        If it is anything else: texts, truth values, complex numbers, missing values, rows of different lengths.
    """
    array = _numeric(values, name, "iuf", "numbers")
    return array.astype(np.float64, copy=False)


def as_labels(values: object, name: str) -> NDArray[np.int64]:
    """Return class labels of any shape as an array of int64.

    Parameters
    ----------
    values
        As for :func:`as_numbers`, of whole numbers; or of truth values, which are the labels 0 and 1.
    name
        Of the argument, for the message.

    Raises
    ------
    UsageError
        If it is anything else; floats are no labels.
    """
    array = _numeric(values, name, "iub", "whole numbers")
    return array.astype(np.int64, copy=False)


def _numeric(values: object, name: str, kinds: str, wanted: str) -> NDArray[Any]:
    is_masked = isinstance(values, np.ma.MaskedArray)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} must be {wanted}, got {type(values).__name__} ({error})") from error
    if not array.size and array.ndim:
        return array.astype(np.int64)
    if is_masked or array.dtype.kind not in kinds:
        raise UsageError(f"{name} must be {wanted}, got {type(values).__name__} of {array.dtype}")
    return array
