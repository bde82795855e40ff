"""One writer per cache directory or run at a time.

The lock is the operating system's (``flock`` or that of Windows) on a file that stays, and is released when its holder
ends. On network file systems without such locks, the existence of a file is the lock; that of a dead holder on this
machine is recognised. A note beside the lock names its holder in messages. Readers need neither.
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
"""Called with a message, once for each process that is waited for."""

# The first attempt may only remove the lock of a dead holder.
_SOFT_TIMEOUT_S = 0.2
_NO_SUCH_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_MAX_NOTE_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Holder:
    """Holder of a lock: its work, process, machine, and time of locking (local, ISO 8601)."""

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
        What the lock is for, in a word or two, for messages.
    on_busy
        Receives the holder while this waits for the lock; None gives up at once.

    Raises
    ------
    CacheError
        If another process holds it, or the directory cannot be written.
    """
    with _held(_acquire(directory, on_busy), directory, work):
        yield


@contextmanager
def _held(lock: BaseFileLock, directory: Path, work: str) -> Iterator[None]:
    note = directory / HOLDER_NAME
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = Holder(work, os.getpid(), socket.gethostname(), since)
    try:
        # Only messages need it: a full disk must not keep gc from freeing space.
        with suppress(OSError):
            note.write_text(json.dumps(asdict(holder)) + "\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def lock_caches(directories: Iterable[Path], work: str = "build", on_busy: Announce | None = None) -> Iterator[None]:
    """Hold the locks of several cache directories of one parent, as :func:`lock_cache`."""
    # Sorted order prevents deadlock.
    with ExitStack() as locks:
        for directory in sorted(set(directories)):
            locks.enter_context(lock_cache(directory, work, on_busy))
        yield


@contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it does not exist.

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
    """Return the holder of a directory's lock from its note; None without a valid one."""
    path = directory / HOLDER_NAME
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            note = parse_json(file.read(_MAX_NOTE_BYTES).decode("utf-8"))
        holder = Holder(str(note["work"]), int(note["pid"]), str(note["host"]), str(note["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # Anything may be in the file, and it goes to a terminal.
    return holder if str(holder).isprintable() else None


def note_waiting(console: Console, busy: str) -> None:
    """Note which process is waited for: ``on_busy=partial(note_waiting, console)``."""
    console.note(f"waiting: {busy}")


def _acquire(directory: Path, on_busy: Announce | None) -> BaseFileLock:
    announced = None
    while (lock := _try_lock(directory)) is None:
        holder = read_holder(directory)
        busy = f"{directory} is in use by another process" + (f" ({holder})" if holder is not None else "")
        if on_busy is None:
            raise CacheError(f"{busy}: wait for it to end, as `ldata build --wait` does{_soft_advice(directory)}")
        if busy != announced:
            on_busy(f"{busy}{_soft_advice(directory)}")
            announced = busy
        time.sleep(0.2)
    return lock


def _try_lock(directory: Path) -> BaseFileLock | None:
    """The acquired lock of the directory; None if another process holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return _acquired(FileLock(directory / LOCK_NAME, timeout=0, fallback_to_soft=False))
        except OSError as error:
            if error.errno not in _NO_SUCH_LOCKS:
                raise
        return _acquired(SoftFileLock(directory / SOFT_LOCK_NAME, timeout=_SOFT_TIMEOUT_S))
    except OSError as error:
        is_denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        cure = "get the right to write there, or name a folder of your own" if is_denied else "name another folder"
        message = f"{directory} cannot be written: {error.strerror or error}; {cure} with --cache"
        raise CacheError(message) from error


def _acquired(lock: BaseFileLock) -> BaseFileLock | None:
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _soft_advice(directory: Path) -> str:
    """Advice for a lock that is a file, whose holder may have died on another machine."""
    path = directory / SOFT_LOCK_NAME
    return f"; if that process is no more, remove {path}" if path.exists() else ""
