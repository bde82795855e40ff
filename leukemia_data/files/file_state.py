"""The state of a file by which a later look at it tells whether it is still the same one."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

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
        Modification time since the epoch; anybody may set it, archives and copying programs do.
    ctime_ns
        Time of the last change of content, name or rights, which nobody can set; on Windows that of the creation. 0
        where the file system tells none (object stores).
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
