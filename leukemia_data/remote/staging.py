"""The stage: a bounded folder of this machine that holds shards of caches in object stores.

All processes of a machine share one. A file there has the name that its content gives it, so that versions of a cache
share their shards, and gets it only when its digest is the one that the manifest knows. Who downloads a shard holds a
lock of the system meanwhile; a process that dies leaves nothing but partial files. When room is needed, what was not
used for the longest time goes first.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from leukemia_data.caches.manifest import is_whole
from leukemia_data.caches.manifest_entries import IndexEntry, ShardEntry
from leukemia_data.errors import StorageError
from leukemia_data.files.atomic import scratch_path
from leukemia_data.files.disk_room import is_disk_full
from leukemia_data.remote.stage_room import LOCKS_DIR, StageRoom
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.storage.object_store import ObjectStore


class Fetched(enum.Enum):
    """What became of a wish to have a file staged."""

    HERE = "here"
    BUSY = "busy"
    NO_ROOM = "no room"


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
        self._room = StageRoom(directory, most_bytes)

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
        (self.directory / LOCKS_DIR).mkdir(parents=True, exist_ok=True)
        # Few locks that stay serve any number of files: one that is removed could be held by two.
        lock = FileLock(self.directory / LOCKS_DIR / f"{entry.digest[:2]}.lock", timeout=0)
        try:
            with lock:
                return Fetched.HERE if self.holds(entry) else self._fetch(store, entry, keep)
        except Timeout:
            return Fetched.BUSY

    def _fetch(self, store: ObjectStore, entry: ShardEntry | IndexEntry, keep: Collection[str]) -> Fetched:
        try:
            if not self._room.reserve(entry.name, entry.num_bytes, keep):
                return Fetched.NO_ROOM
            self._download(store, entry)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return Fetched.NO_ROOM
        finally:
            self._room.release(entry.name)
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
