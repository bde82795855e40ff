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
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from leukemia_data.caches.manifest import IndexEntry, ShardEntry, is_whole
from leukemia_data.errors import StorageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, scratch_path
from leukemia_data.files.documents import parse_json
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.records.fingerprint import file_digest
from leukemia_data.stores.object_store import ObjectStore

LOCKS_DIR = "locks"
_ROOM_LOCK = "room.lock"
_NOTE_NAME = "room.json"
_RESERVED_SUFFIX = ".reserved"
_FILE_SUFFIX = ".h5"
# What nobody has written to for so long is of a process that is no more.
_DEAD_AFTER_S = 3600.0
_LOOK_AFTER_S = 60.0
_FREE_SHARE = 0.5
_UNKNOWN_FREE_BYTES = 1 << 40
# Of a full folder's files so many go at a time, so that not each that comes has to look at all.
_GOES_SHARE = 1 / 64


@dataclass(frozen=True, slots=True)
class _CopiedFile:
    name: str
    num_bytes: int
    used_ns: int


@dataclass(frozen=True, slots=True)
class _Note:
    """Bytes of all copies at the most, and when its files were looked at."""

    num_bytes: int
    looked_s: float


class CopiesFolder:
    """Sets room aside in a folder of copies, for all processes of a machine. Pickles.

    Parameters
    ----------
    directory
        The folder; its folder of locks must exist when room is set aside.
    max_bytes
        What all files in it may come to; None for half of what the disk would have free without them.
    """

    def __init__(self, directory: Path, max_bytes: int | None) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def reserve(self, name: str, num_bytes: int, keep: Collection[str]) -> bool:
        """Set room aside for a file, and remove others if it needs theirs, but none of `keep`; False for no room."""
        with FileLock(self._directory / LOCKS_DIR / _ROOM_LOCK):
            note = self._read_note()
            is_enough = note is not None and self._missing_bytes(note.num_bytes, num_bytes) <= 0
            if note is None or not is_enough:
                used_bytes, is_enough = self._make_room(num_bytes, keep)
                note = _Note(used_bytes, time.time())
            self._write_note(_Note(note.num_bytes + num_bytes * is_enough, note.looked_s))
            if not is_enough:
                return False
            with self._reserved(name).open("wb") as file_of_zeros:
                # Counts as if it were full, and takes no room.
                file_of_zeros.truncate(num_bytes)
            return True

    def release(self, name: str) -> None:
        """Give the room back that was set aside for a file: it is there now, or will not come."""
        with suppress(OSError):
            self._reserved(name).unlink(missing_ok=True)

    def _reserved(self, name: str) -> Path:
        return self._directory / f"{name}{_RESERVED_SUFFIX}"

    def _missing_bytes(self, used_bytes: int, num_bytes: int) -> int:
        return used_bytes + num_bytes - self._bound_bytes(used_bytes)

    def _bound_bytes(self, used_bytes: int) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        free = free_disk_bytes(self._directory)
        # Where `used_bytes` tells too much, the bound grows by less than that.
        return _UNKNOWN_FREE_BYTES if free is None else int((free + used_bytes) * _FREE_SHARE)

    def _make_room(self, num_bytes: int, keep: Collection[str]) -> tuple[int, bool]:
        """Look at all files, and remove those that are in the way, if that is of use.

        Returns the bytes that lie there then, and whether there is room now. How much the disk has free is not asked
        again: where a file is still mapped, or the system takes its time, that comes later.
        """
        files = self._scan()
        used_bytes = sum(file.num_bytes for file in files)
        missing = self._missing_bytes(used_bytes, num_bytes)
        spare = [file for file in files if file.name.endswith(_FILE_SUFFIX) and file.name not in keep]
        if missing <= 0 or missing > sum(file.num_bytes for file in spare):
            return used_bytes, missing <= 0
        num_wanted, removed_bytes, num_removed = int(len(files) * _GOES_SHARE), 0, 0
        for file in sorted(spare, key=lambda file: file.used_ns):
            if removed_bytes >= missing and num_removed >= num_wanted:
                break
            # One that is in use stays on Windows.
            with suppress(OSError):
                (self._directory / file.name).unlink()
                removed_bytes += file.num_bytes
                num_removed += 1
        return used_bytes - removed_bytes, removed_bytes >= missing

    def _scan(self) -> list[_CopiedFile]:
        """Copies and rooms set aside; what dead processes left is removed."""
        files, now_s = [], time.time()
        with os.scandir(self._directory) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    state = item.stat()
                    is_passing = item.name.endswith((PARTIAL_SUFFIX, _RESERVED_SUFFIX))
                    if is_passing and now_s - state.st_mtime > _DEAD_AFTER_S:
                        Path(item.path).unlink()
                    elif item.name.endswith((_FILE_SUFFIX, _RESERVED_SUFFIX)):
                        files.append(_CopiedFile(item.name, state.st_size, state.st_mtime_ns))
        return files

    @property
    def _note_path(self) -> Path:
        return self._directory / LOCKS_DIR / _NOTE_NAME

    def _read_note(self) -> _Note | None:
        """The note; None if files have to be looked at."""
        try:
            values = parse_json(self._note_path.read_text(encoding="utf-8"))
            note = _Note(int(values["num_bytes"]), float(values["looked_s"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.num_bytes >= 0 and 0 <= time.time() - note.looked_s < _LOOK_AFTER_S else None

    def _write_note(self, note: _Note) -> None:
        """Write the note, which nobody reads meanwhile; one that is cut off by a crash counts as none."""
        try:
            self._note_path.write_text(json.dumps(asdict(note)) + "\n", encoding="utf-8")
        except OSError:
            # An old one would tell too little.
            self._note_path.unlink(missing_ok=True)


COPIES_VARIABLE = "LDATA_LOCAL_COPIES"
EARLIER_VARIABLE = "LDATA_STAGE"
"""Read as well, where `COPIES_VARIABLE` is not set; deprecated since 0.2."""
_OWN_FOLDER = "leukemia-cells"


def default_copies_dir(environment: Mapping[str, str], platform: str, home: Path) -> Path:
    """Folder of local copies where the user names none.

    Parameters
    ----------
    environment
        Variables of the process; ``LDATA_LOCAL_COPIES`` decides.
    platform
        As ``sys.platform`` tells it.
    home
        The user's home.

    Examples
    --------
    >>> default_copies_dir({}, "linux", Path("/home/ada")).as_posix()
    '/home/ada/.cache/leukemia-cells/stage'
    """
    for variable in (COPIES_VARIABLE, EARLIER_VARIABLE):
        if environment.get(variable):
            return Path(environment[variable])
    if platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / _OWN_FOLDER / "stage"


class Fetched(enum.Enum):
    """What became of a request for a copy of a file."""

    HERE = "here"
    BUSY = "busy"
    NO_ROOM = "no room"


class LocalCopies:
    """A folder of local copies. Nothing is written before the first of them is fetched. Pickles.

    Parameters
    ----------
    directory
        The folder; made when it is needed.
    max_bytes
        What all files in it may come to; None for half of what the disk would have free without them.
    """

    def __init__(self, directory: Path, max_bytes: int | None = None) -> None:
        self.directory = directory
        self._room = CopiesFolder(directory, max_bytes)

    def path(self, entry: ShardEntry | IndexEntry) -> Path:
        """Where the copy of a file lies."""
        return self.directory / entry.name

    def holds(self, entry: ShardEntry | IndexEntry) -> bool:
        """Whether a whole copy of a file is here."""
        return is_whole(self.directory, entry)

    def is_intact(self, entry: ShardEntry | IndexEntry) -> bool:
        """Whether the copy of a file has the bytes that the manifest knows; it is read."""
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
        """Copy a file, unless it is here already, whose bytes are then those that the manifest knows.

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
            "`ldata push --verify` from an intact copy of the cache repairs it"
        )


_NUM_THREADS = 4
_AGAIN_AFTER_S = 0.1
_THREAD_NAME = "shard-copies"


class ShardFetcher:
    """Copies shards into a folder of local copies, each at most once.

    Parameters
    ----------
    copies, store
        Where to, and where from.
    shards
        The cache's shards; requests are numbers of them.
    keep
        Names of copies that may not go to make room.
    on_arrival
        Called in a thread with the number of each shard that is here now.
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
        """From the first request to the last arrival."""

    def want(self, numbers: Iterable[int], *, first: bool = False) -> None:
        """Request shards, before all earlier requests or behind them; returns at once.

        Raises
        ------
        BaseException
            What stopped a thread since the last call.
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
        """Wait until requests are settled: the shards are here, or it is known that they will not be."""
        wanted = set(numbers)
        with self._changed:
            while not (wanted <= self._settled or self._is_closed or self._error is not None):
                self._changed.wait()
            self._raise_error()

    def forget(self, number: int) -> None:
        """Let a shard be requested once more: its copy turned out to be no good."""
        with self._changed:
            self._asked.discard(number)
            self._settled.discard(number)

    def stop(self) -> None:
        """Drop all requests; threads end with the shard that they are at. Without a lock: a finalizer may call it."""
        self._is_closed = True
        self._wanted.clear()

    def close(self) -> None:
        """Drop all requests, and wait for the threads to end."""
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
            # A daemon: an interrupted program shall not wait for a network that hangs.
            thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._settle(number, self._copies.fetch(self._store, self._shards[number], self._keep))
        except BaseException as error:
            # Whoever reads batches gets it.
            with self._changed:
                self._error = error
                self._wanted.clear()
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            if self._wanted:
                return self._wanted.popleft()
            # Under the lock: a request that comes now must find that this thread is none any more.
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
        """Settle the requests for files of a size for which there is no room: each would look at all files."""
        hopeless = {number for number in self._wanted if self._shards[number].num_bytes >= num_bytes}
        self._settled |= hopeless
        self._wanted = deque(number for number in self._wanted if number not in hopeless)
