"""The pixels of a shard, row by row: from a memory map, or by plain reads if a file cannot be mapped."""

from __future__ import annotations

import errno
import math
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import StoredBytes, codec_named
from leukemia_data.caches.hdf5_file import CHUNK_LENGTH_DTYPE
from leukemia_data.caches.manifest import CHUNK_LENGTH_BYTES
from leukemia_data.caches.shard import ShardImages, metadata_digest
from leukemia_data.errors import CacheError

ReadBytes = Callable[[int, int], StoredBytes]
"""Maps (offset_bytes, num_bytes) to the bytes of the file; fewer only at its end."""

_MARGIN_BYTES = 1 << 10


def image_starts(images: ShardImages, read: ReadBytes) -> NDArray[np.int64]:
    """Return file offsets of the images: image i is in bytes ``starts[i]`` to before ``starts[i + 1]``.

    Parameters
    ----------
    images
        The shard, from its manifest.
    read
        Reads its file. Only a compressed shard's column of lengths is read.

    Returns
    -------
    ndarray of shape (n + 1,), int64
        Increasing, from the first byte of the images to their end.

    Raises
    ------
    CacheError
        If the lengths are damaged.
    """
    count = images.shape[0]
    if images.chunks is None:
        return images.offset_bytes + np.arange(count + 1) * math.prod(images.shape[1:])
    column = read(images.chunks.lengths_offset_bytes, count * CHUNK_LENGTH_BYTES)
    if len(column) == count * CHUNK_LENGTH_BYTES:
        lengths = np.frombuffer(column, CHUNK_LENGTH_DTYPE).astype(np.int64)
        if lengths.all() and lengths.sum() == images.num_bytes:
            return images.offset_bytes + np.concatenate([[0], np.cumsum(lengths)])
    raise CacheError(
        f"{images.path} is damaged: the lengths of its chunks are not those that were written; "
        "`ldata verify --repair` repairs it"
    )


def starts_by_content(images: ShardImages, read: ReadBytes) -> NDArray[np.int64]:
    """Return the same offsets for a compressed shard with damaged lengths, found from the images' own bytes.

    After a damaged image nothing can be found: the remaining images get no bytes.
    """
    codec, image_bytes = codec_named(images.codec), math.prod(images.shape[1:])
    starts = np.full(images.shape[0] + 1, images.offset_bytes, np.int64)
    end = images.offset_bytes + images.num_bytes
    for row in range(images.shape[0]):
        start = int(starts[row])
        # Bounded, because a read may be a copy: no image is stored in much more bytes than its pixels.
        stored = read(start, min(end - start, 2 * image_bytes + _MARGIN_BYTES))
        try:
            starts[row + 1 :] = start + codec.stored_length(stored, image_bytes)
        except ValueError:
            break
    return starts


class FileReads(Protocol):
    """An open file for thread-safe reads at any offset."""

    def read_at(self, num_bytes: int, offset_bytes: int) -> bytes:
        """Return up to `num_bytes` bytes at an offset; maybe fewer at once, none at the end."""
        ...


class OpenFile:
    """A file descriptor for reading, closed when this object is no longer referenced."""

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
    """A file that stays open, and is reopened by name if its handle becomes stale.

    Parameters
    ----------
    path
        The file.
    open_file
        Opens it.

    Raises
    ------
    CacheError
        If it is missing; later, if it cannot be read.
    """

    def __init__(self, path: Path, open_file: Callable[[Path], FileReads] = OpenFile) -> None:
        self._path, self._open_file = path, open_file
        try:
            self._file = open_file(path)
        except OSError as error:
            raise cannot_be_read(path, error) from error

    def read(self, offset_bytes: int, num_bytes: int) -> bytes:
        """Return exactly `num_bytes` bytes at an offset."""
        try:
            return _read_all(self._file, offset_bytes, num_bytes)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise cannot_be_read(self._path, error) from error
        try:
            # Other threads may still read the earlier handle; it is closed after the last of them.
            self._file = self._open_file(self._path)
            return _read_all(self._file, offset_bytes, num_bytes)
        except OSError as error:
            raise cannot_be_read(self._path, error) from error


def cannot_be_read(path: Path, error: OSError) -> CacheError:
    """Return the CacheError for an unreadable file."""
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


