"""Garbage collection: find and remove what no manifest names.

Rebuilding leaves shards that only earlier manifests named, and a killed build leaves temporary files, receipts and
shards that nobody committed. Only files that this project writes, told by their names, are ever touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.building.pending_plan import KEPT_DAYS, pending_mark, spent_marks
from leukemia_data.building.receipts import RECEIPTS_DIR
from leukemia_data.caches.manifest import MANIFEST_NAME, find_manifest
from leukemia_data.errors import CacheError
from leukemia_data.files.lock import LOCK_NAME, SOFT_LOCK_NAME, lock_cache

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
