"""The manifest: the JSON file that makes a directory of shards a cache."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from leukemia_data.caches.codec import RAW, ZSTD
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import LOOKS_VERSION, file_digest, lines_digest, records_digest
from leukemia_data.records.record import Record
from leukemia_data.sources.reading import Reading, SubjectsFound
from leukemia_data.stores.url import Location

# Maximal ratio of a zstd frame: 128 KiB of one value take four bytes.
_MAX_ZSTD_RATIO = 1 << 15
CHUNK_LENGTH_BYTES = 4
MAX_BYTES = 1 << 62
# Safe file names on any system: no separators, drives, streams or devices.
_FILE_NAME = re.compile(r"(shard|index)-[0-9a-z]+\.h5")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard that belongs to the cache.

    ``images_offset_bytes`` is where its pixels start, so that they can be mapped without HDF5, which may hang or crash
    on a damaged header. ``metadata_digest`` is that of all bytes around the pixels, the header and the rows; ``None``
    in manifests of version 1.

    The images of a compressed shard are chunks back to back, ``chunks_num_bytes`` bytes in total; their lengths are in
    a column at ``chunk_lengths_offset_bytes``. Both are ``None`` for raw pixels.
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
    """An image that was left out, with the reason."""

    record_id: str
    reason: str


Entry = TypeVar("Entry", ShardEntry, IndexEntry)


def _parse_shard_entry(values: Mapping[str, Any], format_version: int, size_px: int, codec: str) -> ShardEntry:
    """Parse a shard's entry, and check that its pixels are within its file, so that mapping them is safe."""
    # Version 1 has no such key: a value under it is not trusted.
    is_first = format_version == 1
    entry = _checked_entry(ShardEntry(**{**values, "metadata_digest": None} if is_first else values))
    pixel_bytes = entry.num_samples * size_px**2 * 3
    chunk_bytes, lengths_offset = entry.chunks_num_bytes, entry.chunk_lengths_offset_bytes
    if codec == RAW and chunk_bytes is lengths_offset is None:
        ends = [entry.images_offset_bytes + pixel_bytes]
    elif codec != RAW and chunk_bytes is not None and lengths_offset is not None:
        ends = [entry.images_offset_bytes + chunk_bytes, lengths_offset + entry.num_samples * CHUNK_LENGTH_BYTES]
        if codec == ZSTD and pixel_bytes > chunk_bytes * _MAX_ZSTD_RATIO:
            raise ValueError(f"{entry.name}: {chunk_bytes} bytes cannot hold {pixel_bytes} pixel values")
    else:
        raise ValueError(f"{entry.name}: its chunks do not fit the codec {codec}")
    if max(ends) > entry.num_bytes:
        raise ValueError(f"{entry.name}: {entry.num_samples} images of {size_px} px have no room in it")
    return entry


