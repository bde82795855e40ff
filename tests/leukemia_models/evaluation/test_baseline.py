from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.classification import majority_baseline


def test_majority_baseline_of_the_data_set() -> None:
    """7,272 `all` and 3,389 `hem`: accuracy 0.682, weighted F1 p * 2p / (1 + p)."""
    share = 7272 / 10661
    found = majority_baseline(np.repeat([1, 0], [7272, 3389]))
    assert found.prediction == 1
    assert found.accuracy == pytest.approx(share)
    assert found.weighted_f1 == pytest.approx(share * 2 * share / (1 + share))
    assert found.macro_f1 == pytest.approx(share / (1 + share))
    assert found.auprc == pytest.approx(share)


def test_majority_may_be_class_0() -> None:
    found = majority_baseline(np.array([0, 0, 1]))
    assert (found.prediction, found.accuracy) == (0, pytest.approx(2 / 3))


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        majority_baseline(np.zeros(0, dtype=np.int64))
