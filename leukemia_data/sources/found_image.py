"""An image as a folder or a table shows it, before class names have become labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from leukemia_data.samples.record import NO_FOLD

IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})

_SPLIT_WORDS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "test": "test"}
_SPLIT_WORDS |= {"validation": "valid", "testing": "test"}


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image with what its place tells; the fields mean what those of ``Record`` mean."""

    record_id: str
    path: Path
    class_name: str | None
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    size_bytes: int = -1
    mtime_ns: int = -1

    def with_prefix(self, prefix: str) -> FoundImage:
        """Same image with `prefix` before its id."""
        return replace(self, record_id=prefix + self.record_id) if prefix else self


def split_word(name: str) -> str | None:
    """The split that a folder's or table's name speaks of: its first word that means one, or ``None``.

    >>> split_word("C-NMC_training_data"), split_word("resnet_18_test"), split_word("all")
    ('train', 'test', None)
    """
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return None