class ShardRows(Protocol):
    """Pixels of one shard: row i is image i, (S * S * 3,) uint8, read-only. Thread-safe."""

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]:
        """The pixels of one image."""
        ...


def open_rows(images: ShardImages) -> ShardRows:
    """Map a shard's pixels, or read them if they cannot be mapped.

    Raises
    ------
    CacheError
        If the file is missing, truncated or damaged, the limit of open files is reached, or the codec's library is not
        installed.
    """
    try:
        return _map_rows(images)
    except CacheError as error:
        try:
            return PlainRows(images)
        except CacheError:
            raise error from None


def open_damaged_rows(images: ShardImages) -> ShardRows:
    """Return rows of a damaged shard: those that are not intact have arbitrary pixels, or raise CacheError.

    Raises
    ------
    CacheError
        If the file is missing or truncated, or cannot be mapped.
    """
    images = replace(images, metadata_digest=None)
    try:
        return _map_rows(images)
    except CacheError:
        if images.chunks is None:
            raise
        read = _map_reader(images)
        return DecodedRows(images, read, starts_by_content(images, read))


def is_mapped(rows: ShardRows) -> bool:
    """Return whether rows are views of a memory map."""
    return not isinstance(rows, PlainRows)


def _map_rows(images: ShardImages) -> ShardRows:
    if images.chunks is None:
        return images.map().reshape(images.shape[0], math.prod(images.shape[1:]))
    read = _map_reader(images)
    return DecodedRows(images, read, image_starts(images, read))


def _map_reader(images: ShardImages) -> ReadBytes:
    view = images.map(whole_file=True).data
    if len(view) < images.offset_bytes + images.num_bytes:
        raise CacheError(f"{images.path} cannot be mapped: it is too short for its images")
    return lambda offset_bytes, num_bytes: view[offset_bytes : offset_bytes + num_bytes]


class DecodedRows:
    """Rows decoded on access.

    Parameters
    ----------
    images
        The shard.
    read
        Reads its file; thread-safe.
    starts_N1 : ndarray of shape (n + 1,), int64
        From :func:`leukemia_data.caches.shard_rows.image_starts`.

    Raises
    ------
    CacheError
        If the codec's library is not installed; on access, if a row's bytes are damaged.
    """

    def __init__(self, images: ShardImages, read: ReadBytes, starts_N1: NDArray[np.int64]) -> None:
        self._path = images.path
        self._row_bytes = math.prod(images.shape[1:])
        self._read, self._starts = read, starts_N1
        self._codec = codec_named(images.codec)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """The pixels of one image, (S * S * 3,) uint8, read-only."""
        pixels = np.empty(self._row_bytes, np.uint8)
        self.copy_to(row, pixels)
        pixels.flags.writeable = False
        return pixels

    def copy_to(self, row: int, out: NDArray[np.uint8]) -> None:
        """Decode one image into `out`, (S * S * 3,) uint8, contiguous."""
        start, end = self._starts[row : row + 2].tolist()
        stored = self._read(start, end - start)
        try:
            self._codec.decode(stored, out)
        except ValueError as error:
            raise CacheError(
                f"{self._path} is damaged, image {row} in it: {error}; `ldata verify --repair` repairs it"
            ) from None


class PlainRows(DecodedRows):
    """Pixels of one shard by plain reads; the file stays open, so that gc does not affect it.

    Parameters
    ----------
    images
        The shard.
    open_file
        Opens the file, now and whenever its handle becomes stale.

    Raises
    ------
    CacheError
        If the file is missing, truncated or damaged; on access, if a read fails.
    """

    def __init__(self, images: ShardImages, open_file: Callable[[Path], FileReads] = OpenFile) -> None:
        file = ReopenedFile(images.path, open_file)
        try:
            is_intact = images.metadata_digest is None or metadata_digest(images) == images.metadata_digest
            is_whole = images.path.stat().st_size >= images.offset_bytes + images.num_bytes
        except OSError as error:
            raise cannot_be_read(images.path, error) from error
        if not (is_intact and is_whole):
            raise CacheError(f"{images.path} is damaged or too short")
        super().__init__(images, file.read, image_starts(images, file.read))
