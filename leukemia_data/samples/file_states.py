"""States of many files as one array, and which of them a later look may be compared with.

A row holds the four numbers of a :class:`~leukemia_data.files.file_state.FileState`, in its order.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leukemia_data.files.file_state import UNSETTLED_NS, FileState

FileStates: TypeAlias = "NDArray[np.int64]"
"""Array of shape (n, 4), int64: size in bytes, modification time and change time in ns, inode."""
SIZE, MTIME, CTIME, INODE = range(4)

_SECOND_NS = 10**9
# Time stamps that programs set may be rounded to two seconds, and some file systems know no finer ones.
_MTIME_GRAIN_NS = 2 * _SECOND_NS
# Linux takes change times from a clock that ticks every 1 to 10 ms.
_CTIME_GRAIN_NS = 20_000_000
_WHOLE_SECONDS_GRAIN_NS = 2 * _SECOND_NS


def states_array(states: Iterable[FileState], num_states: int) -> FileStates:
    """The array of `num_states` states."""
    return np.fromiter(chain.from_iterable(states), np.int64, 4 * num_states).reshape(num_states, 4)


def state_at(states: FileStates, row: int) -> FileState:
    """The state in one row."""
    return FileState(*states[row].tolist())


def unsettled_states(num_states: int) -> FileStates:
    """States that never match: nothing is known of the files."""
    states = np.zeros((num_states, 4), np.int64)
    states[:] = FileState(mtime_ns=UNSETTLED_NS, ctime_ns=UNSETTLED_NS)
    return states


def settled(states: FileStates, listed_at_ns: int) -> FileStates:
    """The states with :data:`~leukemia_data.files.file_state.UNSETTLED_NS` for times that may hide a later change.

    Files are read after they are listed, and a change after that gets the time that a clock shows then. It differs from
    the recorded one, unless that lies within the clock's grain before the listing, or after it.

    Parameters
    ----------
    states
        Of each file while it was read.
    listed_at_ns
        Clock before the source was listed (ns since the epoch).
    """
    result = states.copy()
    mtimes, ctimes = states[:, MTIME], states[:, CTIME]
    result[mtimes > listed_at_ns - _MTIME_GRAIN_NS, MTIME] = UNSETTLED_NS
    grains = np.where(ctimes % _SECOND_NS == 0, _WHOLE_SECONDS_GRAIN_NS, _CTIME_GRAIN_NS)
    result[ctimes > listed_at_ns - grains, CTIME] = UNSETTLED_NS
    return result


def is_settled(states: FileStates) -> NDArray[np.bool_]:
    """Whether a file that has this state now is the one that had it then, shape (n,)."""
    return np.asarray((states[:, MTIME] != UNSETTLED_NS) & (states[:, CTIME] != UNSETTLED_NS), np.bool_)
