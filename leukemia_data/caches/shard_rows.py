"""The pixels of a shard, row by row: a memory map, or plain reads where a file system knows no maps.

Rows of a compressed shard are decoded whenever they are asked for, out of either. A map is what the system's file
cache and every process share, and costs nothing per row; plain reads give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import codec_named
from leukemia_data.caches.image_starts import ReadBytes, image_starts, starts_by_content
from leukemia_data.caches.plain_reads import FileReads, OpenFile, ReopenedFile, cannot_be_read
from leukemia_data.caches.shard import ShardImages, metadata_digest
from leukemia_data.errors import CacheError


class ShardRows(Protocol):
    """Pixels of one shard: row i holds image i, (S * S * 3,) uint8, read-only. Safe to use from several threads."""

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]:
        """The pixels of one image."""
        ...


def open_rows(images: ShardImages) -> ShardRows:
    """Map a shard's pixels, or read them plainly where they cannot be mapped.

    Raises
    ------
    CacheError
        If the file is absent, too short or damaged, the system's limit of open files is reached, or the library that
        decodes it is not installed.
    """
    try:
        return _map_rows(images)
    except CacheError as error:
        try:
            return PlainRows(images)
        except CacheError:
            raise error from None


def open_damaged_rows(images: ShardImages) -> ShardRows:
    """Rows of a shard that may be damaged anywhere: those that are not intact hold any pixels, or raise CacheError.

    Raises
    ------
    CacheError
        If the file is absent or too short, or cannot be mapped.
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
    """Whether rows come out of a memory map."""
    return not isinstance(rows, PlainRows)


def _map_rows(images: ShardImages) -> ShardRows:
    if images.chunks is None:
        return images.map().reshape(images.shape[0], math.prod(images.shape[1:]))
    read = _map_reader(images)
    return DecodedRows(images, read, image_starts(images, read))


def _map_reader(images: ShardImages) -> ReadBytes:
    view = images.map_file().data
    if len(view) < images.offset_bytes + images.num_bytes:
        raise CacheError(f"{images.path} cannot be mapped: it is too short for its images")
    return lambda offset_bytes, num_bytes: view[offset_bytes : offset_bytes + num_bytes]


class DecodedRows:
    """Rows that are made of stored bytes whenever they are asked for.

    Parameters
    ----------
    images
        The shard.
    read
        Reads its file; safe to use from several threads.
    starts_N1 : ndarray of shape (n + 1,), int64
        From :func:`leukemia_data.caches.image_starts.image_starts`.

    Raises
    ------
    CacheError
        If the library that decodes it is not installed; later, when a row is asked for, if its bytes are damaged.
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
                f"{self._path} is damaged, image {row} in it: {error}; `ldata verify --repair` mends it"
            ) from None


class PlainRows(DecodedRows):
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
        file = ReopenedFile(images.path, open_file)
        try:
            is_intact = images.metadata_digest is None or metadata_digest(images) == images.metadata_digest
            is_whole = images.path.stat().st_size >= images.offset_bytes + images.num_bytes
        except OSError as error:
            raise cannot_be_read(images.path, error) from error
        if not (is_intact and is_whole):
            raise CacheError(f"{images.path} is damaged or too short")
        super().__init__(images, file.read, image_starts(images, file.read))
