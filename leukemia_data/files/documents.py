"""JSON and TOML documents: parsed, checked by kind, and the line of a key."""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

_WHOLE_NUMBERS = range(-(2**63), 2**64)
_MAX_BITS = 10_000
_NESTED = "it is nested too deeply"


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a JSON document.

    >>> parse_json('{"size_px": 128}')
    {'size_px': 128}

    Raises
    ------
    ValueError
        If it is no JSON, has a key twice in one object, is nested too deeply, or has a non-finite number or a whole
        number of more than 64 bits.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refused, parse_float=_finite, parse_int=_whole_number
        )
    except RecursionError:
        raise ValueError(_NESTED) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises
    ------
    ValueError
        If it is no TOML, is nested too deeply, or has a number of thousands of digits.
    """
    try:
        values = tomllib.loads(text)
        _require_short_numbers(values)
        return values
    except RecursionError:
        raise ValueError(_NESTED) from None


def _require_short_numbers(value: object) -> None:
    # Python refuses to write longer ones in decimal digits, as in messages.
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _require_short_numbers(item)
    elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError(f"a whole number has {value.bit_length():,} bits; 64 are meant")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return values


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is larger than {sys.float_info.max:.0e}")
    return number


def _whole_number(text: str) -> int:
    # Python refuses texts of thousands of digits.
    if len(text) > 20 or (number := int(text)) not in _WHOLE_NUMBERS:
        raise ValueError(f"the whole number {text[:20]}{'...' * (len(text) > 20)} has more than 64 bits")
    return number


KeyPath = tuple[str | int, ...]
"""Keys from the outermost on; the name of an array of tables is followed by the entry's number, from 0."""

_HEADER = re.compile(r"\s*(\[\[|\[)\s*(?P<keys>[^\[\]]+?)\s*(\]\]|\])\s*(#.*)?$")
_ASSIGNMENT = re.compile(
    r"""\s*(?P<keys>(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_LONG_QUOTES = ('"""', "'''")


def find_line(text: str, path: KeyPath) -> int | None:
    """Return the line, from 1, of the key at `path`, or of the innermost table around it that has a line.

    For example ``("stage", 1, "optimizer", "lr")`` is the learning rate of the second ``[[stage]]``.

    Returns
    -------
    int or None
        None if not even the outermost key has a line of its own.
    """
    lines = dict(reversed(list(_places(text))))
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _places(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Paths of headers and keys with their lines, in order."""
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for line, content in _lines_outside_long_strings(text):
        if header := _HEADER.match(content):
            table = _resolved(_keys(header["keys"]), counts, opens_entry=header[1] == "[[")
            yield table, line
        elif assignment := _ASSIGNMENT.match(content):
            yield (*table, *_keys(assignment["keys"])), line


def _resolved(keys: list[str], counts: dict[KeyPath, int], *, opens_entry: bool) -> KeyPath:
    """Insert the number of the current entry after every array of tables."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if opens_entry and position == len(keys) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _keys(text: str) -> list[str]:
    return [key.strip("\"'") for key in _KEY.findall(text)]


def _lines_outside_long_strings(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that begin outside a multi-line string."""
    open_quotes = ""
    for line, content in enumerate(text.splitlines(), 1):
        if not open_quotes:
            yield line, content
        rest = content
        while rest:
            found = [q for q in ((open_quotes,) if open_quotes else _LONG_QUOTES) if q in rest]
            if not found:
                break
            quotes = min(found, key=rest.index)
            rest = rest[rest.index(quotes) + len(quotes) :]
            open_quotes = "" if open_quotes else quotes


class Kind(NamedTuple):
    """A kind of value, and its name for messages."""

    name: str
    includes: Callable[[Any], bool]


def is_number(value: object) -> bool:
    """Return whether a value is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TEXT = Kind("a text", lambda value: isinstance(value, str))
TEXTS = Kind(
    "a list of texts", lambda value: isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number above 0", lambda value: _is_whole(value) and value > 0)
COUNT_OR_NONE = Kind("a whole number above 0, or null", lambda value: value is None or (_is_whole(value) and value > 0))
WHOLE_NUMBER = Kind("a whole number", _is_whole)
NUMBER = Kind("a number", is_number)
NUMBER_OR_NONE = Kind("a number or null", lambda value: value is None or is_number(value))
OBJECT = Kind("an object", lambda value: isinstance(value, Mapping))
OBJECT_OR_NONE = Kind("an object or null", lambda value: value is None or isinstance(value, Mapping))


def require_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError if a value is of another kind than that of its name; names may be missing."""
    for name, kind in kinds.items():
        if name in values and not kind.includes(values[name]):
            raise ValueError(f"{name} must be {kind.name}, got {values[name]!r:.60}")
