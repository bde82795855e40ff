"""Plain arguments of public functions: whole numbers and yes or no, converted or refused where they enter."""

from __future__ import annotations

from operator import index

from leukemia_data.errors import UsageError


def as_whole(value: object, name: str, *, at_least: int | None = None, below: int | None = None) -> int:
    """Return a whole number as an int.

    Parameters
    ----------
    value
        An int, or what can stand for one: an integer of NumPy, an array or tensor without axes of an integer type.
        True and False are none, and neither is 2.0.
    name
        Of the argument, for the message.
    at_least, below
        The allowed range, ``at_least <= value < below``.

    Raises
    ------
    UsageError
        If it is no whole number, or outside the range.
    """
    number = _index(value)
    if number is None:
        raise UsageError(f"{name} must be a whole number, got {value!r:.60} ({type(value).__name__})")
    if (at_least is not None and number < at_least) or (below is not None and number >= below):
        raise UsageError(f"{name} must be {_range(at_least, below)}, got {number}")
    return number


def as_flag(value: object, name: str) -> bool:
    """Return True or False as a bool.

    Raises
    ------
    UsageError
        If it is neither. Texts such as ``"no"`` and numbers are not taken for an answer.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise UsageError(f"{name} must be True or False, got {value!r:.60} ({type(value).__name__})")


def _index(value: object) -> int | None:
    is_flag = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        return None if is_flag else index(value)  # type: ignore[arg-type] # whether it can is what is asked
    except TypeError:
        return None


def _range(at_least: int | None, below: int | None) -> str:
    if below is None:
        return f"at least {at_least}"
    return f"below {below}" if at_least is None else f"in {at_least} ... {below - 1}"
