"""Text for terminals, spreadsheets and notebooks, which must not interpret it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

# Control characters except line feed and tab, surrogates (bytes that are no UTF-8), marks of the direction of writing,
# and invisible line ends.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return the text with escapes for characters that control a terminal or are invisible, except line feed and tab.

    >>> printable("\x1b[31mred\x1b[0m")
    '\\x1b[31mred\\x1b[0m'
    """
    return text if text.isprintable() else _STEERING.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


_APOSTROPHE = "'"
# With the apostrophe, so that the protection can be undone.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", _APOSTROPHE)


def formula_safe(text: str) -> str:
    """Return the text, with an apostrophe in front if a spreadsheet would read a formula, or it starts with one.

    >>> formula_safe("=1+1"), formula_safe("UID_1_1_1_all.bmp")
    ("'=1+1", 'UID_1_1_1_all.bmp')
    """
    return f"{_APOSTROPHE}{text}" if text.startswith(_FORMULA_STARTS) else text


def formula_restored(text: str) -> str:
    """Return the argument of :func:`formula_safe`; a text that it cannot have returned is unchanged.

    >>> formula_restored("'=1+1"), formula_restored("UID_1_1_1_all.bmp"), formula_restored("'tis")
    ('=1+1', 'UID_1_1_1_all.bmp', "'tis")
    """
    is_protected = text.startswith(_APOSTROPHE) and text[1:].startswith(_FORMULA_STARTS)
    return text[1:] if is_protected else text


def quoting_for(cells: Iterable[object]) -> Literal[0, 1]:
    r"""Return how :mod:`csv` must quote these cells: all of them if one has a ``\r``, which may stay unquoted else."""
    has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    return csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL


def html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), caption: str = "") -> str:
    """Return an HTML table of escaped texts; the first of each row names it.

    >>> html_table([("images", "1 < 2")])
    '<table><tr><th>images</th><td>1 &lt; 2</td></tr></table>'
    """
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in header)}</tr>" if header else ""
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{above}{head}{body}</table>"


def format_bytes(num_bytes: int) -> str:
    """Return bytes in decimal units, such as ``539 MB``."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
