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

# No frame of zstd holds more pixel values a byte: 128 KiB of one value take four.
_MAX_ZSTD_RATIO = 1 << 15
CHUNK_LENGTH_BYTES = 4
MAX_BYTES = 1 << 62
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
    elif codec != RAW and chunk_bytes is not None and lengths_offset is not None:
        ends = [entry.images_offset_bytes + chunk_bytes, lengths_offset + entry.num_samples * CHUNK_LENGTH_BYTES]
        if codec == ZSTD and pixel_bytes > chunk_bytes * _MAX_ZSTD_RATIO:
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
        is_number = is_count(value) and value <= MAX_BYTES
        is_right = is_number if str(field.type).startswith("int") else isinstance(value, str)
        if not (is_right or (value is None and str(field.type).endswith("None"))):
            raise ValueError(f"{entry.name}: {field.name} is {value!r}")
    return entry


def is_count(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 on."""
    # JSON's true is a number to Python.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "leukemia-cells cache"
MANIFEST_FORMAT_VERSION = 3
CAPACITY_BY_COUNT = 0
"""Where a shard capacity is asked for: let the number of images decide, whatever an earlier build decided."""
FINGERPRINT_IN_NAME = 12
_MAX_SIDE_PX = 1 << 15
_CURE = "`ldata build` with the images it was made from writes it anew"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Manifest:
    """What a cache is, as its ``manifest.json`` says.

    Attributes
    ----------
    name
        Which source the cache was made from, in the user's words.
    size_px, recipe, fingerprint
        What was done to every image; the fingerprint is the full 64 digits.
    classes
        Class names; a class's position is its label.
    shards, index, quarantined
        The files of the cache in sample order, the index of their samples, and the images left out.
    library_versions
        Releases of the libraries that made the pixels and the files.
    source_state
        Digest of the source's listing (:func:`source_state`); ``None`` where it must be read again next time.
    codec
        Name of the codec that the shards are stored by; the pixels, and so the fingerprint, do not depend on it.
    shard_capacity
        Maximum number of samples of a shard, where the user decided it; ``None`` where it follows from their number.
    reading
        How the source was understood, as :meth:`leukemia_data.sources.reading.Reading.to_dict` tells it; ``None`` in
        manifests of version 0.1.
    looks_version
        Of the way the looks in its rows were computed (:data:`leukemia_data.records.fingerprint.LOOKS_VERSION`); 0 in
        manifests of releases that kept none.
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
        """Images in the cache."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of shards and index."""
        return sum(shard.num_bytes for shard in self.shards) + self.index.num_bytes

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all images' pixels."""
        return self.num_samples * self.size_px * self.size_px * 3

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the images are stored than their pixels are; 1 for raw ones."""
        if self.codec == RAW or not self.shards:
            return 1.0
        return self.pixel_bytes / sum(shard.chunks_num_bytes or 0 for shard in self.shards)

    @property
    def understood(self) -> Reading | None:
        """How the source was understood; ``None`` where the manifest does not tell, or that of another release."""
        if self.reading is None:
            return None
        try:
            return Reading.from_dict(self.reading)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def subjects(self) -> SubjectsFound | None:
        """How the source's subjects were read; ``None`` where that is not known."""
        reading = self.understood
        return None if reading is None else reading.subjects

    @property
    def is_up_to_date(self) -> bool:
        """Whether it tells all that the present format version does."""
        return all(shard.metadata_digest is not None for shard in self.shards)

    @property
    def has_looks(self) -> bool:
        """Whether near-identical images can be found by the looks in the cache's rows."""
        return self.looks_version == LOOKS_VERSION

    def is_current(self, state: str) -> bool:
        """Whether a build from a source in exactly this state (:func:`source_state`) has nothing to change.

        Quarantined images count as a change, they are tried again at every build; and so does a manifest of an earlier
        version, which a build brings up to date, and a cache without looks, which a build makes anew.
        """
        return self.source_state == state and not self.quarantined and self.is_up_to_date and self.has_looks

    def is_cut_as(self, wanted_capacity: int | None) -> bool:
        """Whether a build that asks for this capacity leaves the shards as they are; None asks for nothing."""
        return wanted_capacity is None or (self.shard_capacity or CAPACITY_BY_COUNT) == wanted_capacity

    def file_names(self) -> set[str]:
        """Names of all files the cache consists of, the manifest's own included."""
        return {MANIFEST_NAME, self.index.name, *(shard.name for shard in self.shards)}


def cache_summary(location: Location, manifest: Manifest) -> dict[str, object]:
    """Return what JSON output tells of a cache: where it lies, its size, fingerprint, counts, bytes and codec."""
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
    """Directory name of a cache below its name: ``<size>-<first digits of the fingerprint>``."""
    return f"{size_px}-{fingerprint[:FINGERPRINT_IN_NAME]}"


def source_state(classes: Iterable[str], records: Iterable[Record], reading: Mapping[str, Any] | None = None) -> str:
    """Digest of a source's listing: every record's metadata and its file's state, in the order of ids.

    Equal states mean that no image was added, removed, touched, replaced or given another label, and that the user
    said the same of their meaning (the options of `reading`); paths do not count.
    """
    options = {} if reading is None else reading["options"]
    purpose = json.dumps([list(classes), options] if options else list(classes), sort_keys=True)
    # In order already, as a rule, which sorting makes use of.
    return records_digest(sorted(records, key=attrgetter("record_id")), purpose)


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit a cache: replace the manifest in `directory` atomically and durably."""
    write_text(directory / MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """The text of a manifest's file; the same for equal manifests."""
    # ASCII, because file names that are no valid UTF-8 cannot be written otherwise.
    return _as_text(_content(manifest))


def _content(manifest: Manifest) -> dict[str, Any]:
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
        "shards": [shard_values(shard) for shard in manifest.shards],
        "index": asdict(manifest.index),
        "quarantined": [asdict(image) for image in manifest.quarantined],
        "library_versions": dict(manifest.library_versions),
        "source_state": manifest.source_state,
        "reading": None if manifest.reading is None else dict(manifest.reading),
    }
    if manifest.looks_version:
        content["looks_version"] = manifest.looks_version
    return {**content, "digest": _content_digest(content)}


