"""Arrays of file states, and which of them are settled."""

from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.files.atomic import NO_FILE, UNSETTLED_NS, FileState
from leukemia_data.records.sample_table import is_settled, settled, state_at, states_array, unsettled_states

NOW_NS = 1_700_000_000_500_000_000
SECOND_NS = 10**9
MS_NS = 10**6


def test_an_array_holds_the_states() -> None:
    states = [FileState(1, 2, 3, 4), NO_FILE, FileState(2**62, -5, 0, -(2**63))]
    array = states_array(iter(states), 3)
    assert (array.shape, array.dtype) == ((3, 4), np.int64)
    assert [state_at(array, row) for row in range(3)] == states
    assert states_array([], 0).shape == (0, 4)


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "expected"),
    [
        (NOW_NS - 10 * SECOND_NS, NOW_NS - 10 * SECOND_NS + 1, True),
        # Modification times may be rounded to two seconds.
        (NOW_NS - 1_900 * MS_NS, NOW_NS - 10 * SECOND_NS, False),
        (NOW_NS - 2_100 * MS_NS, NOW_NS - 10 * SECOND_NS, True),
        (NOW_NS + SECOND_NS, NOW_NS - 10 * SECOND_NS, False),
        # Change times come from a clock that ticks every 10 ms at the least.
        (0, NOW_NS - 15 * MS_NS, False),
        (0, NOW_NS - 25 * MS_NS, True),
        (0, NOW_NS + 1, False),
        (0, 2**63 - 1, False),
        (2**63 - 1, 0, False),
        # Whole seconds: of a file system that knows no finer ones.
        (0, (NOW_NS // SECOND_NS - 1) * SECOND_NS, False),
        (0, (NOW_NS // SECOND_NS - 2) * SECOND_NS, True),
        # None at all: an object of a store.
        (0, 0, True),
        (-SECOND_NS, -SECOND_NS, True),
    ],
)
def test_times_close_to_the_listing_are_not_settled(mtime_ns: int, ctime_ns: int, expected: bool) -> None:
    states = states_array([FileState(9, mtime_ns, ctime_ns, 7)], 1)
    before = states.copy()
    result = settled(states, NOW_NS)
    assert is_settled(result).tolist() == [expected]
    assert np.array_equal(states, before)
    assert (result[0, 0], result[0, 3]) == (9, 7)
    assert np.array_equal(result, states) == expected
    assert set(result[result != states].tolist()) <= {UNSETTLED_NS}


def test_unsettled_states_are_those_of_no_file() -> None:
    assert not is_settled(unsettled_states(3)).any()
    assert (unsettled_states(3)[:, 0] == -1).all()
