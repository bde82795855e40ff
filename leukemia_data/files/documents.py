"""JSON and TOML texts from files that anybody may have written: values out, or one kind of error with the reason.

The standard library's parsers take more than the formats allow (``NaN``, a key that stands twice), or fail with errors
of another kind (nesting that exceeds the interpreter's stack).
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from typing import Any

_WHOLE_NUMBERS = range(-(2**63), 2**64)
_MOST_BITS = 10_000
_NESTED = "it is nested too deeply"


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a JSON document.

    >>> parse_json('{"size_px": 128}')
    {'size_px': 128}

    Raises
    ------
    ValueError
        If it is no JSON, names a key twice in one object, is nested too deeply, or holds a number that is not finite or
        a whole number of more than 64 bits.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refused,
            parse_float=_finite,
            parse_int=_whole_number,
        )
    except RecursionError:
        raise ValueError(_NESTED) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises
    ------
    ValueError
        If it is no TOML, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        values = tomllib.loads(text)
        _require_short_numbers(values)
    except RecursionError:
        raise ValueError(_NESTED) from None
    return values


def _require_short_numbers(value: object) -> None:
    """Python refuses to write the longest ones in decimal digits, and so every message about them."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _require_short_numbers(item)
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
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
    # Longer texts than that of 2**64 can be no number of 64 bits; Python itself refuses those of thousands of digits.
    if len(text) > 20 or (number := int(text)) not in _WHOLE_NUMBERS:
        raise ValueError(f"the whole number {text[:20]}{'...' * (len(text) > 20)} has more than 64 bits")
    return number
