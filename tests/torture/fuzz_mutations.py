"""Damage and malice for files, drawn from a seed: bytes in, other bytes out.

Three levels: bytes that know nothing of the format; tokens of a text (numbers, quoted texts, lines); and values of a
JSON document, which stays one, so that the code behind the parser is reached.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Mutate = Callable[[random.Random, Sequence[bytes]], bytes]
"""A generator and the sound files of one kind in, a file out that may be anything."""

DEEP = 20_000
"""Nesting that no parser's stack holds."""
NUMBERS = (
    "0", "-1", "1", "-0.0", "0.5", "255", "256", "32768", "65536", "2147483648", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e9", "1e308", "1e400", "-1e400", "5e-324",
    "NaN", "nan", "inf", "Infinity", "-Infinity", "1_000", "0x10", "1" + 400 * "0", 5_000 * "9", "٣",
)  # fmt: skip
TEXTS = (
    "", " ", "..", "../../outside", "/outside", "C:\\outside", "a/b", "a\\b", ".", "CON", "-", "--help", "%s{0}$HOME",
    "=cmd()", "+1", "@SUM(A1)", "'", '"', "a|b", "`x`", "<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "a\nb",
    "a\r", "a\tb", "a\0b", "\x7f", "\u202eabc", "\u0130", "é" * 300, "\U0001f9ec", "\ud800", "x" * 5_000, "unused",
    "train", "fold:1/0", "fold:1/99999999", "leave-out:", "rotations:99999999", "report-a.toml", "nan", "-1", "0",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 255, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], {"a": 1}, [1, 2, 3], [0.1, 0.2, 0.3], ["a"],
    *TEXTS,
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_QUOTED = re.compile(rb'"[^"\n]*"')


def mutated_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the files with one to three kinds of damage that know nothing of its format."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = bytearray(rng.choice(_BYTE_MUTATIONS)(rng, data, seeds))
    return bytes(data)


def mutated_text(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the text files with damage to bytes, or other numbers, texts or lines in it."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, seeds)
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_TEXT_MUTATIONS)(rng, data)
    return data


def mutated_json(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the JSON documents with other values in it, or damaged as a text."""
    if rng.random() < 0.3:
        return mutated_text(rng, seeds)
    document = json.loads(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        document = with_other_value(rng, document)
    return json.dumps(document).encode()


def with_other_value(rng: random.Random, document: Any) -> Any:
    """Return a JSON value in which one value, anywhere, is replaced, left out, renamed or repeated."""
    places = list(_places(document))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    match rng.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.extend(holder[key:] * rng.choice((1, 3)))
        case 3:
            holder[key] = [holder[key]]
        case 4:
            holder[key] = {"a": holder[key]}
        case 5:
            holder[key] = str(holder[key])
        case 6:
            other_holder, other_key = rng.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
        case _:
            holder[key] = rng.choice(VALUES)
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container below a JSON value with each of its keys."""
    if not isinstance(document, dict | list):
        return []
    children = document.items() if isinstance(document, dict) else enumerate(document)
    return [place for key, value in children for place in ((document, key), *_places(value))]


def _slice(rng: random.Random, length: int) -> tuple[int, int]:
    start = rng.randrange(length + 1)
    return start, min(length, start + rng.choice((1, 2, 4, 8, 16, 64, 256, 4096)))


def _flip_bits(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 8))) if data else ():
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _overwrite(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    start, stop = _slice(rng, len(data))
    data[start:stop] = rng.choice((b"\0", b"\xff", b" ", bytes([rng.randrange(256)]))) * (stop - start)
    return data


def _overwrite_integer(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
    start = rng.randrange(max(1, len(data) // width)) * width
    data[start : start + width] = (value % 256**width).to_bytes(width, rng.choice(("little", "big")))
    return data


def _truncate(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _delete(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    start, stop = _slice(rng, len(data))
    del data[start:stop]
    return data


def _insert(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(data) + 1)
    text = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    data[start:start] = rng.choice((rng.randbytes(rng.choice((1, 4, 64))), text, b"\xef\xbb\xbf", b"\xff\xfe"))
    return data


def _repeat(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    start, stop = _slice(rng, len(data))
    data[stop:stop] = data[start:stop] * rng.choice((1, 2, 16))
    return data


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _other_token(rng: random.Random, data: bytes, pattern: re.Pattern[bytes], token: bytes) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data + token
    match = rng.choice(found)
    return data[: match.start()] + token + data[match.end() :]


def _other_number(rng: random.Random, data: bytes) -> bytes:
    return _other_token(rng, data, _NUMBER, rng.choice(NUMBERS).encode())


def _other_text(rng: random.Random, data: bytes) -> bytes:
    text = rng.choice(TEXTS)
    token = rng.choice((json.dumps(text).encode(), b'"' + text.encode("utf-8", "surrogatepass") + b'"'))
    return _other_token(rng, data, _QUOTED, token)


def _other_cell(rng: random.Random, data: bytes) -> bytes:
    """Replace what stands between two separators of a table."""
    cell = rng.choice((*TEXTS, *NUMBERS)).encode("utf-8", "surrogatepass")
    return _other_token(rng, data, re.compile(rb"(?<=[,=\n])[^,\n]*"), cell)


def _other_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    number = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[number]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[number])
        case 2:
            rng.shuffle(lines)
        case _:
            return b"".join(lines).replace(b"\n", rng.choice((b"\r\n", b"\r", b"", b"\n\n", b";")))
    return b"".join(lines)


def _nest(rng: random.Random, data: bytes) -> bytes:
    depth = rng.choice((50, 2_000, DEEP))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"), (b"(", b")")))
    return _other_token(rng, data, rng.choice((_NUMBER, _QUOTED)), opening * depth + b"1" + closing * depth)


_BYTE_MUTATIONS = (
    _flip_bits, _flip_bits, _overwrite, _overwrite_integer, _overwrite_integer, _truncate, _delete, _insert, _repeat,
    _splice,
)  # fmt: skip
_TEXT_MUTATIONS = (
    _other_number, _other_number, _other_text, _other_text, _other_cell, _other_cell, _other_lines, _nest,
)  # fmt: skip
