"""One writer per cache directory at a time.

The lock is the operating system's own (``flock`` or its Windows kin) on a file that stays: it is released when its
holder ends, however it ends, so there is no stale lock to clean up. On network file systems that know no such locks a
file stands for the lock by being there; if its holder died on this machine, that is recognised.

Beside the lock its holder leaves a note of who it is, which only the messages to those who wait are made of. Readers
need neither.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from leukemia_data.console import Console
from leukemia_data.errors import CacheError, RunError
from leukemia_data.files.documents import parse_json

LOCK_NAME = ".lock"
SOFT_LOCK_NAME = ".lock-soft"
HOLDER_NAME = ".lock-holder"
LOCK_FILES = frozenset({LOCK_NAME, SOFT_LOCK_NAME, HOLDER_NAME})

Announce = Callable[[str], None]
"""Called once for each process that is waited for."""

_POLL_S = 0.2
# The first look at the lock of a dead holder may only remove it; the second takes it.
_SOFT_TIMEOUT_S = 0.2
_NO_SUCH_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_MAX_NOTE_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: what it does, as which process, on which machine, since when (local time, ISO 8601)."""

    work: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"{self.work}, process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def lock_cache(directory: Path, work: str = "build", on_busy: Announce | None = None) -> Iterator[None]:
    """Hold the writer's lock of a cache directory, which is made if it does not exist.

    Parameters
    ----------
    directory
        The cache's directory.
    work
        What the lock is taken for, in a word or two, for those who meet it.
    on_busy
        None gives up at once if another process holds the lock. Otherwise this waits as long as it takes, and tells
        `on_busy` for whom.

    Raises
    ------
    CacheError
        If another process holds it, or the directory cannot be written.
    """
    with _held(_acquire(directory, on_busy), directory, work):
        yield


@contextmanager
def _held(lock: BaseFileLock, directory: Path, work: str) -> Iterator[None]:
    try:
        _leave_note(directory / HOLDER_NAME, work)
        yield
    finally:
        with suppress(OSError):
            (directory / HOLDER_NAME).unlink(missing_ok=True)
        lock.release()


@contextmanager
def lock_caches(directories: Iterable[Path], work: str = "build", on_busy: Announce | None = None) -> Iterator[None]:
    """Hold the locks of several cache directories of one parent: see :func:`lock_cache`.

    They are taken in the order of their names, whatever the order they are given in: sorted order prevents deadlock.
    """
    with ExitStack() as locks:
        for directory in sorted(set(directories)):
            locks.enter_context(lock_cache(directory, work, on_busy))
        yield


@contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it does not exist; the lock's file stays.

    Raises
    ------
    RunError
        If another process trains in it, or it cannot be written.
    """
    try:
        lock = _try_lock(directory)
    except CacheError as error:
        raise RunError(f"{directory} cannot be written: {error.__cause__}; name another folder with --out") from error
    if lock is None:
        holder = read_holder(directory)
        who = "" if holder is None else f" (process {holder.pid} on {holder.host}, since {holder.since})"
        raise RunError(
            f"another training is writing to {directory}{who}: wait for it to end, or name another --out"
            f"{_soft_advice(directory)}"
        )
    with _held(lock, directory, "train"):
        yield


def read_holder(directory: Path) -> Holder | None:
    """The holder of a directory's lock as its note says; None without a valid note."""
    path = directory / HOLDER_NAME
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            note = parse_json(file.read(_MAX_NOTE_BYTES).decode("utf-8"))
        holder = Holder(str(note["work"]), int(note["pid"]), str(note["host"]), str(note["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # It comes from a file that anybody may have written, and goes to a terminal.
    return holder if str(holder).isprintable() else None


def note_waiting(console: Console, busy: str) -> None:
    """Note for whom a process waits: ``on_busy=partial(note_waiting, console)``."""
    console.note(f"waiting: {busy}")


def _acquire(directory: Path, on_busy: Announce | None) -> BaseFileLock:
    announced = None
    while True:
        lock = _try_lock(directory)
        if lock is not None:
            return lock
        holder = read_holder(directory)
        busy = f"{directory} is in use by another process" + (f" ({holder})" if holder is not None else "")
        if on_busy is None:
            raise CacheError(f"{busy}: wait for it to end, as `ldata build --wait` does{_soft_advice(directory)}")
        if busy != announced:
            on_busy(f"{busy}{_soft_advice(directory)}")
            announced = busy
        time.sleep(_POLL_S)


def _try_lock(directory: Path) -> BaseFileLock | None:
    """The directory's lock, held; None where another process holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return _acquired(FileLock(directory / LOCK_NAME, timeout=0, fallback_to_soft=False))
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCKS:
            raise _not_writable(directory, error) from error
    try:
        return _acquired(SoftFileLock(directory / SOFT_LOCK_NAME, timeout=_SOFT_TIMEOUT_S))
    except OSError as error:
        raise _not_writable(directory, error) from error


def _acquired(lock: BaseFileLock) -> BaseFileLock | None:
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _not_writable(directory: Path, error: OSError) -> CacheError:
    cure = (
        "get the right to write there, or name a folder of your own with --cache"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        else "name another folder with --cache"
    )
    return CacheError(f"{directory} cannot be written: {error.strerror or error}; {cure}")


def _soft_advice(directory: Path) -> str:
    """What to do about a lock that is but a file: its holder may have died on another machine."""
    path = directory / SOFT_LOCK_NAME
    return f"; if that process is no more, remove {path}" if path.exists() else ""


def _leave_note(path: Path, work: str) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = Holder(work, os.getpid(), socket.gethostname(), since)
    # Only others' messages lose by its absence: a full disk must not keep gc from making room.
    with suppress(OSError):
        path.write_text(json.dumps(asdict(holder)) + "\n", encoding="utf-8")
