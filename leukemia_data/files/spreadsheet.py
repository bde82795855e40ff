"""Cells of tables that people open in a spreadsheet: texts that it would compute are protected, and read back."""

from __future__ import annotations

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
    """What :func:`formula_safe` was given.

    >>> formula_restored("'=1+1"), formula_restored("UID_1_1_1_all.bmp")
    ('=1+1', 'UID_1_1_1_all.bmp')
    """
    return text.removeprefix(_APOSTROPHE)