def _checked_entry(entry: Entry) -> Entry:
    """Return the entry; raises ValueError if it points outside the cache's directory or has invalid numbers."""
    if not _FILE_NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no file of a cache, or leaves its directory")
    for field in fields(entry):
        value = getattr(entry, field.name)
        is_number = is_count(value) and value <= MAX_BYTES
        is_right = is_number if str(field.type).startswith("int") else isinstance(value, str)
        if not (is_right or (value is None and str(field.type).endswith("None"))):
            raise ValueError(f"{entry.name}: {field.name} is {value!r}")
    return entry


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a JSON value is a non-negative integer."""
    # bool is an int in Python.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "leukemia-cells cache"
MANIFEST_FORMAT_VERSION = 3
CAPACITY_BY_COUNT = 0
"""Shard capacity that follows from the number of images, ignoring an earlier --shard-size."""
_MAX_SIDE_PX = 1 << 15
_CURE = "`ldata build` with the images it was made from writes it anew"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Manifest:
    """Content of a cache's ``manifest.json``.

    Attributes
    ----------
    name
        Name of the source, given by the user.
    size_px, recipe, fingerprint
        Preprocessing of every image; the fingerprint has all 64 digits.
    classes
        Class names; a class's position is its label.
    shards, index, quarantined
        The files of the cache in sample order, the index of their samples, and the images left out.
    library_versions
        Releases of the libraries that made the pixels and the files.
    source_state
        Digest of the source's listing (:func:`source_state`); ``None`` if the next build must read it again.
    codec
        Name of the shards' codec; pixels and fingerprint do not depend on it.
    shard_capacity
        Maximal samples per shard as set by the user; ``None`` if it follows from their number.
    reading
        How the source was read (:meth:`leukemia_data.sources.reading.Reading.to_dict`); ``None`` in manifests of 0.1.
    looks_version
        Version of the looks in its rows (:data:`leukemia_data.records.fingerprint.LOOKS_VERSION`); 0 without looks.
    """

    name: str
    size_px: int
    fingerprint: str
    recipe: Recipe
    classes: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    index: IndexEntry
    quarantined: tuple[QuarantinedImage, ...]
    library_versions: Mapping[str, str]
    source_state: str | None
    codec: str = RAW
    shard_capacity: int | None = None
    reading: Mapping[str, Any] | None = None
    looks_version: int = 0

    def __repr__(self) -> str:
        what = f"name={self.name!r}, size_px={self.size_px}, images={self.num_samples}"
        return f"Manifest({what}, recipe={self.recipe.name!r})"

    @property
    def num_samples(self) -> int:
        """Number of images in the cache."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of shards and index."""
        return sum(entry.num_bytes for entry in self.entries)

    @property
    def compression_ratio(self) -> float:
        """Bytes of the pixels divided by the stored bytes; 1 for raw."""
        if self.codec == RAW or not self.shards:
            return 1.0
        pixel_bytes = self.num_samples * self.size_px**2 * 3
        return pixel_bytes / sum(shard.chunks_num_bytes or 0 for shard in self.shards)

    @property
    def understood(self) -> Reading | None:
        """How the source was read; ``None`` if unknown, or written by another release."""
        if self.reading is None:
            return None
        try:
            return Reading.from_dict(self.reading)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def subjects(self) -> SubjectsFound | None:
        """How the source's subjects were read; ``None`` if unknown."""
        reading = self.understood
        return None if reading is None else reading.subjects

    @property
    def is_up_to_date(self) -> bool:
        """Whether it has all values of the current format version."""
        return all(shard.metadata_digest is not None for shard in self.shards)

    @property
    def has_looks(self) -> bool:
        """Whether near-identical images can be found by the looks in the cache's rows."""
        return self.looks_version == LOOKS_VERSION

    def is_current(self, state: str) -> bool:
        """Return whether a build from a source in this state (:func:`source_state`) would change nothing.

        Quarantined images (tried again by every build), a manifest of an earlier version and missing looks count as
        changes.
        """
        return self.source_state == state and not self.quarantined and self.is_up_to_date and self.has_looks

    def is_cut_as(self, wanted_capacity: int | None) -> bool:
        """Return whether the shards suit the wanted capacity; None suits always."""
        return wanted_capacity is None or (self.shard_capacity or CAPACITY_BY_COUNT) == wanted_capacity

    @property
    def entries(self) -> list[ShardEntry | IndexEntry]:
        """The shards and the index."""
        return [*self.shards, self.index]

    def file_names(self) -> set[str]:
        """Return the names of all files of the cache, including the manifest."""
        return {MANIFEST_NAME, *(entry.name for entry in self.entries)}


def cache_summary(location: Location, manifest: Manifest) -> dict[str, object]:
    """Return location, size, fingerprint, counts, bytes and codec as JSON values."""
    return {
        "directory": str(location),
        "size_px": manifest.size_px,
        "fingerprint": manifest.fingerprint,
        "num_samples": manifest.num_samples,
        "num_shards": len(manifest.shards),
        "num_bytes": manifest.num_bytes,
        "codec": manifest.codec,
        "compression_ratio": round(manifest.compression_ratio, 3),
    }


def cache_dir_name(size_px: int, fingerprint: str) -> str:
    """Directory name of a cache below its name: ``<size>-<first 12 digits of the fingerprint>``."""
    return f"{size_px}-{fingerprint[:12]}"


