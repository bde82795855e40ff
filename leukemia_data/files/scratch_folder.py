"""A folder for work in between that is removed after it, and after a killed process by the next that asks for one.

Beside each folder lies a file that its owner holds locked. The system lets go of a lock when its holder ends, however
it ends: a folder whose lock can be had is nobody's any more.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

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
    # Where the system knows no locks nobody will think this folder abandoned.
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
