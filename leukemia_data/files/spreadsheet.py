"""Cells of tables that people open in a spreadsheet: texts that it would compute are protected, and read back."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Literal

_APOSTROPHE = "'"
# The apostrophe is among them so that the protection can be undone: each text has one protected form of its own.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", _APOSTROPHE)


def formula_safe(text: str) -> str:
    """The text, with an apostrophe in front where a spreadsheet would take it for a formula, or it starts with one.

    >>> formula_safe("=1+1"), formula_safe("UID_1_1_1_all.bmp")
    ("'=1+1", 'UID_1_1_1_all.bmp')
    """
    return f"{_APOSTROPHE}{text}" if text.startswith(_FORMULA_STARTS) else text


def formula_restored(text: str) -> str:
    """What :func:`formula_safe` was given; a text that it cannot have returned stays as it is.

    >>> formula_restored("'=1+1"), formula_restored("UID_1_1_1_all.bmp"), formula_restored("'tis")
    ('=1+1', 'UID_1_1_1_all.bmp', "'tis")
    """
    is_protected = text.startswith(_APOSTROPHE) and text[1:].startswith(_FORMULA_STARTS)
    return text[1:] if is_protected else text


def quoting_for(cells: Iterable[object]) -> Literal[0, 1]:
    r"""How :mod:`csv` must quote a table with these cells, so that it is read back as it was: only if needed, or all.

    A writer that ends lines by ``\n`` may leave a bare ``\r`` unquoted (Python 3.11 does), where readers end the line.
    """
    has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    return csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
