"""One shard: an HDF5 file of preprocessed images with the rows of the sample table beside them.

``images`` is one contiguous, unfiltered uint8 dataset of shape (n, S, S, 3). Its pixels therefore lie in the file as in
memory, and after the header is read no HDF5 handle is needed: readers map the file. Chunked or compressed layouts
are refused on purpose, they are up to a thousand times slower for single images.

docs/format.md specifies the file for other readers.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.manifest import ShardEntry
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.samples.sample_table import SampleTable, read_columns, write_columns

SHARD_FORMAT = "leukemia-cells shard"
SHARD_FORMAT_VERSION = 1
# Large datasets start at a page boundary, so that maps and direct I/O need no shifting.
_ALIGN_ABOVE_BYTES = 1 << 16
_PAGE_BYTES = 4096
_HEADER_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class ShardImages:
    """Where a shard's pixels lie: enough to map them, small enough to pickle."""

    path: Path
    offset_bytes: int
    shape: tuple[int, int, int, int]

    def map(self) -> NDArray[np.uint8]:
        """Read-only memory map of the images, shape (n, S, S, 3).

        Raises
        ------
        CacheError
            If the file is absent, too short, or the system's limit of open files is reached.
        """
        try:
            # As a plain array: each slice of a memmap is a memmap again, and making one costs microseconds.
            return np.asarray(np.memmap(self.path, np.uint8, "r", self.offset_bytes, self.shape))
        except (OSError, ValueError) as error:
            is_limit = isinstance(error, OSError) and error.errno == errno.EMFILE
            cure = "; every shard is one open file: raise the limit, as with `ulimit -n 65536`" if is_limit else ""
            raise CacheError(f"{self.path} cannot be mapped: {error}{cure}") from error


def write_shard(directory: Path, images_NSSC: NDArray[np.uint8], table: SampleTable, fingerprint: str) -> ShardEntry:
    """Write a shard under the name its content gives it.

    The bytes are a function of the arguments alone. The file is not flushed to disk: that is the committer's work.

    Parameters
    ----------
    directory
        The cache's directory.
    images_NSSC : ndarray of shape (n, S, S, 3), uint8
    table
        Row i describes image i.
    fingerprint
        The cache's, stored so that a shard in a foreign directory is recognised.
    """
    with scratch_path(directory, "shard") as scratch:
        with h5py.File(
            scratch, "w", alignment_threshold=_ALIGN_ABOVE_BYTES, alignment_interval=_PAGE_BYTES, locking=False
        ) as file:
            file.attrs["format"] = SHARD_FORMAT
            file.attrs["format_version"] = SHARD_FORMAT_VERSION
            file.attrs["fingerprint"] = fingerprint
            images = file.create_dataset("images", data=images_NSSC)
            offset_bytes = int(images.id.get_offset() or 0)
            write_columns(file, table)
        digest = file_digest(scratch)
        entry = ShardEntry(shard_name(digest), len(table), scratch.stat().st_size, digest, offset_bytes)
        final = directory / entry.name
        # An equal file is left alone: Windows refuses to replace one that a reader has mapped.
        if not final.is_file() or file_digest(final) != digest:
            scratch.replace(final)
    return entry


def shard_name(digest: str) -> str:
    """File name of a shard whose bytes have this digest."""
    return f"shard-{digest[:16]}.h5"


def shard_bytes(num_samples: int, size_px: int, row_bytes: int) -> int:
    """Room to keep free for a shard: its pixels and rows, and a page-aligned header."""
    return num_samples * (size_px * size_px * 3 + row_bytes) + _HEADER_BYTES


def shard_images(directory: Path, entry: ShardEntry, size_px: int) -> ShardImages:
    """Where the pixels of a shard of a cache lie, as its manifest says; the file is not opened."""
    shape = (entry.num_samples, size_px, size_px, 3)
    return ShardImages(directory / entry.name, entry.images_offset_bytes, shape)


def open_images(path: Path) -> ShardImages:
    """Read a shard's header and find its pixels.

    Raises
    ------
    CacheError
        If the file is absent, no shard of this format, or its images are not contiguous uint8 (n, S, S, 3).
    """
    with open_hdf5(path) as file:
        _check_format(file, path)
        images = file.get("images")
        if not isinstance(images, h5py.Dataset) or images.dtype != np.uint8 or images.ndim != 4:
            raise CacheError(f"{path}: holds no uint8 images (n, S, S, 3)")
        offset = images.id.get_offset()
        is_contiguous = images.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        if not is_contiguous or (offset is None and images.shape[0] > 0):
            raise CacheError(f"{path}: its images are not stored contiguously")
        n, height, width, channels = images.shape
    return ShardImages(path, int(offset or 0), (int(n), int(height), int(width), int(channels)))


def read_table(path: Path) -> SampleTable:
    """Read the sample table of a shard.

    Raises
    ------
    CacheError
        If the file is absent or no shard of this format.
    """
    with open_hdf5(path) as file:
        _check_format(file, path)
        try:
            return read_columns(file)
        except (KeyError, ValueError, OSError, AttributeError) as error:
            raise CacheError(f"{path}: its sample table cannot be read: {error}") from error


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, without file locks (network file systems refuse them)."""
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is missing") from error
    except OSError as error:
        raise CacheError(f"{path} cannot be read as HDF5: {error}") from error


def _check_format(file: h5py.File, path: Path) -> None:
    kind, version = file.attrs.get("format"), file.attrs.get("format_version")
    if kind != SHARD_FORMAT or version != SHARD_FORMAT_VERSION:
        raise CacheError(
            f"{path}: expected {SHARD_FORMAT!r} version {SHARD_FORMAT_VERSION}, found {kind!r} version {version}"
        )
