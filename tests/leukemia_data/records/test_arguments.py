from __future__ import annotations

import numpy as np
import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_flag, as_labels, as_numbers, as_whole


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_any_type_are_ints(value):
    found = as_whole(value, "batch_size", at_least=1, below=4)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), 3.0, np.float32(3), "3", None, [3], np.array([3]), torch.tensor(3.0)]
)
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(UsageError, match="batch_size must be a whole number, got"):
        as_whole(value, "batch_size")


@pytest.mark.parametrize(("value", "words"), [(0, r"in 1 \.\.\. 3, got 0"), (4, r"in 1 \.\.\. 3, got 4")])
def test_whole_numbers_outside_the_range_are_refused(value, words):
    with pytest.raises(UsageError, match=words):
        as_whole(value, "rank", at_least=1, below=4)


def test_flags_are_true_or_false():
    assert [as_flag(value, "drop_last") for value in (True, np.False_)] == [True, False]
    for value in (1, "no", None, np.array(True)):
        with pytest.raises(UsageError, match="drop_last must be True or False"):
            as_flag(value, "drop_last")


@pytest.mark.parametrize("values", [[1, 2.5], np.array([1, 2.5], np.float32), torch.tensor([1, 2.5])])
def test_numbers_become_floats(values):
    found = as_numbers(values, "weights_N")
    assert (found.dtype, found.tolist()) == (np.float64, [1, 2.5])
    assert len(as_numbers([], "weights_N")) == 0


@pytest.mark.parametrize(
    "values", ["12", ["1", "2"], [True, False], [1j], [None], [[1], [1, 2]], np.ma.array([1, 2], mask=[0, 1]), {1: 2}]
)
def test_what_is_no_array_of_numbers_is_refused_by_name(values):
    with pytest.raises(UsageError, match="weights_N must be numbers, got"):
        as_numbers(values, "weights_N")


def test_labels_are_whole_numbers_or_truths():
    assert as_labels([True, False], "labels_N").tolist() == [1, 0]
    assert as_labels(torch.tensor([1, 0]), "labels_N").tolist() == [1, 0]
    with pytest.raises(UsageError, match="labels_N must be whole numbers"):
        as_labels([0.0, 1.0], "labels_N")
