"""Files and folders that appear whole or not at all, and the state by which a file is known again."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

PARTIAL_SUFFIX = ".partial"


@contextmanager
def scratch_path(directory: Path, stem: str) -> Iterator[Path]:
    """Yield a fresh temporary path in `directory`; what still lies there when the block ends is removed.

    An OSError of the block that names no file, as of a write to a full disk, gets the name ``directory/stem``.
    """
    scratch = directory / f"{stem}.{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}"
    try:
        with naming_file(directory / stem):
            yield scratch
    finally:
        # On a disk that fails this fails too, and must not hide why. `ldata gc` knows the name.
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `final` when the block ends, and vanishes when it raises.

    The file is flushed to disk before it takes the name, the name after. `final`'s directory must exist.
    """
    with scratch_path(final.parent, final.name) as scratch:
        yield scratch
        sync_file(scratch)
        scratch.replace(final)
        sync_directory(final.parent)


def write_text(final: Path, text: str) -> None:
    """Write `text` as UTF-8 with LF line ends, atomically and durably."""
    with atomic_path(final) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def sync_file(path: Path) -> None:
    """Block until the bytes of `path` are on disk."""
    with naming_file(path), path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Block until the names in `directory` are on disk; a no-op on Windows, which cannot open directories."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with naming_file(directory):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError of the block that names no file the name of `path`: the system names none once a file is open."""
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
    """Make an empty folder, and remove it after the block; before, remove those of owners that are no more.

    Parameters
    ----------
    prefix
        What the names of all such folders begin with.
    parent
        Where they lie; the system's place for temporary files by default.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_abandoned(prefix, parent)
    folder = parent / f"{prefix}{uuid.uuid4().hex[:12]}"
    lock_path = parent / f"{folder.name}{_LOCK_SUFFIX}"
    lock = FileLock(lock_path, fallback_to_soft=False)
    # Without locks no other process takes this folder for an abandoned one.
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
        # It is in use, or another user's.
        with suppress(Timeout, OSError), lock:
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            lock_path.unlink()


UNSETTLED_NS = -2
"""Stands for a time so close to the look at the file that a later change might not show in it."""
_MAX_INT64 = 2**63 - 1
_BEYOND_ANY_CLOCK_NS = _MAX_INT64
_HAS_INODES = sys.platform != "win32"


class FileState(NamedTuple):
    """Size, times and number of a file, each in 64 bits with a sign.

    Attributes
    ----------
    size_bytes
        -1 where there is no regular file.
    mtime_ns
        Modification time since the epoch; programs may set it, as archivers and copying tools do.
    ctime_ns
        Time of the last change of content, name or permissions, which programs cannot set; creation time on Windows;
        0 if unavailable (object stores).
    inode
        Number of the file in its file system: another file under the same name has another. 0 where there is none: in
        object stores, and on Windows, whose listings of folders do not tell it.
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
"""The state of what is no regular file, or is not there at all."""


def state_of(status: os.stat_result) -> FileState:
    """The state that the system tells of a regular file.

    A time that 64 bits cannot hold becomes the latest one they can, which no look at a file ever takes for settled.
    """
    mtime_ns, ctime_ns, inode = status.st_mtime_ns, status.st_ctime_ns, status.st_ino if _HAS_INODES else 0
    # Nearly every file, without further calls: there may be a million.
    if 0 <= mtime_ns < _MAX_INT64 and 0 <= ctime_ns < _MAX_INT64 and inode <= _MAX_INT64:
        return FileState(status.st_size, mtime_ns, ctime_ns, inode)
    return FileState(status.st_size, time_in_64_bits(mtime_ns), time_in_64_bits(ctime_ns), _number(inode))


def time_in_64_bits(time_ns: int) -> int:
    """A time as a state holds it: of 64 bits, and none of the values that stand for something else."""
    if -_MAX_INT64 <= time_ns <= _MAX_INT64:
        # Two nanoseconds of 1969 have another meaning.
        return time_ns if time_ns not in (-1, UNSETTLED_NS) else UNSETTLED_NS - 1
    return _BEYOND_ANY_CLOCK_NS


def _number(inode: int) -> int:
    folded = inode & 0xFFFF_FFFF_FFFF_FFFF
    return folded if folded <= _MAX_INT64 else folded - 2**64
