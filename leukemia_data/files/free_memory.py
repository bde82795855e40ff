"""How much memory a process can still have: of the machine, and of the group that a container or job is held in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

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
    therefore told too small rather than too large.
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
