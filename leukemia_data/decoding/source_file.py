"""One source file, on a disk or in a store: its bytes and its state at the moment it was read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.files.file_state import FileState, state_of
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.stores.faults import MissingObjectError

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl

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
