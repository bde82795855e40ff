"""One image of a source as a folder or table shows it, and the names of files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from leukemia_data.files.file_state import NO_FILE, FileState
from leukemia_data.records.record import NO_FOLD, ImagePlace

IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})

# Control characters, what ends a line or turns the direction of writing unseen, and bytes that are no valid UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class FoundImage(NamedTuple):
    """One image with what its place tells; the fields mean what those of ``Record`` mean."""

    record_id: str
    path: ImagePlace
    class_name: str | None
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    state: FileState = NO_FILE


def printable_name(name: str) -> str:
    r"""A file's or folder's name as ids and messages show it: one line of valid text.

    Line breaks, other control characters and bytes that are no valid UTF-8 become escapes; every other name stays as
    it is.

    >>> printable_name("UID_1_1_1_all.bmp"), printable_name("two\nlines\udcff.bmp")
    ('UID_1_1_1_all.bmp', 'two\\nlines\\xff.bmp')
    """
    if name.isascii() and name.isprintable():
        return name
    return _UNPRINTABLE.sub(_escape, name)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def own_name(place: ImagePlace) -> str:
    """What a source is called; ``.`` and links are as what they lead to."""
    return place.resolve().name if isinstance(place, Path) else place.name


def suffix_of(name: str) -> str:
    """End of a file's name from its last dot on, in lower case."""
    dot = name.rfind(".")
    # Nearly every name, in a third of the time; there may be a million.
    if dot > 0 and name[0] != ".":
        return name[dot:].lower()
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file takes as long as the walk


def stem_of(name: str) -> str:
    """A file's name before its last dot."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - as above