def source_state(classes: Iterable[str], records: Iterable[Record], reading: Mapping[str, Any] | None = None) -> str:
    """Return the digest of a source's listing: each record's metadata and file state, ordered by id.

    Equal states mean that no image was added, removed, touched, replaced or relabelled, and that the options of
    `reading` are equal; paths do not count.
    """
    options = {} if reading is None else reading["options"]
    purpose = json.dumps([list(classes), options] if options else list(classes), sort_keys=True)
    # Usually sorted already, which makes sorting cheap.
    return records_digest(sorted(records, key=attrgetter("record_id")), purpose)


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit a cache: replace the manifest in `directory` atomically and durably."""
    write_text(directory / MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """Return the text of a manifest's file; equal manifests give equal texts."""
    content = {
        "format": MANIFEST_FORMAT,
        "format_version": MANIFEST_FORMAT_VERSION,
        "name": manifest.name,
        "size_px": manifest.size_px,
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe.to_dict(),
        "codec": manifest.codec,
        "shard_capacity": manifest.shard_capacity,
        "classes": list(manifest.classes),
        "num_samples": manifest.num_samples,
        "num_quarantined": len(manifest.quarantined),
        # Raw shards have no values for chunks.
        "shards": [
            {name: value for name, value in asdict(shard).items() if value is not None or name == "metadata_digest"}
            for shard in manifest.shards
        ],
        "index": asdict(manifest.index),
        "quarantined": [asdict(image) for image in manifest.quarantined],
        "library_versions": dict(manifest.library_versions),
        "source_state": manifest.source_state,
        "reading": None if manifest.reading is None else dict(manifest.reading),
    }
    if manifest.looks_version:
        content["looks_version"] = manifest.looks_version
    return _as_text({**content, "digest": _content_digest(content)})


def _as_text(content: Mapping[str, Any]) -> str:
    # ASCII, because file names that are invalid UTF-8 cannot be written otherwise.
    return json.dumps(content, indent=1) + "\n"


def load_manifest(directory: Path) -> Manifest:
    """Read the manifest of the cache in `directory`.

    Raises
    ------
    CacheError
        If it is missing (no cache, or an unfinished build), damaged, or of another format version.
    """
    return parse_manifest(manifest_bytes(directory), directory / MANIFEST_NAME)


def parse_manifest(text: str | bytes, where: object) -> Manifest:
    """Parse a manifest's text; `where` is its path or address, for messages.

    Raises
    ------
    CacheError
        If it is damaged, not a manifest, or of another format version.
    """
    content = _parse_content(text, where)
    try:
        manifest = _parse(content)
        is_intact = content.get("digest") == _content_digest(content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise CacheError(f"{where}: {error}") from error
        raise CacheError(f"{where} is damaged: {type(error).__name__} {error}; {_CURE}") from error
    if not is_intact:
        raise CacheError(f"{where} is damaged: its digest does not belong to its content; {_CURE}")
    return manifest


def manifest_bytes(directory: Path) -> bytes:
    """Return the bytes of the manifest in `directory`; raises CacheError if they cannot be read."""
    path = directory / MANIFEST_NAME
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(f"{directory} holds no {MANIFEST_NAME}: no cache, or a build that has not finished") from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error}; {_CURE}") from error


def _parse_content(text: str | bytes, where: object) -> dict[str, Any]:
    try:
        content = parse_json(text.decode() if isinstance(text, bytes) else text)
    except ValueError as error:
        raise CacheError(f"{where} cannot be read: {error}; {_CURE}") from error
    if not isinstance(content, dict) or content.get("format") != MANIFEST_FORMAT:
        raise CacheError(f"{where} is no manifest of a leukemia-cells cache")
    version = content.get("format_version")
    if not is_count(version) or not 1 <= version <= MANIFEST_FORMAT_VERSION:
        raise CacheError(
            f"{where} has format version {version!r}, this installation reads versions 1 to {MANIFEST_FORMAT_VERSION}: "
            "build the cache anew"
        )
    return content


def is_as_written(directory: Path) -> bool:
    """Return whether a readable manifest has exactly the bytes that :func:`save_manifest` writes."""
    data = manifest_bytes(directory)
    return data == _as_text(_parse_content(data, directory / MANIFEST_NAME)).encode()


