"""Kinds of JSON values: what a file should hold in, an error that names the value which is something else out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value, and its name for people."""

    name: str
    includes: Callable[[Any], bool]


def is_number(value: object) -> bool:
    """Whether a value is a number; in Python a truth value would be one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


TEXT = Kind("a text", lambda value: isinstance(value, str))
TEXTS = Kind(
    "a list of texts", lambda value: isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
)
COUNT = Kind("a whole number above 0", is_count)
WHOLE_NUMBER = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
NUMBER = Kind("a number", is_number)
NUMBER_OR_NONE = Kind("a number or null", lambda value: value is None or is_number(value))
OBJECT = Kind("an object", lambda value: isinstance(value, Mapping))
OBJECT_OR_NONE = Kind("an object or null", lambda value: value is None or isinstance(value, Mapping))


def require_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Look at the values that are there.

    Raises
    ------
    ValueError
        If one is of another kind than its own.
    """
    for name, kind in kinds.items():
        if name in values and not kind.includes(values[name]):
            raise ValueError(f"{name} must be {kind.name}, got {values[name]!r:.60}")
