"""One shard: an HDF5 file of preprocessed images with the rows of the sample table beside them.

``images`` is a contiguous, unfiltered uint8 dataset of shape (n, S, S, 3). Its pixels are in the file as in memory, so
readers map the file without HDF5. A compressed shard has one chunk per image at a known offset; reading chunks through
HDF5 is up to a thousand times slower for single images.

docs/format.md specifies the file for other readers.
"""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.caches.codec import RAW, ZSTD, codec_named
from leukemia_data.caches.hdf5_file import (
    ChunkTable,
    check_datasets,
    find_chunks,
    hdf5_bytes,
    open_hdf5,
    own_dataset,
    write_chunks,
)
from leukemia_data.caches.manifest import Manifest, ShardEntry, is_intact
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import move_into_place, scratch_path
from leukemia_data.records.fingerprint import bytes_digest, file_digest
from leukemia_data.records.sample_table import SampleTable, read_columns, stored_columns, write_columns

SHARD_FORMAT = "leukemia-cells shard"
# Releases without compressed shards reject them by this version.
_RAW_VERSION, _COMPRESSED_VERSION = 1, 2
# Large datasets are page-aligned, for maps and direct I/O.
_ALIGN_ABOVE_BYTES = 1 << 16
_PAGE_BYTES = 4096
_HEADER_BYTES = 16 << 10
_READ_BYTES = 1 << 20
# Smallest compressed size as a fraction of the pixels' bytes; the actual one is not known in advance.
_MIN_COMPRESSED_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class ShardImages:
    """Location of a shard's pixels: enough to map them, small enough to pickle.

    ``metadata_digest`` is the manifest's digest of the bytes around the pixels, or ``None``. ``chunks`` is ``None`` for
    raw pixels.
    """

    path: Path
    offset_bytes: int
    shape: tuple[int, int, int, int]
    metadata_digest: str | None = field(default=None, compare=False)
    chunks: ChunkTable | None = None

    @property
    def codec(self) -> str:
        """Name of the pixels' codec."""
        return RAW if self.chunks is None else self.chunks.codec

    @property
    def num_bytes(self) -> int:
        """Stored bytes of all images."""
        if self.chunks is not None:
            return self.chunks.num_bytes
        count, height, width, channels = self.shape
        return count * height * width * channels

    def map(self, *, whole_file: bool = False) -> NDArray[np.uint8]:
        """Return a read-only memory map of raw images, shape (n, S, S, 3), or of all bytes of the file.

        The bytes around the images are checked.

        Raises
        ------
        CacheError
            If the file is missing, truncated or another one, or the limit of open files is reached.
        """
        offset_bytes, shape = (0, None) if whole_file else (self.offset_bytes, self.shape)
        try:
            with self.path.open("rb", buffering=0) as file:
                if self.metadata_digest is not None and _digest_around(file, self) != self.metadata_digest:
                    raise CacheError(
                        f"{self.path} is damaged: its header or its rows are not those that were written; "
                        "`ldata verify --repair` repairs it"
                    )
                # As a plain array: slicing a memmap creates a memmap, which costs microseconds.
                return np.asarray(np.memmap(file, np.uint8, "r", offset_bytes, shape))
        except (OSError, ValueError) as error:
            is_limit = isinstance(error, OSError) and error.errno == errno.EMFILE
            cure = "; every shard is one open file: raise the limit, as with `ulimit -n 65536`" if is_limit else ""
            raise CacheError(f"{self.path} cannot be mapped: {error}{cure}") from error


def metadata_digest(images: ShardImages) -> str:
    """Return the XXH3-128 of a shard's bytes around its pixels, the HDF5 header and the rows; may raise OSError."""
    with images.path.open("rb", buffering=0) as file:
        return _digest_around(file, images)


def brought_up_to_date(directory: Path, manifest: Manifest) -> Manifest:
    """Return the manifest with the digests that an earlier version lacks, for every intact shard."""
    if manifest.is_up_to_date:
        return manifest
    shards = list(manifest.shards)
    for number, entry in enumerate(shards):
        with suppress(OSError):
            # A damaged shard must not get a digest that makes it look intact.
            if entry.metadata_digest is None and is_intact(directory, entry):
                around = metadata_digest(shard_images(directory, entry, manifest.size_px))
                shards[number] = replace(entry, metadata_digest=around)
    return replace(manifest, shards=tuple(shards))


def _digest_around(file: BinaryIO, images: ShardImages) -> str:
    """XXH3-128 of a file without the bytes of its images."""
    hasher = xxhash.xxh3_128()
    file_bytes, end_bytes = file.seek(0, os.SEEK_END), images.offset_bytes + images.num_bytes
    if end_bytes > file_bytes:
        raise OSError(errno.EIO, "the file is too short for its images")
    for start, left in ((0, images.offset_bytes), (end_bytes, file_bytes - end_bytes)):
        file.seek(start)
        while left and (block := file.read(min(left, _READ_BYTES))):
            hasher.update(block)
            left -= len(block)
    return hasher.hexdigest()


