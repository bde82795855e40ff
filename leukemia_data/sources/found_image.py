"""One image of a source: as a folder or table shows it, its bytes, and its state when read."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.files.file_state import NO_FILE, FileState, state_of
from leukemia_data.records.record import NO_FOLD, ImagePlace, Record
from leukemia_data.stores.faults import MissingObjectError

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl


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


# A pipe without a writer would be waited for, for ever. Windows has neither.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The bytes of a file, with its state while it was read; of an object the size is all that is known."""

    data: NDArray[np.uint8]
    state: FileState


def read_record(record: Record) -> SourceFile:
    """Read the file of a record: see :func:`read_file`.

    A store gives an object's bytes of one moment and no state with them: it is the listed one as long as the size is.
    An object that another one of the same size replaced meanwhile is read again at the next build, which lists it with
    another state.
    """
    file = read_file(record.path)
    if isinstance(record.path, Path):
        return file
    if file.state.size_bytes != record.state.size_bytes:
        raise ImageError("it changed after it was listed: try again when nothing writes to it any more")
    return SourceFile(file.data, record.state)


def read_file(path: ImagePlace) -> SourceFile:
    """Read a whole file.

    Raises
    ------
    ImageError
        If it cannot be read, is no regular file, or changed while it was read.
    StorageError
        If the store that holds it cannot be reached, or denies it: that is no fault of the image.
    """
    return _read_local(path) if isinstance(path, Path) else _read_stored(path)


def _read_stored(url: StoredUrl) -> SourceFile:
    try:
        data = np.frombuffer(url.read_bytes(), np.uint8)
    except MissingObjectError as error:
        raise ImageError("the file is missing") from error
    return SourceFile(data, FileState(len(data)))


def _read_local(path: Path) -> SourceFile:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise ImageError(_why_no_file(before.st_mode))
            data = np.fromfile(file, np.uint8)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise ImageError(_why_unreadable(path, error)) from error
    state = state_of(after)
    if state_of(before) != state or len(data) != state.size_bytes:
        raise ImageError("it changed while it was read: try again when nothing writes to it any more")
    return SourceFile(data, state)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE)


def _why_no_file(mode: int) -> str:
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    return f"{kind}, not an image file: rename or remove it"


def _why_unreadable(path: Path, error: OSError | ValueError) -> str:
    """What stands in the way, in words; the path itself is told by whoever reports it."""
    if isinstance(error, PermissionError) and not path.is_dir():
        return "may not be read: give yourself the permission to"
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        if path.is_symlink():
            return "a link that leads to no file: mend or remove it"
        return "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {_said(error)}"
    return f"cannot be read: {_said(error)}" if stat.S_ISREG(mode) else _why_no_file(mode)


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
