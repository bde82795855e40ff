"""Local copies of shards of caches in object stores: a bounded folder, filled in the background."""

from __future__ import annotations

import enum
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from leukemia_data.caches.manifest import IndexEntry, ShardEntry, is_intact, is_whole
from leukemia_data.errors import StorageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, remove_file, scratch_path
from leukemia_data.files.documents import parse_json
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.records.fingerprint import file_digest
from leukemia_data.stores.object_store import ObjectStore

LOCKS_DIR = "locks"
_RESERVED_SUFFIX = ".reserved"
_FILE_SUFFIX = ".h5"
# Files not written to for this long belong to a dead process.
_DEAD_AFTER_S = 3600.0
_LOOK_AFTER_S = 60.0
_FREE_SHARE = 0.5
_UNKNOWN_FREE_BYTES = 1 << 40
# A full folder is emptied by this fraction at a time, so that not every download scans all files.
_GOES_SHARE = 1 / 64


class CopiesFolder:
    """Reserves space in a folder of local copies, across the processes of a machine. Can be pickled.

    The folder of locks in it must exist when space is reserved. `max_bytes` is as for :class:`LocalCopies`.
    """

    def __init__(self, directory: Path, max_bytes: int | None) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def reserve(self, name: str, num_bytes: int, keep: Collection[str]) -> bool:
        """Reserve space for a file, removing others except those in `keep`; return False if there is not enough."""
        with FileLock(self._directory / LOCKS_DIR / "room.lock"):
            used_bytes, looked_s = self._read_note() or (0, 0.0)
            is_enough = looked_s > 0 and self._missing_bytes(used_bytes, num_bytes) <= 0
            if not is_enough:
                used_bytes, is_enough = self._make_room(num_bytes, keep)
                looked_s = time.time()
            self._write_note(used_bytes + num_bytes * is_enough, looked_s)
            if not is_enough:
                return False
            with self._reserved(name).open("wb") as file_of_zeros:
                # Counts with its full size, though the file is empty.
                file_of_zeros.truncate(num_bytes)
            return True

    def release(self, name: str) -> None:
        """Drop the reservation of a file, which has arrived or failed."""
        with suppress(OSError):
            self._reserved(name).unlink(missing_ok=True)

    def _reserved(self, name: str) -> Path:
        return self._directory / f"{name}{_RESERVED_SUFFIX}"

    def _missing_bytes(self, used_bytes: int, num_bytes: int) -> int:
        """Bytes by which a further file would exceed the bound."""
        bound_bytes = self._max_bytes
        if bound_bytes is None:
            free = free_disk_bytes(self._directory)
            # An overestimated `used_bytes` raises the bound by less than the error.
            bound_bytes = _UNKNOWN_FREE_BYTES if free is None else int((free + used_bytes) * _FREE_SHARE)
        return used_bytes + num_bytes - bound_bytes

    def _make_room(self, num_bytes: int, keep: Collection[str]) -> tuple[int, bool]:
        """Scan all files, and remove old ones if that makes enough space.

        Returns the bytes left, and whether there is enough space. Free disk space is not queried again, because removed
        files that are still mapped are freed later.
        """
        files = self._scan()
        used_bytes = sum(state.st_size for state in files.values())
        missing = self._missing_bytes(used_bytes, num_bytes)
        spare = {name: state for name, state in files.items() if name.endswith(_FILE_SUFFIX) and name not in keep}
        if missing <= 0 or missing > sum(state.st_size for state in spare.values()):
            return used_bytes, missing <= 0
        num_wanted, removed_bytes, num_removed = int(len(files) * _GOES_SHARE), 0, 0
        for name, state in sorted(spare.items(), key=lambda item: item[1].st_mtime_ns):
            if removed_bytes >= missing and num_removed >= num_wanted:
                break
            # Windows keeps a file that is in use.
            with suppress(OSError):
                (self._directory / name).unlink()
                removed_bytes += state.st_size
                num_removed += 1
        return used_bytes - removed_bytes, removed_bytes >= missing

    def _scan(self) -> dict[str, os.stat_result]:
        """Find copies and reservations, and remove those of dead processes."""
        files, now_s = {}, time.time()
        with os.scandir(self._directory) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    state = item.stat()
                    is_passing = item.name.endswith((PARTIAL_SUFFIX, _RESERVED_SUFFIX))
                    if is_passing and now_s - state.st_mtime > _DEAD_AFTER_S:
                        # Windows keeps a file that is in use.
                        with suppress(OSError):
                            Path(item.path).unlink()
                    elif item.name.endswith((_FILE_SUFFIX, _RESERVED_SUFFIX)):
                        files[item.name] = state
        return files

    @property
    def _note_path(self) -> Path:
        return self._directory / LOCKS_DIR / "room.json"

    def _read_note(self) -> tuple[int, float] | None:
        """Upper bound of the bytes of all copies, and the time of the last scan; None if a scan is needed."""
        try:
            values = parse_json(self._note_path.read_text(encoding="utf-8"))
            num_bytes, looked_s = int(values["num_bytes"]), float(values["looked_s"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return (num_bytes, looked_s) if num_bytes >= 0 and 0 <= time.time() - looked_s < _LOOK_AFTER_S else None

    def _write_note(self, num_bytes: int, looked_s: float) -> None:
        """Write the note, under the lock; one truncated by a crash is ignored."""
        try:
            note = json.dumps({"num_bytes": num_bytes, "looked_s": looked_s})
            self._note_path.write_text(note + "\n", encoding="utf-8")
        except OSError:
            # A stale note would be too low.
            remove_file(self._note_path)


COPIES_VARIABLE = "LDATA_LOCAL_COPIES"


def default_copies_dir(environment: Mapping[str, str], platform: str, home: Path) -> Path:
    """Return the default folder of local copies; the variable ``LDATA_LOCAL_COPIES`` takes precedence.

    `platform` is as ``sys.platform``, `home` the user's home directory.

    >>> default_copies_dir({}, "linux", Path("/home/ada")).as_posix()
    '/home/ada/.cache/leukemia-cells/stage'
    """
    # The second one is deprecated since 0.2.
    for variable in (COPIES_VARIABLE, "LDATA_STAGE"):
        if environment.get(variable):
            return Path(environment[variable])
    if platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "leukemia-cells" / "stage"


class Fetched(enum.Enum):
    """Result of a request for a local copy."""

    HERE = "here"
    BUSY = "busy"
    NO_ROOM = "no room"


class LocalCopies:
    """A folder of local copies, created by the first download. Can be pickled.

    Parameters
    ----------
    directory
        The folder; created on demand.
    max_bytes
        Maximal total size of its files; None for half of the disk space that would be free without them.
    """

    def __init__(self, directory: Path, max_bytes: int | None = None) -> None:
        self.directory = directory
        self._room = CopiesFolder(directory, max_bytes)

    def holds(self, entry: ShardEntry | IndexEntry) -> bool:
        """Return whether a complete copy of a file exists."""
        return is_whole(self.directory, entry)

    def is_intact(self, entry: ShardEntry | IndexEntry) -> bool:
        """Return whether the copy of a file has the manifest's digest; reads it."""
        return is_intact(self.directory, entry)

    def use(self, entry: ShardEntry | IndexEntry) -> None:
        """Mark a file as recently used: others are evicted first."""
        with suppress(OSError):
            os.utime(self.directory / entry.name)

    def discard(self, name: str) -> None:
        """Remove a damaged file; Windows keeps one that is in use."""
        with suppress(OSError):
            (self.directory / name).unlink(missing_ok=True)

    def fetch(self, store: ObjectStore, entry: ShardEntry | IndexEntry, keep: Collection[str] = ()) -> Fetched:
        """Download a file and check its digest, unless a copy exists.

        Files named in `keep` are not evicted. Returns ``BUSY`` if another process or thread is downloading it: retry
        later.

        Raises
        ------
        StorageError
            As for :func:`download_entry`.
        OSError
            If the folder cannot be written.
        """
        if self.holds(entry):
            return Fetched.HERE
        (self.directory / LOCKS_DIR).mkdir(parents=True, exist_ok=True)
        # A fixed set of locks serves all files: a lock that is removed could be held twice.
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
            download_entry(store, entry, self.directory)
        except OSError as error:
            if not is_disk_full(error):
                raise
            return Fetched.NO_ROOM
        finally:
            self._room.release(entry.name)
        return Fetched.HERE


def download_entry(
    store: ObjectStore,
    entry: ShardEntry | IndexEntry,
    directory: Path,
    progress: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Download a file of a cache into a directory and check its digest; one of other bytes is downloaded again.

    Raises
    ------
    StorageError
        If the object cannot be read, or fails its digest twice.
    """
    found = ""
    with scratch_path(directory, entry.name.partition("-")[0]) as arrived:
        for _ in range(2):
            store.download(entry.name, arrived, progress)
            found = file_digest(arrived)
            if found == entry.digest:
                arrived.replace(directory / entry.name)
                return
            progress(-arrived.stat().st_size)
    raise StorageError(
        f"{store.url / entry.name} is damaged: its digest is {found}, the manifest says {entry.digest}; "
        "`ldata push --verify` from an intact copy of the cache repairs it"
    )


_NUM_THREADS = 4
_AGAIN_AFTER_S = 0.1


class ShardFetcher:
    """Downloads shards into a folder of local copies in the background, each at most once.

    Requests are indices into `shards`. Copies named in `keep` are not evicted. `on_arrival` is called in a thread with
    the index of each shard that has arrived.
    """

    def __init__(
        self,
        copies: LocalCopies,
        store: ObjectStore,
        shards: Sequence[ShardEntry],
        keep: frozenset[str],
        on_arrival: Callable[[int], object],
    ) -> None:
        self._copies, self._store, self._shards, self._on_arrival = copies, store, shards, on_arrival
        self._keep = keep
        self._changed = threading.Condition()
        self._wanted: deque[int] = deque()
        self._settled: set[int] = set()
        self._asked: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._error: BaseException | None = None
        self._started_s: float | None = None
        self.num_bytes = 0
        self.seconds = 0.0
        """Seconds from the first request to the last arrival."""

    def want(self, numbers: Iterable[int], *, first: bool = False) -> None:
        """Request shards, before or after all earlier requests; returns immediately.

        Raises the error that stopped a thread since the last call.
        """
        with self._changed:
            self._raise_error()
            new = [number for number in numbers if number not in self._asked]
            if not new or self._is_closed:
                return
            self._started_s = time.perf_counter() if self._started_s is None else self._started_s
            self._asked.update(new)
            if first:
                self._wanted.extendleft(reversed(new))
            else:
                self._wanted.extend(new)
            self._begin_threads()

    def wait(self, numbers: Iterable[int]) -> None:
        """Wait until the requested shards have arrived or failed."""
        wanted = set(numbers)
        with self._changed:
            while not (wanted <= self._settled or self._is_closed or self._error is not None):
                self._changed.wait()
            self._raise_error()

    def forget(self, number: int) -> None:
        """Allow a shard to be requested again after its copy was found damaged."""
        with self._changed:
            self._asked.discard(number)
            self._settled.discard(number)

    def stop(self) -> None:
        """Drop all requests; threads end after their current shard. Takes no lock, so that a finalizer may call it."""
        self._is_closed = True
        self._wanted.clear()

    def close(self) -> None:
        """Drop all requests and join the threads."""
        self.stop()
        with self._changed:
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _begin_threads(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < min(_NUM_THREADS, len(self._wanted)):
            # Daemons: an interrupted program must not wait for a hanging network.
            thread = threading.Thread(target=self._run, name="shard-copies", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._settle(number, self._copies.fetch(self._store, self._shards[number], self._keep))
        except BaseException as error:
            # Raised in the thread that reads batches.
            with self._changed:
                self._error = error
                self._wanted.clear()
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            if self._wanted:
                return self._wanted.popleft()
            # Under the lock: a concurrent request must see that this worker has exited.
            self._threads = [thread for thread in self._threads if thread is not threading.current_thread()]
            return None

    def _settle(self, number: int, fetched: Fetched) -> None:
        if fetched is Fetched.BUSY:
            time.sleep(_AGAIN_AFTER_S)
            with self._changed:
                if not self._is_closed:
                    self._wanted.append(number)
            return
        if fetched is Fetched.HERE:
            self._on_arrival(number)
        with self._changed:
            self._settled.add(number)
            if fetched is Fetched.HERE:
                self.num_bytes += self._shards[number].num_bytes
                self.seconds = time.perf_counter() - (self._started_s or 0.0)
            else:
                self._give_up(self._shards[number].num_bytes)
            self._changed.notify_all()

    def _give_up(self, num_bytes: int) -> None:
        """Fail all requests for files too large for the folder: each would scan all files."""
        hopeless = {number for number in self._wanted if self._shards[number].num_bytes >= num_bytes}
        self._settled |= hopeless
        self._wanted = deque(number for number in self._wanted if number not in hopeless)
