"""Choices of samples select what NumPy's indexing selects, or raise an error that names the argument."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_indices, own_indices

LENGTH = 9
INTEGERS = st.lists(st.integers(0, LENGTH - 1), max_size=12)
TRUTHS = st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH)


def kind(values: list) -> str:
    return "bool" if values and isinstance(values[0], bool) else "uint8"


def shuffled_series(values: list) -> pd.Series:
    """Of labels that are not the positions."""
    return pd.Series(values, index=range(len(values))[::-1], dtype=kind(values))


FORMS = [
    list,
    tuple,
    np.array,
    lambda values: np.array(values, kind(values)),
    shuffled_series,
    pd.Index,
    torch.tensor,
    lambda values: pd.array(values),
    lambda values: np.array(values, object),
    lambda values: np.repeat(np.array(values), 2)[::2],
]


@given(values=INTEGERS | TRUTHS, form=st.sampled_from(FORMS))
def test_values_choose_what_numpy_chooses(values, form):
    samples = np.arange(LENGTH) * 10
    expected = samples[np.array(values, None if values else np.int64)]
    found = as_indices(form(values), LENGTH, "numbers")
    assert found.dtype == np.int64
    assert samples[found].tolist() == expected.tolist()


@given(st.integers(-3, 12), st.integers(-3, 12), st.integers(-3, 3).filter(bool))
def test_ranges_are_their_numbers_or_refused(start, stop, step):
    chosen = range(start, stop, step)
    if all(0 <= number < LENGTH for number in chosen):
        assert as_indices(chosen, LENGTH, "numbers").tolist() == list(chosen)
    else:
        with pytest.raises(UsageError, match="numbers must be"):
            as_indices(chosen, LENGTH, "numbers")


@pytest.mark.parametrize(
    "wrong",
    [
        [-1],
        [LENGTH],
        [2**70],
        np.array([2**64 - 1], np.uint64),
        [1.0],
        np.array([0.5]),
        [np.nan],
        pd.Series([1, None]),
        pd.Series([1, None], dtype="Int64"),
        torch.tensor([1.0]),
        "12",
        ["1"],
        b"1",
        [None],
        None,
        3,
        np.array(3),
        [[1, 2]],
        [[1], [2, 3]],
        pd.DataFrame({"number": [1]}),
        [True] * (LENGTH - 1),
        np.ones(LENGTH + 1, bool),
        np.array([], bool),
        [True, 2],
        [True, *[0] * (LENGTH - 1)],
        {1, 2},
        {1: 2},
        iter([1]),
        np.ma.array([1, 2], mask=[False, True]),
        np.array([1], "m8[s]"),
        torch.tensor([1]).to("meta"),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_anything_else_is_refused_by_name_with_what_is_right(wrong):
    with pytest.raises(UsageError, match=r"rows must be whole numbers in 0 \.\.\. 8, or a mask of 9 truth values"):
        as_indices(wrong, LENGTH, "rows")


def test_without_a_length_masks_are_refused_and_no_index_is_too_large():
    assert as_indices([10**12], None, "numbers").tolist() == [10**12]
    for wrong in (np.ones(3, bool), [-1]):
        with pytest.raises(UsageError, match="numbers must be whole numbers from 0"):
            as_indices(wrong, None, "numbers")


def test_kept_indices_are_copies():
    given_numbers = np.array([3, 1])
    own = own_indices(given_numbers, LENGTH, "numbers")
    given_numbers[:] = 0
    assert own.tolist() == [3, 1]
    with pytest.raises(ValueError, match="read-only"):
        own[0] = 2
