"""The stage: a bounded folder of this machine that holds shards of caches in object stores.

All processes of a machine share one. A file there has the name that its content gives it, so that versions of a cache
share their shards, and gets it only when its digest is the one that the manifest knows. Who downloads a shard holds a
lock of the system meanwhile; a process that dies leaves nothing but partial files. When room is needed, what was not
used for the longest time goes first.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from leukemia_data.caches.manifest import IndexEntry, ShardEntry, is_whole
from leukemia_data.errors import StorageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, scratch_path
from leukemia_data.files.disk_room import free_disk_bytes, is_disk_full
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.storage.object_store import ObjectStore

_LOCKS_DIR = "locks"
_ROOM_LOCK = "room.lock"
_RESERVED_SUFFIX = ".reserved"
_FILE_SUFFIX = ".h5"
# What nobody has written to for so long is of a process that is no more.
_DEAD_AFTER_S = 3600.0
_FREE_SHARE = 0.5
_UNKNOWN_FREE_BYTES = 1 << 40


class Fetched(enum.Enum):
    """What became of a wish to have a file staged."""

    HERE = "here"
    BUSY = "busy"
    NO_ROOM = "no room"


@dataclass(frozen=True, slots=True)
class _StagedFile:
    name: str
    num_bytes: int
    used_ns: int


class Stage:
    """A folder of staged files. Nothing is written before the first of them is fetched. Pickles.

    Parameters
    ----------
    directory
        The folder; made when it is needed.
    most_bytes
        What all files in it may come to; None for half of what the disk would have free without them.
    """

    def __init__(self, directory: Path, most_bytes: int | None = None) -> None:
        self.directory = directory
        self._most_bytes = most_bytes

    def path(self, entry: ShardEntry | IndexEntry) -> Path:
        """Where a file lies when it is staged."""
        return self.directory / entry.name

    def holds(self, entry: ShardEntry | IndexEntry) -> bool:
        """Whether a file is staged whole."""
        return is_whole(self.directory, entry)

    def is_intact(self, entry: ShardEntry | IndexEntry) -> bool:
        """Whether a staged file has the bytes that the manifest knows; it is read."""
        try:
            return self.holds(entry) and file_digest(self.path(entry)) == entry.digest
        except FileNotFoundError:
            return False

    def use(self, entry: ShardEntry | IndexEntry) -> None:
        """Note that a file is used now: others go before it when room is needed."""
        with suppress(OSError):
            os.utime(self.path(entry))

    def discard(self, name: str) -> None:
        """Remove a file that turned out to be damaged; one that is in use stays on Windows."""
        with suppress(OSError):
            (self.directory / name).unlink(missing_ok=True)

    def fetch(self, store: ObjectStore, entry: ShardEntry | IndexEntry, keep: Collection[str] = ()) -> Fetched:
        """Have a file staged, whose bytes are those that the manifest knows.

        Parameters
        ----------
        store
            The cache's folder in its object store.
        entry
            Which file.
        keep
            Names of files that may not go to make room for it.

        Returns
        -------
        Fetched
            ``BUSY`` if another process or thread is at it: ask again a little later.

        Raises
        ------
        StorageError
            If the object cannot be read, or has other bytes, twice.
        OSError
            If the folder cannot be written.
        """
        if self.holds(entry):
            return Fetched.HERE
        (self.directory / _LOCKS_DIR).mkdir(parents=True, exist_ok=True)
        # Few locks that stay serve any number of files: one that is removed could be held by two.
        lock = FileLock(self.directory / _LOCKS_DIR / f"{entry.digest[:2]}.lock", timeout=0)
        try:
            with lock:
                return Fetched.HERE if self.holds(entry) else self._fetch(store, entry, keep)
        except Timeout:
            return Fetched.BUSY

    def _fetch(self, store: ObjectStore, entry: ShardEntry | IndexEntry, keep: Collection[str]) -> Fetched:
        reserved = self.directory / f"{entry.name}{_RESERVED_SUFFIX}"
        try:
            if not self._reserve(reserved, entry.num_bytes, keep):
                return Fetched.NO_ROOM
            self._download(store, entry)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return Fetched.NO_ROOM
        finally:
            with suppress(OSError):
                reserved.unlink(missing_ok=True)
        return Fetched.HERE

    def _download(self, store: ObjectStore, entry: ShardEntry | IndexEntry) -> None:
        found = ""
        for _ in range(2):
            with scratch_path(self.directory, entry.name) as arrived:
                store.download(entry.name, arrived)
                found = file_digest(arrived)
                if found == entry.digest:
                    arrived.replace(self.path(entry))
                    return
        raise StorageError(
            f"{store.url / entry.name} is damaged: its digest is {found}, the manifest says {entry.digest}; "
            "`ldata push --verify` from an intact copy of the cache mends it"
        )

    def _reserve(self, reserved: Path, num_bytes: int, keep: Collection[str]) -> bool:
        """Set room aside for a file, and remove others if it needs theirs."""
        with FileLock(self.directory / _LOCKS_DIR / _ROOM_LOCK):
            files = self._scan()
            missing = sum(file.num_bytes for file in files) + num_bytes - self._bound_bytes(files)
            spare = sorted((file for file in files if self._may_go(file, keep)), key=lambda file: file.used_ns)
            if missing > sum(file.num_bytes for file in spare):
                return False
            for file in spare:
                if missing <= 0:
                    break
                with suppress(OSError):
                    (self.directory / file.name).unlink()
                    missing -= file.num_bytes
            if missing > 0:
                return False
            with reserved.open("wb") as file_of_zeros:
                # Counts as if it were full, and takes no room.
                file_of_zeros.truncate(num_bytes)
            return True

    def _may_go(self, file: _StagedFile, keep: Collection[str]) -> bool:
        return file.name.endswith(_FILE_SUFFIX) and file.name not in keep

    def _bound_bytes(self, files: list[_StagedFile]) -> int:
        if self._most_bytes is not None:
            return self._most_bytes
        free = free_disk_bytes(self.directory)
        if free is None:
            return _UNKNOWN_FREE_BYTES
        return int((free + sum(file.num_bytes for file in files)) * _FREE_SHARE)

    def _scan(self) -> list[_StagedFile]:
        """Staged files and rooms set aside; what dead processes left is removed."""
        files, now_s = [], time.time()
        with os.scandir(self.directory) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    state = item.stat()
                    if (
                        item.name.endswith((PARTIAL_SUFFIX, _RESERVED_SUFFIX))
                        and now_s - state.st_mtime > _DEAD_AFTER_S
                    ):
                        Path(item.path).unlink()
                    elif item.name.endswith((_FILE_SUFFIX, _RESERVED_SUFFIX)):
                        files.append(_StagedFile(item.name, state.st_size, state.st_mtime_ns))
        return files
