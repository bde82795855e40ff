"""Plain reads of a file at any place, by several threads at a time.

They work on file systems that know no memory maps. Over a network they also outlive a file handle that the server has
forgotten: a shard's name tells its content, so that the file is opened once more by its name.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

from leukemia_data.errors import CacheError


class FileReads(Protocol):
    """An open file that is read at any place, by several threads at a time."""

    def read_at(self, num_bytes: int, offset_bytes: int) -> bytes:
        """Up to `num_bytes` bytes from a place on; fewer only where the system gives fewer at once, none at the end."""
        ...


class OpenFile:
    """A file descriptor for reading, closed when nobody holds this object any more."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._seeking = Lock()
        weakref.finalize(self, os.close, self._descriptor)

    def read_at(self, num_bytes: int, offset_bytes: int) -> bytes:
        """See :class:`FileReads`."""
        if sys.platform != "win32":
            return os.pread(self._descriptor, num_bytes, offset_bytes)
        with self._seeking:
            os.lseek(self._descriptor, offset_bytes, os.SEEK_SET)
            return os.read(self._descriptor, num_bytes)


class ReopenedFile:
    """A file that stays open, and is opened once more by its name whenever its handle has become stale.

    Parameters
    ----------
    path
        The file.
    open_file
        Opens it.

    Raises
    ------
    CacheError
        If it is absent; later, if it cannot be read.
    """

    def __init__(self, path: Path, open_file: Callable[[Path], FileReads] = OpenFile) -> None:
        self._path, self._open_file = path, open_file
        try:
            self._file = open_file(path)
        except OSError as error:
            raise cannot_be_read(path, error) from error

    def read(self, offset_bytes: int, num_bytes: int) -> bytes:
        """Exactly so many bytes from a place on."""
        try:
            return _read_all(self._file, offset_bytes, num_bytes)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise cannot_be_read(self._path, error) from error
        try:
            # Others may still be reading from the earlier one; it is closed when the last of them is done.
            self._file = self._open_file(self._path)
            return _read_all(self._file, offset_bytes, num_bytes)
        except OSError as error:
            raise cannot_be_read(self._path, error) from error


def cannot_be_read(path: Path, error: OSError) -> CacheError:
    """The error to raise of a file of a cache that the system does not give."""
    return CacheError(f"{path} cannot be read: {error.strerror or error}")


def _read_all(file: FileReads, offset_bytes: int, num_bytes: int) -> bytes:
    parts, num_missing = [], num_bytes
    while num_missing:
        part = file.read_at(num_missing, offset_bytes + num_bytes - num_missing)
        if not part:
            raise OSError(errno.EIO, "the file ends before its images do")
        parts.append(part)
        num_missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