def _as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def load_manifest(directory: Path) -> Manifest:
    """Read the manifest of the cache in `directory`.

    Raises
    ------
    CacheError
        If there is none (no cache, or a build that has not finished), it is damaged, or of another format version.
    """
    return parse_manifest(_read_text(directory), directory / MANIFEST_NAME)


def parse_manifest(text: str, where: object) -> Manifest:
    """Read a manifest's text.

    Parameters
    ----------
    text
        What :func:`save_manifest` wrote.
    where
        Path or address that it was read from, for messages.

    Raises
    ------
    CacheError
        If it is damaged, none, or of another format version.
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


def _read_text(directory: Path) -> str:
    path = directory / MANIFEST_NAME
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(f"{directory} holds no {MANIFEST_NAME}: no cache, or a build that has not finished") from None
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read: {error}; {_CURE}") from error


def _parse_content(text: str, where: object) -> dict[str, Any]:
    try:
        content = parse_json(text)
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
    """Whether a readable manifest has the very bytes of :func:`save_manifest`, not others that mean the same."""
    content = _parse_content(_read_text(directory), directory / MANIFEST_NAME)
    return (directory / MANIFEST_NAME).read_bytes() == _as_text(content).encode()


def find_manifest(directory: Path) -> Manifest | None:
    """Read the manifest in `directory`, or return ``None`` where there is none."""
    return load_manifest(directory) if (directory / MANIFEST_NAME).exists() else None


def manifest_digest(directory: Path) -> str | None:
    """Digest of the manifest's bytes, which each commit of other content changes; None where there is none."""
    try:
        return file_digest(directory / MANIFEST_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_current(directory: Path, state: str) -> Manifest | None:
    """The manifest in `directory` if its cache is whole and current, see :meth:`Manifest.is_current`."""
    try:
        manifest = find_manifest(directory)
    except CacheError:
        return None
    if manifest is None or not manifest.is_current(state) or missing_files(directory, manifest):
        return None
    return manifest


def missing_files(directory: Path, manifest: Manifest) -> list[str]:
    """Names of the cache's files that are absent or have another size than the manifest says."""
    entries: list[ShardEntry | IndexEntry] = [*manifest.shards, manifest.index]
    # Text, because making a Path takes longer than asking for a file's size.
    start = os.path.join(directory, "")  # noqa: PTH118
    return [entry.name for entry in entries if not _has_size(start + entry.name, entry.num_bytes)]


def is_whole(directory: Path, entry: ShardEntry | IndexEntry) -> bool:
    """Whether a file of the cache is there with the size that the manifest says."""
    return _has_size(str(directory / entry.name), entry.num_bytes)


def _has_size(location: str, num_bytes: int) -> bool:
    try:
        return os.stat(location).st_size == num_bytes  # noqa: PTH116
    except OSError:
        return False


def _content_digest(content: Mapping[str, Any]) -> str:
    """Digest of a manifest's content: a flipped bit in a class's name would show nowhere else."""
    return lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])


