"""One source image: its metadata, and parsing of file names."""

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
"""Location of an image: a local file, or an object in a store."""
UNKNOWN_LABEL = -1
NO_FOLD = -1
CELL_CLASSES = ("hem", "all")
"""The two C-NMC classes; a class's position is its label: 0 normal (hem), 1 leukaemia (all)."""
GIVEN_SPLITS = ("train", "valid", "test")


_UID_NAME = re.compile(r"uid_(h?\d{1,9})_(\d{1,9})_(\d{1,9})_(all|hem)", re.IGNORECASE)


class CellName(NamedTuple):
    """Parts of a C-NMC file name."""

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
        Unique in its source, without absolute paths: the path below the source's root with ``/`` between its parts and
        unprintable characters escaped, or a table's ``Path`` string unchanged.
    path
        Location of the image: a local file or an object's address.
    label
        Position in the source's class list, or :data:`UNKNOWN_LABEL`.
    subject
        Subject of the cell; empty if unknown.
    split, fold
        As given by the source: ``train``, ``valid``, ``test`` or empty, and the number of a fold or
        :data:`NO_FOLD`.
    state
        The file's state when it was listed; :data:`~leukemia_data.files.atomic.NO_FILE` if it is missing or not a
        regular file.
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
        """Whether there was no regular file: nothing, a dangling link, a pipe."""
        return not self.state.is_file


def parse_cell_name(file_name: str) -> CellName | None:
    """Parse a C-NMC file name, with or without extension; ``None`` for other names.

    >>> parse_cell_name("UID_h3_12_4_hem.bmp")
    CellName(subject='H3', photo=12, cell=4, label=0)
    """
    match = _UID_NAME.fullmatch(file_name.rsplit(".", 1)[0])
    if match is None:
        return None
    subject, photo, cell, class_name = match.groups()
    return CellName(subject.upper(), int(photo), int(cell), CELL_CLASSES.index(class_name.lower()))


IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})

# Control characters, line breaks, invisible changes of writing direction, and bytes that are invalid UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class FoundImage(NamedTuple):
    """One image with the metadata from its path, with the fields of ``Record``."""

    record_id: str
    path: ImagePlace
    class_name: str | None
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    state: FileState = NO_FILE


def printable_name(name: str) -> str:
    r"""Return a file or folder name as one line of valid text, with other characters escaped.

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
    """Return the name of a source; ``.`` and links are resolved."""
    return place.resolve().name if isinstance(place, Path) else place.name


def suffix_of(name: str) -> str:
    """Return a file name's extension with its dot, in lower case."""
    dot = name.rfind(".")
    # Fast path for nearly all names, three times as fast; there may be a million.
    if dot > 0 and name[0] != ".":
        return name[dot:].lower()
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file takes as long as the walk


def stem_of(name: str) -> str:
    """Return a file name without its extension."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - as above
