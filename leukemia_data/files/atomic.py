"""Files and folders that appear whole or not at all, and states of files, by which changes are found."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

PARTIAL_SUFFIX = ".partial"


@contextmanager
def scratch_path(directory: Path, stem: str) -> Iterator[Path]:
    """Yield a temporary path in `directory`, which is removed at the end; see :func:`naming_file` for `stem`."""
    scratch = directory / f"{stem}.{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}"
    try:
        with naming_file(directory / stem):
            yield scratch
    finally:
        # On a failing disk this fails too, and must not hide the first error. `ldata gc` removes such files.
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `final`, in an existing folder, and is removed if the block raises.

    The file is flushed to disk before it gets the name, the name afterwards.
    """
    with scratch_path(final.parent, final.name) as scratch:
        yield scratch
        sync_file(scratch)
        move_into_place(scratch, final)
        sync_directory(final.parent)


_IS_WINDOWS = os.name == "nt"
# A virus scanner, an indexer or a reader has the file open: access denied, sharing violation, lock violation.
_HELD_OPEN = (5, 32, 33)
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.6)


def move_into_place(scratch: Path, final: Path, pause: Callable[[float], None] = time.sleep) -> None:
    """Rename a file over another one; on Windows, where open files cannot be replaced, try for two seconds."""
    _when_let_go(lambda: scratch.replace(final), pause)


def remove_file(path: Path, pause: Callable[[float], None] = time.sleep) -> None:
    """Remove a file if it exists; on Windows, where open files cannot be removed, try for two seconds."""
    _when_let_go(lambda: path.unlink(missing_ok=True), pause)


def _when_let_go(change: Callable[[], object], pause: Callable[[float], None]) -> None:
    for seconds in _PAUSES_S if _IS_WINDOWS else ():
        try:
            change()
        except OSError as error:
            if getattr(error, "winerror", None) not in _HELD_OPEN:
                raise
            pause(seconds)
        else:
            return
    change()


def write_text(final: Path, text: str) -> None:
    """Write `text` as UTF-8 with LF line ends, atomically and durably."""
    with atomic_path(final) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def sync_file(path: Path) -> None:
    """Block until the bytes of `path` are on disk."""
    with naming_file(path), path.open("rb+") as file:
        _flush(file.fileno())


def sync_directory(directory: Path) -> None:
    """Block until the names in `directory` are on disk; a no-op on Windows, which cannot open directories."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with naming_file(directory):
            _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """Block until a file's bytes are on disk; on macOS, where fsync leaves them in the drive's memory, past that."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        # Not all file systems have it.
        with suppress(OSError):
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError of the block without a file name, as of a write to a full disk, the name of `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        number = errno.EIO if error.errno is None else error.errno
        # HDF5's own text is a page of addresses.
        raise OSError(number, os.strerror(number), str(path)) from error


_LOCK_SUFFIX = ".lock"


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make an empty folder and remove it after the block; remove those of dead processes with this prefix before.

    The `parent` is the system's folder of temporary files by default.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_abandoned(prefix, parent)
    folder = parent / f"{prefix}{uuid.uuid4().hex[:12]}"
    lock_path = parent / f"{folder.name}{_LOCK_SUFFIX}"
    lock = FileLock(lock_path, fallback_to_soft=False)
    # Without locks no process removes abandoned folders.
    with suppress(OSError):
        lock.acquire()
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        with suppress(OSError):
            lock_path.unlink()


def _remove_abandoned(prefix: str, parent: Path) -> None:
    for lock_path in parent.glob(f"{prefix}*{_LOCK_SUFFIX}"):
        lock = FileLock(lock_path, timeout=0, fallback_to_soft=False)
        # In use, or another user's.
        with suppress(Timeout, OSError), lock:
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            lock_path.unlink()


UNSETTLED_NS = -2
"""In place of a time so recent that a later change may have the same."""
_MAX_INT64 = 2**63 - 1
_HAS_INODES = sys.platform != "win32"


class FileState(NamedTuple):
    """Size, times and inode of a file, as signed 64-bit integers.

    Attributes
    ----------
    size_bytes
        -1 if there is no regular file.
    mtime_ns
        Modification time since the epoch, which programs may set.
    ctime_ns
        Time of the last change of content, name or permissions, which programs cannot set; creation time on Windows;
        0 in object stores.
    inode
        Number of the file in its file system; 0 in object stores and on Windows.
    """

    size_bytes: int = -1
    mtime_ns: int = -1
    ctime_ns: int = 0
    inode: int = 0

    @property
    def is_file(self) -> bool:
        """Whether it is the state of a regular file."""
        return self.size_bytes >= 0


NO_FILE = FileState()
"""The state of a missing file, or of anything but a regular file."""


def state_of(status: os.stat_result) -> FileState:
    """Return the state of a regular file from its status."""
    mtime_ns, ctime_ns, inode = status.st_mtime_ns, status.st_ctime_ns, status.st_ino if _HAS_INODES else 0
    # A short way for nearly every file: there may be a million.
    if 0 <= mtime_ns < _MAX_INT64 and 0 <= ctime_ns < _MAX_INT64 and inode <= _MAX_INT64:
        return FileState(status.st_size, mtime_ns, ctime_ns, inode)
    signed_inode = (inode + 2**63) % 2**64 - 2**63
    return FileState(status.st_size, time_in_64_bits(mtime_ns), time_in_64_bits(ctime_ns), signed_inode)


def time_in_64_bits(time_ns: int) -> int:
    """Return a time as in a state: of 64 bits, the latest for a larger one, and none of the special values."""
    if -_MAX_INT64 <= time_ns <= _MAX_INT64:
        # -1 and -2 have other meanings.
        return time_ns if time_ns not in (-1, UNSETTLED_NS) else UNSETTLED_NS - 1
    return _MAX_INT64