def write_shard(
    directory: Path, images_NSSC: NDArray[np.uint8], table: SampleTable, fingerprint: str, codec: str = RAW
) -> ShardEntry:
    """Write a shard, named by its content.

    The bytes depend on the arguments and the libraries' releases only. The caller flushes the file to disk.

    Parameters
    ----------
    images_NSSC : ndarray of shape (n, S, S, 3), uint8
    table
        Row i describes image i.
    fingerprint
        The cache's fingerprint, stored to recognise a shard in another cache's directory.
    """
    places: list[tuple[int, ChunkTable | None]] = []

    def fill(file: h5py.File) -> None:
        file.attrs["format"] = SHARD_FORMAT
        file.attrs["format_version"] = _RAW_VERSION if codec == RAW else _COMPRESSED_VERSION
        file.attrs["fingerprint"] = fingerprint
        if codec not in (RAW, ZSTD):
            file.attrs["codec"] = codec
        if codec == RAW:
            places.append((int(file.create_dataset("images", data=images_NSSC).id.get_offset() or 0), None))
        else:
            places.append(write_chunks(file, images_NSSC, codec_named(codec)))
        write_columns(file, table)

    data = hdf5_bytes(fill, **_file_layout(codec))
    digest = bytes_digest(data).hex()
    [(offset_bytes, chunks)] = places
    images = ShardImages(directory / shard_name(digest), offset_bytes, _four(images_NSSC.shape), chunks=chunks)
    around = _digest_around(io.BytesIO(data), images)
    where = () if chunks is None else (chunks.num_bytes, chunks.lengths_offset_bytes)
    entry = ShardEntry(images.path.name, len(table), len(data), digest, offset_bytes, around, *where)
    final = directory / entry.name
    # An equal file is not replaced: Windows cannot replace a mapped one.
    if not final.is_file() or file_digest(final) != digest:
        with scratch_path(directory, "shard") as scratch:
            scratch.write_bytes(data)
            move_into_place(scratch, final)
    return entry


def _file_layout(codec: str) -> dict[str, Any]:
    """HDF5 layout options. With free-space management, chunks would not be back to back."""
    if codec == RAW:
        return {"alignment_threshold": _ALIGN_ABOVE_BYTES, "alignment_interval": _PAGE_BYTES}
    return {"fs_strategy": "none"}


def shard_name(digest: str) -> str:
    """Return the file name of a shard with this digest."""
    return f"shard-{digest[:16]}.h5"


def shard_bytes(num_samples: int, size_px: int, row_bytes: int, codec: str = RAW) -> int:
    """Return an estimate of a shard's size: pixels, rows and page-aligned header. Compressed ones may take more."""
    image_bytes = size_px * size_px * 3
    stored_bytes = image_bytes if codec == RAW else int(image_bytes * _MIN_COMPRESSED_SHARE)
    return num_samples * (stored_bytes + row_bytes) + _HEADER_BYTES


def shard_images(directory: Path, entry: ShardEntry, size_px: int, codec: str = ZSTD) -> ShardImages:
    """Return the location of a shard's pixels from its manifest entry, without opening the file."""
    shape = (entry.num_samples, size_px, size_px, 3)
    chunks = None
    if entry.chunks_num_bytes is not None and entry.chunk_lengths_offset_bytes is not None:
        chunks = ChunkTable(entry.chunks_num_bytes, entry.chunk_lengths_offset_bytes, codec)
    return ShardImages(directory / entry.name, entry.images_offset_bytes, shape, entry.metadata_digest, chunks)


def open_images(path: Path) -> ShardImages:
    """Read the location of the pixels from a shard's header.

    Raises
    ------
    CacheError
        If the file is missing, not a shard of this format, or its images are not uint8 (n, S, S, 3), contiguous or in
        chunks of one image each.
    """
    with open_hdf5(path, "its images") as file:
        codec = _check_format(file, path)
        images = own_dataset(file, "images")
        if images.dtype != np.uint8 or images.ndim != 4:
            raise CacheError(f"{path}: holds no uint8 images (n, S, S, 3)")
        if codec == RAW:
            check_datasets(file, ["images"])
            return ShardImages(path, int(images.id.get_offset() or 0), _four(images.shape))
        offset_bytes, chunks = find_chunks(file, codec_named(codec))
        return ShardImages(path, offset_bytes, _four(images.shape), chunks=chunks)


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    count, height, width, channels = map(int, shape)
    return count, height, width, channels


def read_table(path: Path) -> SampleTable:
    """Read the sample table of a shard.

    Raises
    ------
    CacheError
        If the file is missing or not a shard of this format.
    """
    with open_hdf5(path, "its sample table") as file:
        _check_format(file, path)
        check_datasets(file, stored_columns(file))
        return read_columns(file)


def intact_table(images: ShardImages) -> SampleTable | None:
    """Return the rows of a shard if all bytes around its pixels are intact, else None."""
    try:
        if images.metadata_digest is None or metadata_digest(images) != images.metadata_digest:
            return None
        return read_table(images.path)
    except (OSError, CacheError):
        return None


def _check_format(file: h5py.File, path: Path) -> str:
    """Check kind and version, and return the name of the codec."""
    kind, version = file.attrs.get("format"), file.attrs.get("format_version")
    if kind == SHARD_FORMAT and version == _RAW_VERSION:
        return RAW
    if kind == SHARD_FORMAT and version == _COMPRESSED_VERSION:
        return str(file.attrs.get("codec", ZSTD))
    raise CacheError(
        f"{path}: expected {SHARD_FORMAT!r} version {_RAW_VERSION} or {_COMPRESSED_VERSION}, "
        f"found {kind!r} version {version}"
    )
