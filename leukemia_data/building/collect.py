"""Garbage collection: find and remove what no manifest names, in a folder or a store."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.building.shard_task import KEPT_DAYS, RECEIPTS_DIR, pending_mark, spent_marks
from leukemia_data.caches.manifest import MANIFEST_NAME, find_manifest, parse_manifest
from leukemia_data.errors import CacheError
from leukemia_data.files.lock import LOCK_NAME, SOFT_LOCK_NAME, lock_cache
from leukemia_data.stores.faults import MissingObjectError
from leukemia_data.stores.object_store import ObjectStore, StoredObject
from leukemia_data.stores.url import Url

_CACHE_DIR = re.compile(r"\d+-[0-9a-f]{12}")
_CACHE_FILE = re.compile(
    r"(shard|index)-[0-9a-f]{16}\.h5|(shard|index|manifest\.json|plan-[0-9a-f]{16}\.json)\.[0-9a-f]{12}\.partial"
    # What is left when a process dies while it takes over the lock of a dead one (see filelock's SoftFileLock).
    rf"|{re.escape(SOFT_LOCK_NAME)}\.(break|restore)\.\d+\.[0-9a-f]{{32}}"
)
_RECEIPT_FILE = re.compile(r"[0-9a-f]{32}\.json(\.[0-9a-f]{12}\.partial)?")


@dataclass(frozen=True, slots=True)
class Garbage:
    """Files of one cache directory that no manifest names."""

    directory: Path
    files: tuple[Path, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What was found or removed, and the directories that could not be looked at, with reasons."""

    garbage: tuple[Garbage, ...]
    skipped: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files found."""
        return sum(item.num_bytes for item in self.garbage)


def collect_garbage(root: Path, *, remove: bool) -> CollectReport:
    """Find the garbage of every cache directory at or below `root`, and remove it if told so.

    A directory that a build or a plan's jobs are writing to, or whose manifest cannot be read, is left alone. So is a
    file that cannot be removed now, as Windows keeps those that a reader has mapped: the next call gets it.
    """
    garbage: list[Garbage] = []
    skipped: list[str] = []
    for directory in _cache_like_dirs(root):
        try:
            # Before the lock, which would leave its file in the folder of a foreign manifest.
            find_manifest(directory)
            with lock_cache(directory, "gc"):
                _check_no_plan_waits(directory)
                found = _find(directory)
                if remove:
                    found = _remove(found, skipped)
        except CacheError as error:
            skipped.append(str(error))
        else:
            if found.files:
                garbage.append(found)
    return CollectReport(tuple(garbage), tuple(skipped))


def is_cache_dir_name(name: str) -> bool:
    """Whether a folder of this name may be a cache, whose manifest may not be there yet."""
    return _CACHE_DIR.fullmatch(name) is not None


def is_cache_file_name(name: str) -> bool:
    """Whether this project writes files of this name into a cache's folder."""
    return _CACHE_FILE.fullmatch(name) is not None


def is_receipt_name(name: str) -> bool:
    """Whether a file of this name is a receipt."""
    return _RECEIPT_FILE.fullmatch(name) is not None


def _cache_like_dirs(root: Path) -> Iterator[Path]:
    for path in [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]:
        if (path / MANIFEST_NAME).is_file() or (_CACHE_DIR.fullmatch(path.name) and (path / LOCK_NAME).is_file()):
            yield path


def _check_no_plan_waits(directory: Path) -> None:
    """Leave what the jobs of a plan have made, or are making without a lock, to its commit."""
    mark = pending_mark(directory)
    if mark is not None:
        raise CacheError(
            f"{directory} waits for `ldata commit` of a plan, at the most {KEPT_DAYS} days after its last job; "
            f"to give it up, remove {mark}"
        )


def _find(directory: Path) -> Garbage:
    manifest = find_manifest(directory)
    named = set() if manifest is None else manifest.file_names()
    candidates = [
        *(path for path in directory.glob("*") if _CACHE_FILE.fullmatch(path.name)),
        *spent_marks(directory),
        *(path for path in (directory / RECEIPTS_DIR).glob("*") if _RECEIPT_FILE.fullmatch(path.name)),
    ]
    files = tuple(sorted(path for path in candidates if path.name not in named and path.is_file()))
    return Garbage(directory, files, sum(path.stat().st_size for path in files))


def _remove(garbage: Garbage, skipped: list[str]) -> Garbage:
    """Remove what can be removed, and return that; tell `skipped` of the rest."""
    removed, num_bytes = [], 0
    for path in garbage.files:
        try:
            file_bytes = path.stat().st_size
            path.unlink()
        except OSError as error:
            skipped.append(f"{path} cannot be removed now: {error.strerror or error}")
        else:
            removed.append(path)
            num_bytes += file_bytes
    receipts = garbage.directory / RECEIPTS_DIR
    if receipts.is_dir() and not any(receipts.iterdir()):
        receipts.rmdir()
    return Garbage(garbage.directory, tuple(removed), num_bytes)


MAX_AGE_NS = 24 * 3600 * 10**9
"""What is younger may belong to a build that is at work."""


@dataclass(frozen=True, slots=True)
class StoredGarbage:
    """Objects of one cache that no manifest names."""

    url: Url
    names: tuple[str, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredCollectReport:
    """What was found or removed, and the caches that could not be looked at, with reasons."""

    garbage: tuple[StoredGarbage, ...]
    skipped: tuple[str, ...]


def collect_stored_garbage(store: ObjectStore, *, remove: bool, now_ns: int) -> StoredCollectReport:
    """Find the garbage of every cache at or below an address, and remove it if told so.

    Parameters
    ----------
    store
        The address.
    remove
        Whether to remove it.
    now_ns
        The clock, in nanoseconds since 1970.

    Raises
    ------
    StorageError
        If the store cannot be read or denies the removal.
    """
    garbage: list[StoredGarbage] = []
    skipped: list[str] = []
    for folder, objects in _cache_folders(store).items():
        cache = store.below(folder) if folder else store
        old = {name: state for name, state in objects.items() if state.modified_ns < now_ns - MAX_AGE_NS}
        try:
            # After the listing: what a commit of just now names is in it.
            named = _named(cache)
        except CacheError as error:
            skipped.append(str(error))
            continue
        found = {name: state for name, state in old.items() if _is_ours(name) and name not in named}
        if found:
            num_bytes = sum(state.num_bytes for state in found.values())
            garbage.append(StoredGarbage(cache.url, tuple(sorted(found)), num_bytes))
            if remove:
                cache.delete(*found)
    return StoredCollectReport(tuple(garbage), tuple(skipped))


def _cache_folders(store: ObjectStore) -> dict[str, dict[str, StoredObject]]:
    """Objects of each folder that is a cache or looks like one, the address itself and up to two levels below it."""
    folders: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    for path, state in store.iterate():
        parts = path.split("/")
        depth = len(parts) - (2 if len(parts) > 1 and parts[-2] == RECEIPTS_DIR else 1)
        folders["/".join(parts[:depth])]["/".join(parts[depth:])] = state
    return {
        folder: objects
        for folder, objects in folders.items()
        if folder.count("/") < 2
        and (MANIFEST_NAME in objects or is_cache_dir_name((store.url / folder).name if folder else store.url.name))
    }


def _named(cache: ObjectStore) -> set[str]:
    try:
        data = cache.read(MANIFEST_NAME)
    except MissingObjectError:
        return set()
    return parse_manifest(data.decode("utf-8", "replace"), cache.url / MANIFEST_NAME).file_names()


def _is_ours(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return is_receipt_name(file) if folder == RECEIPTS_DIR else not folder and is_cache_file_name(file)
