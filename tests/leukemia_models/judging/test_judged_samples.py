from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_models.judging.judged_samples import JudgedSamples

SAMPLES = JudgedSamples(("a", "b", "c"), ("1", "", "H1"), np.array([1, 1, 0]), np.array([0.9, 0.4, 0.2]))


def test_rows_are_taken_in_the_order_asked_for() -> None:
    found = SAMPLES.take(np.array([2, 0]))
    assert (found.ids, found.subjects) == (("c", "a"), ("H1", "1"))
    assert found.labels_N.tolist() == [0, 1]
    assert found.probabilities_NK == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9]]))
    assert len(SAMPLES) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ids": ("a",)}, "differ in number"),
        ({"labels_N": np.array([0, 1, 2])}, "0 or 1"),
        ({"probabilities_N": np.array([0.5, 0.5, 1.5])}, r"\[0, 1\]"),
        ({"probabilities_N": np.array([0.5, 0.5, np.nan])}, r"\[0, 1\]"),
        ({"ids": (), "subjects": (), "labels_N": np.zeros(0, int), "probabilities_N": np.zeros(0)}, "has a label"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        JudgedSamples(**{**vars(SAMPLES), **values})
