"""Garbage collection: find and remove files that no manifest names, and the marks that protect shards of job files.

The jobs of a batch system write shards without holding a lock. While a job file is not committed, a mark in each of its
caches, renewed by every job, keeps garbage collection away.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.building.shard_task import RECEIPTS_DIR
from leukemia_data.caches.manifest import MANIFEST_NAME, find_manifest, parse_manifest
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import move_into_place, remove_file, scratch_path
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
                files = _find(directory)
                if remove:
                    files = _remove(directory, files, skipped)
        except CacheError as error:
            skipped.append(str(error))
        else:
            if files:
                yield Garbage(directory, tuple(files), sum(files.values()))


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


def _find(directory: Path) -> dict[Path, int]:
    """Bytes of each file that the manifest does not name."""
    manifest = find_manifest(directory)
    named = set() if manifest is None else manifest.file_names()
    candidates = [
        *(path for path in directory.glob("*") if _CACHE_FILE.fullmatch(path.name)),
        *(path for path in _marks(directory) if _is_over(path)),
        *(path for path in (directory / RECEIPTS_DIR).glob("*") if _RECEIPT_FILE.fullmatch(path.name)),
    ]
    return {path: path.stat().st_size for path in sorted(candidates) if path.name not in named and path.is_file()}


def _remove(directory: Path, files: Mapping[Path, int], skipped: list[str]) -> dict[Path, int]:
    """Remove files; return the removed ones, and append the rest to `skipped`."""
    removed = {}
    for path, num_bytes in files.items():
        try:
            path.unlink()
        except OSError as error:
            skipped.append(f"{path} cannot be removed now: {error.strerror or error}")
        else:
            removed[path] = num_bytes
    receipts = directory / RECEIPTS_DIR
    if receipts.is_dir() and not any(receipts.iterdir()):
        receipts.rmdir()
    return removed


def _collect_in_store(url: Url, skipped: list[str], *, remove: bool, now_ns: int) -> Iterator[Garbage]:
    # Imports fsspec.
    from leukemia_data.stores.object_store import open_store

    store = open_store(url)
    for folder, objects in _cache_folders(store).items():
        cache = store.below(folder) if folder else store
        old = {name: state.num_bytes for name, state in objects.items() if state.modified_ns < now_ns - MAX_AGE_NS}
        try:
            # Read after listing, so that it covers a commit made in between.
            named = _named(cache)
        except CacheError as error:
            skipped.append(str(error))
            continue
        found = {name: num_bytes for name, num_bytes in old.items() if _is_ours(name) and name not in named}
        if found:
            if remove:
                cache.delete(*found)
            yield Garbage(cache.url, tuple(cache.url / name for name in sorted(found)), sum(found.values()))


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
        and (MANIFEST_NAME in objects or _CACHE_DIR.fullmatch((store.url / folder).name if folder else store.url.name))
    }


def _named(cache: ObjectStore) -> set[str]:
    try:
        data = cache.read(MANIFEST_NAME)
    except MissingObjectError:
        return set()
    return parse_manifest(data, cache.url / MANIFEST_NAME).file_names()


def _is_ours(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    pattern = {RECEIPTS_DIR: _RECEIPT_FILE, "": _CACHE_FILE}.get(folder)
    return pattern is not None and pattern.fullmatch(file) is not None


# The name is kept because caches of 0.1 may hold such marks.
MARK_NAME = re.compile(r"plan-[0-9a-f]{16}\.json")
KEPT_DAYS = 14
_KEPT_S = KEPT_DAYS * 24 * 3600


def mark_pending(directories: Iterable[Path], digest: str, job_file: Path) -> None:
    """Write or renew a job file's mark in its caches; creates their directories."""
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        path = _mark_path(directory, digest)
        with scratch_path(directory, path.name) as scratch:
            scratch.write_text(json.dumps({"plan": str(job_file)}) + "\n", encoding="utf-8")
            move_into_place(scratch, path)


def is_marked(directories: Iterable[Path], digest: str) -> bool:
    """Return whether a job file is not committed yet: its first commit removes all its marks."""
    return any(_mark_path(directory, digest).exists() for directory in directories)


def forget_job_file(directories: Iterable[Path], digest: str) -> None:
    """Remove a committed job file's marks, and the receipts that no other one needs."""
    for directory in directories:
        remove_file(_mark_path(directory, digest))
        clear_receipts(directory)


def clear_receipts(directory: Path) -> None:
    """Remove the receipts of a committed cache unless a job file may need them."""
    if pending_mark(directory) is None:
        shutil.rmtree(directory / RECEIPTS_DIR, ignore_errors=True)


def pending_mark(directory: Path) -> Path | None:
    """Return the mark of an uncommitted job file in a cache's directory, or None."""
    return next((path for path in _marks(directory) if not _is_over(path)), None)


def _mark_path(directory: Path, digest: str) -> Path:
    return directory / f"plan-{digest[:16]}.json"


def _marks(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("plan-*.json") if MARK_NAME.fullmatch(path.name))


def _is_over(mark: Path) -> bool:
    with suppress(OSError):
        return time.time() - mark.stat().st_mtime > _KEPT_S
    return True
