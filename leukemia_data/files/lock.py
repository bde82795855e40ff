"""One writer per cache directory at a time.

The lock is the operating system's own (``flock`` or its Windows kin) on a file that stays: it is released when its
holder ends, however it ends, so there is no stale lock to clean up. Readers never need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from leukemia_data.errors import CacheError

LOCK_NAME = ".lock"


@contextmanager
def lock_cache(directory: Path) -> Iterator[None]:
    """Hold the writer's lock of a cache directory, which is made if it does not exist.

    Raises
    ------
    CacheError
        If another process holds it, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK_NAME, timeout=0)
        lock.acquire()
    except Timeout:
        raise CacheError(f"another build or gc is working on {directory}: wait for it to end") from None
    except OSError as error:
        raise CacheError(f"{directory} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
