"""The pixels of a shard, row by row: a memory map, or plain reads where a file system knows no maps.

A map is what the system's file cache and every process share, and costs nothing per row. Plain reads give the same
bytes on file systems that cannot map. Over a network they also outlive a file handle that the server has forgotten: a
shard's name tells its content, so that the file is opened once more by its name.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.shard import ShardImages, metadata_digest
from leukemia_data.errors import CacheError


class ShardRows(Protocol):
    """Pixels of one shard: row i holds image i, (S * S * 3,) uint8, read-only. Safe to use from several threads."""

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]:
        """The pixels of one image."""
        ...


class FileReads(Protocol):
    """An open file that is read at any place, by several threads at a time."""

    def read_at(self, num_bytes: int, offset_bytes: int) -> bytes:
        """Up to `num_bytes` bytes from a place on; fewer only where the system gives fewer at once, none at the end."""
        ...


def open_rows(images: ShardImages) -> ShardRows:
    """Map a shard's pixels, or read them plainly where they cannot be mapped.

    Raises
    ------
    CacheError
        If the file is absent, too short or damaged, or the system's limit of open files is reached.
    """
    try:
        return images.map().reshape(images.shape[0], math.prod(images.shape[1:]))
    except CacheError as error:
        try:
            return PlainRows(images)
        except CacheError:
            raise error from None


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


class PlainRows:
    """Pixels of one shard by plain reads; the file stays open, so that gc cannot take it away.

    Parameters
    ----------
    images
        Where they lie.
    open_file
        Opens the file, first now and once more whenever its handle has become stale.

    Raises
    ------
    CacheError
        If the file is absent, too short or damaged; later, when a row is read, also if that fails.
    """

    def __init__(self, images: ShardImages, open_file: Callable[[Path], FileReads] = OpenFile) -> None:
        self._images = images
        self._open_file = open_file
        self._row_bytes = math.prod(images.shape[1:])
        try:
            self._file = open_file(images.path)
            is_intact = images.metadata_digest is None or metadata_digest(images) == images.metadata_digest
            is_whole = images.path.stat().st_size >= images.offset_bytes + images.num_bytes
        except OSError as error:
            raise self._failed(error) from error
        if not (is_intact and is_whole):
            raise CacheError(f"{images.path} is damaged or too short")

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """The pixels of one image, (S * S * 3,) uint8."""
        try:
            return self._read(self._file, row)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise self._failed(error) from error
        try:
            # Others may still be reading from the earlier one; it is closed when the last of them is done.
            self._file = self._open_file(self._images.path)
            return self._read(self._file, row)
        except OSError as error:
            raise self._failed(error) from error

    def _read(self, file: FileReads, row: int) -> NDArray[np.uint8]:
        start, parts, num_missing = self._images.offset_bytes + row * self._row_bytes, [], self._row_bytes
        while num_missing:
            part = file.read_at(num_missing, start + self._row_bytes - num_missing)
            if not part:
                raise OSError(errno.EIO, "the file ends before its images do")
            parts.append(part)
            num_missing -= len(part)
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)

    def _failed(self, error: OSError) -> CacheError:
        return CacheError(f"{self._images.path} cannot be read: {error.strerror or error}")
