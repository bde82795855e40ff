"""Validate and convert arguments of public functions: numbers, indices and arrays."""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from numbers import Integral
from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError


def as_whole(value: object, name: str, *, at_least: int | None = None, below: int | None = None) -> int:
    """Return a whole number as an int.

    Parameters
    ----------
    value
        An int, a NumPy integer, or a zero-dimensional array or tensor of an integer type. Bools and floats are
        rejected.
    name
        Name of the argument, for the message.
    at_least, below
        The allowed range, ``at_least <= value < below``.

    Raises
    ------
    UsageError
        If it is not a whole number, or outside the range.
    """
    is_flag = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        number = None if is_flag else index(value)  # type: ignore[arg-type] # it raises TypeError if it cannot
    except TypeError:
        number = None
    if number is None:
        raise UsageError(f"{name} must be a whole number, got {value!r:.60} ({type(value).__name__})")
    if (at_least is not None and number < at_least) or (below is not None and number >= below):
        raise UsageError(f"{name} must be {_range(at_least, below)}, got {number}")
    return number


def as_flag(value: object, name: str) -> bool:
    """Return True or False as a bool; UsageError for anything else, such as ``"no"`` and numbers."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise UsageError(f"{name} must be True or False, got {value!r:.60} ({type(value).__name__})")


def _range(at_least: int | None, below: int | None) -> str:
    if below is None:
        return f"at least {at_least}"
    return f"below {below}" if at_least is None else f"in {at_least} ... {below - 1}"


Indices: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | Any
"""Accepted by :func:`as_indices`."""

_TRUTHS = (bool, np.bool_)


def as_indices(values: Indices, length: int | None, name: str) -> NDArray[np.int64]:
    """Return indices of samples as an array of int64, shape (N,).

    Parameters
    ----------
    values
        A one-dimensional NumPy array, list, tuple or range of whole numbers; the values of a pandas Series or Index,
        or of a torch tensor on the CPU; or a mask, any of these with one bool per sample. Indices may repeat, in any
        order. Empty values give an empty array.
    length
        Number of samples. None if unknown: masks are rejected then, and there is no upper limit.
    name
        Name of the argument, for the message.

    Returns
    -------
    ndarray of shape (N,), int64
        In the order given; ascending for a mask. May be the array given, not a copy.

    Raises
    ------
    UsageError
        If it is anything else: floats, texts, several dimensions, a mask of another length, masked or missing values,
        an index below 0 or from `length` on.
    """
    array, kind = _array(values, name, length), type(values).__name__
    if array.ndim != 1:
        raise _refusal(name, length, f"{kind} of shape {array.shape}")
    if array.dtype == np.bool_:
        if len(array) != length:
            raise _refusal(name, length, f"a mask of {len(array)} ({kind})")
        return np.flatnonzero(array).astype(np.int64, copy=False)
    if not len(array):
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise _refusal(name, length, f"{kind} of {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= (np.iinfo(np.int64).max if length is None else length):
        raise _refusal(name, length, str(low if low < 0 else high))
    return array.astype(np.int64, copy=False)


def own_indices(values: Indices, length: int | None, name: str) -> NDArray[np.int64]:
    """Return a read-only copy of the result of :func:`as_indices`, for callers that keep it."""
    own = as_indices(values, length, name).copy()
    own.setflags(write=False)
    return own


def _array(values: Indices, name: str, length: int | None) -> NDArray[Any]:
    if isinstance(values, range):
        return np.arange(values.start, values.stop, values.step)
    if isinstance(values, list | tuple) and len({isinstance(value, _TRUTHS) for value in values}) > 1:
        # NumPy would convert True to 1 among numbers.
        raise _refusal(name, length, "numbers and truth values together")
    if isinstance(values, np.ma.MaskedArray | Set | str | bytes | dict):
        raise _refusal(name, length, type(values).__name__)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _refusal(name, length, f"{type(values).__name__} ({error})") from error
    return _of_objects(array) if array.dtype == np.object_ else array


def _of_objects(array: NDArray[Any]) -> NDArray[Any]:
    """Convert an object array of integers or of bools to that type."""
    values = array.ravel().tolist()
    if values and all(isinstance(value, _TRUTHS) for value in values):
        return array.astype(np.bool_)
    with suppress(OverflowError):
        if all(isinstance(value, Integral) and not isinstance(value, _TRUTHS) for value in values):
            return array.astype(np.int64)
    return array


def _refusal(name: str, length: int | None, got: str) -> UsageError:
    if length is None:
        return UsageError(f"{name} must be whole numbers from 0 in one dimension, got {got}")
    return UsageError(
        f"{name} must be whole numbers in 0 ... {length - 1}, or a mask of {length} truth values, in one dimension; "
        f"got {got}"
    )


def as_numbers(values: object, name: str) -> NDArray[np.float64]:
    """Return real numbers of any shape as an array of float64, which may be the array given.

    Parameters
    ----------
    values
        An array, a list, the values of a pandas Series, or a tensor on the CPU; of whole numbers or floats. Empty
        values give an empty array.
    name
        Name of the argument, for the message.

    Raises
    ------
    UsageError
        If it is anything else: texts, truth values, complex numbers, missing values, rows of different lengths.
    """
    return _numeric(values, name, "iuf", "numbers").astype(np.float64, copy=False)


def as_labels(values: object, name: str) -> NDArray[np.int64]:
    """Return class labels of any shape as an array of int64.

    `values` are as for :func:`as_numbers`, but whole numbers; or bools, which are the labels 0 and 1.

    Raises
    ------
    UsageError
        If it is anything else, including floats.
    """
    return _numeric(values, name, "iub", "whole numbers").astype(np.int64, copy=False)


def _numeric(values: object, name: str, kinds: str, wanted: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} must be {wanted}, got {type(values).__name__} ({error})") from error
    if not array.size and array.ndim:
        return array.astype(np.int64)
    if isinstance(values, np.ma.MaskedArray) or array.dtype.kind not in kinds:
        raise UsageError(f"{name} must be {wanted}, got {type(values).__name__} of {array.dtype}")
    return array