def find_manifest(directory: Path) -> Manifest | None:
    """Read the manifest in `directory`, or return ``None`` if there is none."""
    return load_manifest(directory) if (directory / MANIFEST_NAME).exists() else None


def manifest_digest(directory: Path) -> str | None:
    """Return the digest of the manifest's bytes, or None without a manifest."""
    try:
        return file_digest(directory / MANIFEST_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_current(directory: Path, state: str) -> Manifest | None:
    """Return the manifest if the cache is complete and current, see :meth:`Manifest.is_current`; else None."""
    try:
        manifest = find_manifest(directory)
    except CacheError:
        return None
    if manifest is None or not manifest.is_current(state) or missing_files(directory, manifest):
        return None
    return manifest


def missing_files(directory: Path, manifest: Manifest) -> list[str]:
    """Return the names of files that are missing or differ in size from the manifest."""
    # Text, because creating a Path takes longer than a stat.
    start = os.path.join(directory, "")  # noqa: PTH118
    return [entry.name for entry in manifest.entries if not _has_size(start + entry.name, entry.num_bytes)]


def is_whole(directory: Path, entry: ShardEntry | IndexEntry) -> bool:
    """Return whether a file of the cache exists with the manifest's size."""
    return _has_size(str(directory / entry.name), entry.num_bytes)


def is_intact(directory: Path, entry: ShardEntry | IndexEntry) -> bool:
    """Return whether a file of the cache exists with the manifest's digest; reads it."""
    try:
        return is_whole(directory, entry) and file_digest(directory / entry.name) == entry.digest
    except FileNotFoundError:
        return False


def _has_size(location: str, num_bytes: int) -> bool:
    try:
        return os.stat(location).st_size == num_bytes  # noqa: PTH116
    except OSError:
        return False


def _content_digest(content: Mapping[str, Any]) -> str:
    """Digest of the content: the only check that detects a flipped bit in, say, a class name."""
    return lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])


def _parse(content: Mapping[str, Any]) -> Manifest:
    size_px = content["size_px"]
    if not (is_count(size_px) and 1 <= size_px <= _MAX_SIDE_PX):
        raise ValueError(f"size_px is {size_px!r}")
    texts = [content["name"], content["fingerprint"], *content["classes"], *dict(content["library_versions"]).values()]
    texts += [text for image in content["quarantined"] for text in image.values()]
    if not all(isinstance(text, str) for text in texts) or not isinstance(content["classes"], list):
        raise ValueError("a name, class, release or reason is no text")
    version, layout = content["format_version"], _layout(content)
    reading, looks_version = content.get("reading"), content.get("looks_version", 0)
    if reading is not None and not (isinstance(reading, dict) and isinstance(reading.get("options"), dict)):
        raise ValueError("the reading is none")
    if not is_count(looks_version):
        raise ValueError(f"looks_version is {looks_version!r}")
    manifest = Manifest(
        name=content["name"],
        size_px=size_px,
        fingerprint=content["fingerprint"],
        recipe=Recipe.from_dict(content["recipe"]),
        classes=tuple(content["classes"]),
        shards=tuple(_parse_shard_entry(entry, version, size_px, layout["codec"]) for entry in content["shards"]),
        index=_checked_entry(IndexEntry(**content["index"])),
        quarantined=tuple(QuarantinedImage(**entry) for entry in content["quarantined"]),
        library_versions=dict(content["library_versions"]),
        source_state=content["source_state"],
        reading=reading,
        looks_version=looks_version,
        **layout,
    )
    if manifest.num_bytes > MAX_BYTES:
        raise ValueError(f"the files would have {manifest.num_bytes} bytes")
    return manifest


def _layout(content: Mapping[str, Any]) -> dict[str, Any]:
    """Codec and shard capacity; versions 1 and 2 have one layout only."""
    if content["format_version"] < 3:
        return {"codec": RAW}
    codec, capacity = content["codec"], content["shard_capacity"]
    if not isinstance(codec, str):
        raise ValueError(f"the codec is {codec!r}")
    if capacity is not None and not (is_count(capacity) and 1 <= capacity <= MAX_BYTES):
        raise ValueError(f"shard_capacity is {capacity!r}")
    return {"codec": codec, "shard_capacity": capacity}
