"""Limits of this machine: free memory, free disk space, open files."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# A full disk, an exhausted quota, and a file of the maximal size.
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
# Windows' own codes of a full disk and a full handle.
_FULL_ON_WINDOWS = frozenset({112, 39})


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that there was no space for a file."""
    return isinstance(error, OSError) and (error.errno in _FULL or getattr(error, "winerror", None) in _FULL_ON_WINDOWS)


def free_disk_bytes(path: Path) -> int | None:
    """Return the free space for a file at `path`, which need not exist; None if unknown.

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


# Limit and use of a group of Linux's second and first kind.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def free_ram_bytes(groups: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory that is free for this process, within the limits of its control groups on Linux.

    Groups count cached files as used memory, so the result is rather too small than too large.
    """
    rooms = [_room_bytes(folder) for folder in _memory_groups(groups, own_groups)]
    return min([int(psutil.virtual_memory().available), *(room for room in rooms if room is not None)])


def _memory_groups(groups: Path, own_groups: Path) -> Iterator[Path]:
    """Folders of the groups that limit this process's memory, from its own to the outermost."""
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = groups / controllers
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))
            # In a container the path may be that of the host, and the group is at the root.
            yield root


def _room_bytes(folder: Path) -> int | None:
    for limit_name, used_name in _FILES:
        try:
            limit, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit_name, used_name))
        except (OSError, ValueError):
            # Absent, or "max": no limit.
            continue
        return max(limit - used, 0)
    return None


if sys.platform != "win32":
    import resource

_SPARE = 256
"""Other open files of the process."""


def allow_open_files(num_files: int) -> None:
    """Raise this process's limit of open files to `num_files` and a few more, as far as the system allows."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files + _SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # macOS has a further limit for all processes.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, soft), hard))
