"""How much room is left on a disk, and whether an error says that there was none."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# A disk that is full, a user's share of it that is, and a file at the largest size that is allowed.
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
# Of Windows, which does not always say it as the others do: disk full, and handle disk full.
_FULL_ON_WINDOWS = frozenset({112, 39})


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that a file could not be written for lack of room."""
    return isinstance(error, OSError) and (error.errno in _FULL or getattr(error, "winerror", None) in _FULL_ON_WINDOWS)


def free_disk_bytes(path: Path) -> int | None:
    """Room for a file at `path`, which need not exist; None where the system does not say.

    >>> free_disk_bytes(Path("a-folder/that-is/not-there")) == free_disk_bytes(Path())
    True
    """
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), None)
    if existing is None:
        return None
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return None
    # Some network file systems answer with zeros.
    return usage.free if usage.total else None
