"""The manifest: the JSON file that makes a directory of shards a cache.

It is written last, by atomic replacement, and names every file that belongs to the cache with its size and digest.
No manifest, no cache. Reading it needs neither NumPy nor HDF5, so that a build with nothing to do ends at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from leukemia_data.errors import CacheError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.fingerprint import lines_digest
from leukemia_data.samples.record import Record, listing_line

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "leukemia-cells cache"
MANIFEST_FORMAT_VERSION = 1
FINGERPRINT_IN_NAME = 12


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard that belongs to the cache.

    ``images_offset_bytes`` is where its pixels start: whoever knows it can map them without opening the file by HDF5,
    which a damaged header can make hang or crash.
    """

    name: str
    num_samples: int
    num_bytes: int
    digest: str
    images_offset_bytes: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
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

    @property
    def num_samples(self) -> int:
        """Images in the cache."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of shards and index."""
        return sum(shard.num_bytes for shard in self.shards) + self.index.num_bytes

    def file_names(self) -> set[str]:
        """Names of all files the cache consists of, the manifest's own included."""
        return {MANIFEST_NAME, self.index.name, *(shard.name for shard in self.shards)}


def cache_dir_name(size_px: int, fingerprint: str) -> str:
    """Directory name of a cache below its name: ``<size>-<first digits of the fingerprint>``."""
    return f"{size_px}-{fingerprint[:FINGERPRINT_IN_NAME]}"


def source_state(classes: Iterable[str], records: Iterable[Record]) -> str:
    """Digest of a source's listing: every record's metadata, size and modification time, in the order of ids.

    Equal states mean that no image was added, removed, touched or given another label; paths do not count.
    """
    return lines_digest([json.dumps(list(classes)), *sorted(map(listing_line, records))])


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit a cache: replace the manifest in `directory` atomically and durably."""
    content = {
        "format": MANIFEST_FORMAT,
        "format_version": MANIFEST_FORMAT_VERSION,
        "name": manifest.name,
        "size_px": manifest.size_px,
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe.to_dict(),
        "classes": list(manifest.classes),
        "num_samples": manifest.num_samples,
        "num_quarantined": len(manifest.quarantined),
        "shards": [asdict(shard) for shard in manifest.shards],
        "index": asdict(manifest.index),
        "quarantined": [asdict(image) for image in manifest.quarantined],
        "library_versions": dict(manifest.library_versions),
        "source_state": manifest.source_state,
    }
    content["digest"] = _content_digest(content)
    # ASCII, because file names that are no valid UTF-8 cannot be written otherwise.
    write_text(directory / MANIFEST_NAME, json.dumps(content, indent=1) + "\n")


def load_manifest(directory: Path) -> Manifest:
    """Read the manifest of the cache in `directory`.

    Raises
    ------
    CacheError
        If there is none (no cache, or a build that has not finished), it is damaged, or of another format version.
    """
    path = directory / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(f"{directory} holds no {MANIFEST_NAME}: no cache, or a build that has not finished") from None
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != MANIFEST_FORMAT:
        raise CacheError(f"{path} is no manifest of a leukemia-cells cache")
    if content.get("format_version") != MANIFEST_FORMAT_VERSION:
        raise CacheError(
            f"{path} has format version {content.get('format_version')!r}, this installation reads version "
            f"{MANIFEST_FORMAT_VERSION}: build the cache anew"
        )
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise CacheError(f"{path}: {error}") from error
        raise CacheError(f"{path} is damaged: {type(error).__name__} {error}") from error
    if content.get("digest") != _content_digest(content):
        raise CacheError(f"{path} is damaged: its digest does not belong to its content")
    return manifest


def find_manifest(directory: Path) -> Manifest | None:
    """Read the manifest in `directory`, or return ``None`` where there is none."""
    return load_manifest(directory) if (directory / MANIFEST_NAME).exists() else None


def find_current(directory: Path, state: str) -> Manifest | None:
    """The manifest in `directory` if its cache is whole and was made from a source in exactly this state.

    Quarantined images count as a change: they are tried again at every build.
    """
    try:
        manifest = find_manifest(directory)
    except CacheError:
        return None
    if manifest is None or manifest.source_state != state or manifest.quarantined:
        return None
    return None if missing_files(directory, manifest) else manifest


def missing_files(directory: Path, manifest: Manifest) -> list[str]:
    """Names of the cache's files that are absent or have another size than the manifest says."""
    entries: list[ShardEntry | IndexEntry] = [*manifest.shards, manifest.index]
    return [entry.name for entry in entries if not is_whole(directory, entry)]


def is_whole(directory: Path, entry: ShardEntry | IndexEntry) -> bool:
    """Whether a file of the cache is there with the size that the manifest says."""
    try:
        return (directory / entry.name).stat().st_size == entry.num_bytes
    except OSError:
        return False


def _content_digest(content: Mapping[str, Any]) -> str:
    """Digest of a manifest's content: a flipped bit in a class's name would show nowhere else."""
    return lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])


def _parse(content: Mapping[str, Any]) -> Manifest:
    return Manifest(
        name=str(content["name"]),
        size_px=int(content["size_px"]),
        fingerprint=str(content["fingerprint"]),
        recipe=Recipe.from_dict(content["recipe"]),
        classes=tuple(str(name) for name in content["classes"]),
        shards=tuple(_checked(ShardEntry(**entry)) for entry in content["shards"]),
        index=_checked(IndexEntry(**content["index"])),
        quarantined=tuple(QuarantinedImage(**entry) for entry in content["quarantined"]),
        library_versions=dict(content["library_versions"]),
        source_state=content["source_state"],
    )


Entry = TypeVar("Entry", ShardEntry, IndexEntry)


def _checked(entry: Entry) -> Entry:
    """Refuse entries that point outside the cache's directory or carry no usable numbers."""
    if Path(entry.name).name != entry.name or entry.name in ("", ".", "..") or "\\" in entry.name:
        raise ValueError(f"file name {entry.name!r} leaves the cache's directory")
    for field in fields(entry):
        value = getattr(entry, field.name)
        if field.type == "int" and not (isinstance(value, int) and value >= 0):
            raise ValueError(f"{entry.name}: {field.name} is {value!r}")
    return entry