def _parse(content: Mapping[str, Any]) -> Manifest:
    size_px = content["size_px"]
    if not (is_count(size_px) and 1 <= size_px <= _MAX_SIDE_PX):
        raise ValueError(f"size_px is {size_px!r}")
    texts = [content["name"], content["fingerprint"], *content["classes"], *dict(content["library_versions"]).values()]
    texts += [text for image in content["quarantined"] for text in image.values()]
    if not all(isinstance(text, str) for text in texts) or not isinstance(content["classes"], list):
        raise ValueError("a name, class, release or reason is no text")
    layout = _layout(content)
    manifest = Manifest(
        name=content["name"],
        size_px=size_px,
        fingerprint=content["fingerprint"],
        recipe=Recipe.from_dict(content["recipe"]),
        classes=tuple(content["classes"]),
        shards=tuple(
            parse_shard_entry(
                entry, format_version=content["format_version"], size_px=size_px, codec=layout.get("codec", RAW)
            )
            for entry in content["shards"]
        ),
        index=checked_entry(IndexEntry(**content["index"])),
        quarantined=tuple(QuarantinedImage(**entry) for entry in content["quarantined"]),
        library_versions=dict(content["library_versions"]),
        source_state=content["source_state"],
        reading=_reading(content.get("reading")),
        looks_version=_looks_version(content.get("looks_version", 0)),
        **layout,
    )
    if manifest.num_bytes > MAX_BYTES:
        raise ValueError(f"the files would have {manifest.num_bytes} bytes")
    return manifest


def _reading(value: object) -> Mapping[str, Any] | None:
    """How the source was understood; manifests of version 0.1 do not tell."""
    if value is not None and not (isinstance(value, dict) and isinstance(value.get("options"), dict)):
        raise ValueError("the reading is none")
    return value


def _looks_version(value: object) -> int:
    """Absent from manifests of releases that kept no looks."""
    if not is_count(value):
        raise ValueError(f"looks_version is {value!r}")
    return value


def _layout(content: Mapping[str, Any]) -> dict[str, Any]:
    """How the shards are laid out; versions 1 and 2 knew one layout only."""
    if content["format_version"] < 3:
        return {}
    codec, capacity = content["codec"], content["shard_capacity"]
    if not isinstance(codec, str):
        raise ValueError(f"the codec is {codec!r}")
    if capacity is not None and not (is_count(capacity) and 1 <= capacity <= MAX_BYTES):
        raise ValueError(f"shard_capacity is {capacity!r}")
    return {"codec": codec, "shard_capacity": capacity}
