"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
