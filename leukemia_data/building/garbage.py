"""Garbage collection: find and remove what no manifest names, in a folder or a store."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.building.shard_task import KEPT_DAYS, RECEIPTS_DIR, pending_mark, spent_marks
from leukemia_data.caches.manifest import MANIFEST_NAME, find_manifest, parse_manifest
from leukemia_data.errors import CacheError
from leukemia_data.files.lock import LOCK_NAME, SOFT_LOCK_NAME, lock_cache
from leukemia_data.stores.faults import MissingObjectError
from leukemia_data.stores.url import Location, Url

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import ObjectStore, StoredObject

_CACHE_DIR = re.compile(r"\d+-[0-9a-f]{12}")
_CACHE_FILE = re.compile(
    r"(shard|index)-[0-9a-f]{16}\.h5|(shard|index|manifest\.json|plan-[0-9a-f]{16}\.json)\.[0-9a-f]{12}\.partial"
    # Left by a process that died while breaking a stale lock (see filelock's SoftFileLock).
    rf"|{re.escape(SOFT_LOCK_NAME)}\.(break|restore)\.\d+\.[0-9a-f]{{32}}"
)
_RECEIPT_FILE = re.compile(r"[0-9a-f]{32}\.json(\.[0-9a-f]{12}\.partial)?")


MAX_AGE_NS = 24 * 3600 * 10**9
"""Younger objects in a store may belong to a running build: stores have no locks."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Files of one cache that no manifest names."""

    location: Location
    files: tuple[Location, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class CollectReport:
    """Garbage found or removed, and what was skipped, with reasons."""

    garbage: tuple[Garbage, ...]
    skipped: tuple[str, ...]
    is_removed: bool

    @property
    def num_files(self) -> int:
        """Number of all files found."""
        return sum(len(item.files) for item in self.garbage)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files found."""
        return sum(item.num_bytes for item in self.garbage)

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return {
            "removed": self.is_removed,
            "num_bytes": self.num_bytes,
            "files": [str(file) for item in self.garbage for file in item.files],
            "skipped": list(self.skipped),
        }


def collect_garbage(location: Location, *, remove: bool, now_ns: int | None = None) -> CollectReport:
    """Find files that no manifest names in every cache at or below a location, and optionally remove them.

    Folders in use by a build or a job file, or with an unreadable manifest, are skipped. So are files that cannot be
    removed now (on Windows, those mapped by a reader), and objects in a store younger than a day.

    Parameters
    ----------
    location
        A cache, or a folder or address with caches up to two levels below it.
    remove
        False only reports.
    now_ns
        The time in ns since the epoch, for stores; None for now.

    Raises
    ------
    StorageError
        If the store cannot be read or denies the removal.
    """
    skipped: list[str] = []
    if isinstance(location, Path):
        garbage = tuple(_collect_in_folders(location, skipped, remove=remove))
    else:
        now_ns = time.time_ns() if now_ns is None else now_ns
        garbage = tuple(_collect_in_store(location, skipped, remove=remove, now_ns=now_ns))
    return CollectReport(garbage, tuple(skipped), remove)


def _collect_in_folders(root: Path, skipped: list[str], *, remove: bool) -> Iterator[Garbage]:
    for directory in _cache_like_dirs(root):
        try:
            # Before locking, which would leave a lock file beside a foreign manifest.
            find_manifest(directory)
            with lock_cache(directory, "gc"):
                _check_no_plan_waits(directory)
                files, num_bytes = _find(directory)
                if remove:
                    files, num_bytes = _remove(directory, files, skipped)
        except CacheError as error:
            skipped.append(str(error))
        else:
            if files:
                yield Garbage(directory, files, num_bytes)


def is_cache_dir_name(name: str) -> bool:
    """Whether a folder of this name may be a cache, perhaps without a manifest yet."""
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
    """Raise CacheError if a job file waits for its commit: its jobs write without a lock."""
    mark = pending_mark(directory)
    if mark is not None:
        raise CacheError(
            f"{directory} waits for `ldata commit` of a plan, at the most {KEPT_DAYS} days after its last job; "
            f"to give it up, remove {mark}"
        )


def _find(directory: Path) -> tuple[tuple[Path, ...], int]:
    """Files that the manifest does not name, and their bytes."""
    manifest = find_manifest(directory)
    named = set() if manifest is None else manifest.file_names()
    candidates = [
        *(path for path in directory.glob("*") if _CACHE_FILE.fullmatch(path.name)),
        *spent_marks(directory),
        *(path for path in (directory / RECEIPTS_DIR).glob("*") if _RECEIPT_FILE.fullmatch(path.name)),
    ]
    files = tuple(sorted(path for path in candidates if path.name not in named and path.is_file()))
    return files, sum(path.stat().st_size for path in files)


def _remove(directory: Path, files: Sequence[Path], skipped: list[str]) -> tuple[tuple[Path, ...], int]:
    """Remove files; return the removed ones and their bytes, and append the rest to `skipped`."""
    removed, num_bytes = [], 0
    for path in files:
        try:
            file_bytes = path.stat().st_size
            path.unlink()
        except OSError as error:
            skipped.append(f"{path} cannot be removed now: {error.strerror or error}")
        else:
            removed.append(path)
            num_bytes += file_bytes
    receipts = directory / RECEIPTS_DIR
    if receipts.is_dir() and not any(receipts.iterdir()):
        receipts.rmdir()
    return tuple(removed), num_bytes


def _collect_in_store(url: Url, skipped: list[str], *, remove: bool, now_ns: int) -> Iterator[Garbage]:
    # Imports fsspec.
    from leukemia_data.stores.object_store import open_store

    store = open_store(url)
    for folder, objects in _cache_folders(store).items():
        cache = store.below(folder) if folder else store
        old = {name: state for name, state in objects.items() if state.modified_ns < now_ns - MAX_AGE_NS}
        try:
            # Read after listing, so that it covers a commit made in between.
            named = _named(cache)
        except CacheError as error:
            skipped.append(str(error))
            continue
        found = {name: state for name, state in old.items() if _is_ours(name) and name not in named}
        if found:
            if remove:
                cache.delete(*found)
            num_bytes = sum(state.num_bytes for state in found.values())
            yield Garbage(cache.url, tuple(cache.url / name for name in sorted(found)), num_bytes)


def _cache_folders(store: ObjectStore) -> dict[str, dict[str, StoredObject]]:
    """Objects by cache-like folder: the address itself and up to two levels below it."""
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
