"""What a manifest says of the single files of a cache, and how the pixels are stored in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeGuard, TypeVar

RAW, ZSTD = "raw", "zstd"
CODECS = (RAW, ZSTD)
"""How the pixels of a shard are stored: as they lie in memory, or each image as one compressed chunk."""
ZSTD_LEVEL = 3
# No frame of zstd holds more pixel values a byte: 128 KiB of one value take four.
_MOST_ZSTD_RATIO = 1 << 15
CHUNK_LENGTH_BYTES = 4
MOST_BYTES = 1 << 62
# Not one of them can lie elsewhere, on any system: no separators, drives, streams or devices.
_FILE_NAME = re.compile(r"(shard|index)-[0-9a-z]+\.h5")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard that belongs to the cache.

    ``images_offset_bytes`` is where its pixels start: whoever knows it can map them without opening the file by HDF5,
    which a damaged header can make hang or crash. ``metadata_digest`` is that of all bytes before and behind the
    pixels, the header and the rows; ``None`` where a manifest of version 1 does not tell.

    The images of a compressed shard lie back to back as chunks, ``chunks_num_bytes`` bytes together, and the length of
    each stands in a column that starts at ``chunk_lengths_offset_bytes``. Both are ``None`` for raw pixels.
    """

    name: str
    num_samples: int
    num_bytes: int
    digest: str
    images_offset_bytes: int
    metadata_digest: str | None
    chunks_num_bytes: int | None = None
    chunk_lengths_offset_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """The index file that belongs to the cache."""

    name: str
    num_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class QuarantinedImage:
    """An image that was left out, and why."""

    record_id: str
    reason: str


Entry = TypeVar("Entry", ShardEntry, IndexEntry)


def shard_values(entry: ShardEntry) -> dict[str, Any]:
    """An entry as JSON values; those of raw shards do not speak of chunks."""
    return {name: value for name, value in asdict(entry).items() if value is not None or name == "metadata_digest"}


def parse_shard_entry(values: Mapping[str, Any], *, format_version: int, size_px: int, codec: str) -> ShardEntry:
    """A shard's entry, whose pixels lie within its file: whoever maps or allocates them relies on that.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    # A value of version 1 that stands under the later key all the same is not to be trusted.
    is_first = format_version == 1
    entry = checked_entry(ShardEntry(**{**values, "metadata_digest": None} if is_first else values))
    pixel_bytes = entry.num_samples * size_px**2 * 3
    chunk_bytes, lengths_offset = entry.chunks_num_bytes, entry.chunk_lengths_offset_bytes
    if codec == RAW and chunk_bytes is lengths_offset is None:
        ends = [entry.images_offset_bytes + pixel_bytes]
    elif codec == ZSTD and chunk_bytes is not None and lengths_offset is not None:
        ends = [entry.images_offset_bytes + chunk_bytes, lengths_offset + entry.num_samples * CHUNK_LENGTH_BYTES]
        if pixel_bytes > chunk_bytes * _MOST_ZSTD_RATIO:
            raise ValueError(f"{entry.name}: {chunk_bytes} bytes cannot hold {pixel_bytes} pixel values")
    else:
        raise ValueError(f"{entry.name}: its chunks do not fit the codec {codec}")
    if max(ends) > entry.num_bytes:
        raise ValueError(f"{entry.name}: {entry.num_samples} images of {size_px} px have no room in it")
    return entry


def checked_entry(entry: Entry) -> Entry:
    """The entry itself; ValueError if it points outside the cache's directory or carries no usable numbers."""
    if not _FILE_NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no file of a cache, or leaves its directory")
    for field in fields(entry):
        value = getattr(entry, field.name)
        is_number = is_count(value) and value <= MOST_BYTES
        is_right = is_number if str(field.type).startswith("int") else isinstance(value, str)
        if not (is_right or (value is None and str(field.type).endswith("None"))):
            raise ValueError(f"{entry.name}: {field.name} is {value!r}")
    return entry


def is_count(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 on."""
    # JSON's true is a number to Python.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
