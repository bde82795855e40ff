"""Where in a TOML file a key stands: text and the path of a key in, a line number out.

The standard library's parser tells values, not places. This reads the same text a second time, only for its headers and
keys, so that a message about a wrong value can name the line. Text that :mod:`tomllib` accepted is taken for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Keys from the outermost on; an entry of an array of tables has its number, from 0, behind the array's name."""

_HEADER = re.compile(r"\s*(\[\[|\[)\s*(?P<keys>[^\[\]]+?)\s*(\]\]|\])\s*(#.*)?$")
_ASSIGNMENT = re.compile(
    r"""\s*(?P<keys>(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_LONG_QUOTES = ('"""', "'''")


def find_line(text: str, path: KeyPath) -> int | None:
    """Return the line, from 1, of the key at `path`, or of the innermost table around it that has a line.

    Parameters
    ----------
    text : str
        A valid TOML document.
    path : tuple of str and int
        For example ``("stage", 1, "optimizer", "lr")`` for the learning rate of the second ``[[stage]]``.

    Returns
    -------
    int or None
        None when not even the outermost key has a line of its own.
    """
    lines = {place.path: place.line for place in reversed(list(_places(text)))}
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


@dataclass(frozen=True)
class _Place:
    path: KeyPath
    line: int


def _places(text: str) -> Iterator[_Place]:
    """Yield headers and keys in the order of the text."""
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for line, content in _lines_outside_long_strings(text):
        header = _HEADER.match(content)
        if header:
            table = _resolved(_keys(header["keys"]), counts, opens_entry=header[1] == "[[")
            yield _Place(table, line)
            continue
        assignment = _ASSIGNMENT.match(content)
        if assignment:
            yield _Place((*table, *_keys(assignment["keys"])), line)


def _resolved(keys: list[str], counts: dict[KeyPath, int], *, opens_entry: bool) -> KeyPath:
    """Put the number of the entry that is open behind every array of tables on the way."""
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
    """Yield numbered lines that begin outside a multi-line string; inside one a line may look like anything."""
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
