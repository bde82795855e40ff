"""Options that belong to a name: which of those given the named thing knows, with defaults for the rest, and ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from leukemia_data.errors import UsageError

_T = TypeVar("_T")


class Range(NamedTuple):
    """What a value must be: a test, and its words."""

    holds: Callable[[Any], bool]
    words: str


ABOVE_ZERO = Range(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "finite and not below 0")
AT_LEAST_ONE = Range(lambda value: 1 <= value < math.inf, "finite and at least 1")
BETWEEN = Range(lambda value: 0 < value < 1, "between 0 and 1")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "in [0, 1)")


def require(wanted: Range, option: str, value: object) -> None:
    """Raise UsageError unless the value is in its range."""
    try:
        holds = wanted.holds(value)
    except TypeError:
        holds = False
    if not holds:
        raise UsageError(f"{option} must be {wanted.words}, got {value}")


def filled_in(kind: str, name: str, given: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options of the thing called `name`: those given, else their defaults.

    Parameters
    ----------
    kind : str
        What is named, such as ``schedule``; for messages.
    name : str
        Which one.
    given : mapping
        Values by option; None where none was given.
    known : mapping
        Options with their defaults, by name.

    Raises
    ------
    UsageError
        If the name is unknown, or a given option does not belong to it.
    """
    if name not in known:
        raise UsageError(f"unknown {kind} {name!r}; known are {', '.join(known)}")
    defaults = known[name]
    foreign = [option for option, value in given.items() if value is not None and option not in defaults]
    if foreign:
        users = ", ".join(other for other, options in known.items() if foreign[0] in options)
        raise UsageError(f"{kind} {name} has no option {foreign[0]} (it belongs to {users}): leave it out")
    return {option: default if given[option] is None else given[option] for option, default in defaults.items()}


def known(value: _T | None) -> _T:
    """Return an option that its owner has filled in."""
    if value is None:
        raise ValueError("this option belongs to another name")
    return value
