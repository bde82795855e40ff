"""How many files a process may have open at a time."""

from __future__ import annotations

import sys
from contextlib import suppress

if sys.platform != "win32":
    import resource

_SPARE = 256
"""For everything else that a process opens."""


def allow_open_files(num_files: int) -> None:
    """Raise this process's own limit so that `num_files` more can be open, as far as the system lets it.

    Many systems begin with a limit of 1,024 files or 256, and let a process raise it itself. Who still runs into it is
    told when a file is opened. Windows has no such limit.
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
