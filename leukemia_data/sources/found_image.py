"""An image as a folder or a table shows it, before class names have become labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from leukemia_data.files.file_state import NO_FILE, FileState
from leukemia_data.samples.record import NO_FOLD, ImagePlace

IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})

# Control characters, what ends a line or turns the direction of writing unseen, and bytes that are no valid UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SPLIT_WORDS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "test": "test"}
_SPLIT_WORDS |= {"validation": "valid", "testing": "test"}


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image with what its place tells; the fields mean what those of ``Record`` mean."""

    record_id: str
    path: ImagePlace
    class_name: str | None
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    state: FileState = NO_FILE

    def with_prefix(self, prefix: str) -> FoundImage:
        """Same image with `prefix` before its id."""
        return replace(self, record_id=printable_name(prefix) + self.record_id) if prefix else self


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


def split_word(name: str) -> str | None:
    """The split that a folder's or table's name speaks of: its first word that means one, or ``None``.

    >>> split_word("C-NMC_training_data"), split_word("resnet_18_test"), split_word("all")
    ('train', 'test', None)
    """
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return None
