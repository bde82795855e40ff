"""One source image: its metadata, and what file names say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from leukemia_data.files.atomic import NO_FILE, FileState

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl


ImagePlace: TypeAlias = "Path | StoredUrl"
"""Where an image lies: a file of this machine, or an object in a store. Either has a name, and bytes to read."""
UNKNOWN_LABEL = -1
NO_FOLD = -1
CELL_CLASSES = ("hem", "all")
"""The two C-NMC classes; a class's position is its label: 0 normal (hem), 1 leukaemia (all)."""
GIVEN_SPLITS = ("train", "valid", "test")

_CELL_LABELS = {name: label for label, name in enumerate(CELL_CLASSES)}

_UID_NAME = re.compile(r"uid_(h?\d{1,9})_(\d{1,9})_(\d{1,9})_(all|hem)", re.IGNORECASE)


class CellName(NamedTuple):
    """What a C-NMC file name tells: who, which photograph, which cell in it, which class."""

    subject: str
    photo: int
    cell: int
    label: int


@dataclass(frozen=True, slots=True)
class Record:
    """One source image before its pixels are read.

    Attributes
    ----------
    record_id
        Unique in its source and free of absolute paths: the path below the source's root with ``/`` between
        its parts (what no terminal can show of it escaped), or a table's ``Path`` string unchanged.
    path
        Where the image lies now: a file of this machine or an object's address.
    label
        Position in the source's class list, or :data:`UNKNOWN_LABEL`.
    subject
        Whose cell it is; empty where nothing tells.
    split, fold
        What the source brought: ``train``, ``valid``, ``test`` or empty, and the number of a fold or
        :data:`NO_FOLD`.
    state
        The file's state when it was listed; :data:`~leukemia_data.files.atomic.NO_FILE` for what is no regular file
        or none at all.
    """

    record_id: str
    path: ImagePlace
    label: int = UNKNOWN_LABEL
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    state: FileState = NO_FILE

    @property
    def is_missing(self) -> bool:
        """Whether there was no regular file at its place: nothing at all, a link that leads nowhere, a pipe."""
        return not self.state.is_file


def parse_cell_name(file_name: str) -> CellName | None:
    """Read a C-NMC file name, with or without its extension; ``None`` where it is not one.

    >>> parse_cell_name("UID_h3_12_4_hem.bmp")
    CellName(subject='H3', photo=12, cell=4, label=0)
    """
    match = _UID_NAME.fullmatch(file_name.rsplit(".", 1)[0])
    if match is None:
        return None
    subject, photo, cell, class_name = match.groups()
    return CellName(subject.upper(), int(photo), int(cell), _CELL_LABELS[class_name.lower()])


IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})

# Control characters, what ends a line or turns the direction of writing unseen, and bytes that are no valid UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class FoundImage(NamedTuple):
    """One image with what its place says; the fields mean what those of ``Record`` mean."""

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
