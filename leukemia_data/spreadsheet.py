"""Cells of tables that people open in a spreadsheet."""

from __future__ import annotations

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def formula_safe(text: str) -> str:
    """The text, with an apostrophe in front where a spreadsheet would take it for a formula.

    >>> formula_safe("=1+1"), formula_safe("UID_1_1_1_all.bmp")
    ("'=1+1", 'UID_1_1_1_all.bmp')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
