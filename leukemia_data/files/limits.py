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


_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Limit and use of a group of Linux's second and first kind.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def free_ram_bytes(groups: Path = _GROUPS, own_groups: Path = _OWN_GROUPS) -> int:
    """Memory that this process can still have.

    Parameters
    ----------
    groups, own_groups
        Where Linux tells of control groups, and of those of this process. Elsewhere there are none.

    Notes
    -----
    What a group uses includes files that its processes have read and the system could forget: a group's room is
    therefore an estimate that is too small rather than too large.
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
            # In a container the path may be that of the host, and the group itself lies at the root.
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
"""For everything else that a process opens."""


def allow_open_files(num_files: int) -> None:
    """Raise this process's limit of open files by `num_files`, as far as the system allows.

    Many systems start with a limit of 1,024 or 256, which a process may raise. Exceeding it raises an error when a file
    is opened. Windows has no such limit.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files + _SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # macOS refuses more than it has for all processes.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
