"""Checks before a run begins; sizes of micro-batches are computed by hand."""

from __future__ import annotations

import pytest

from leukemia_data.errors import UsageError
from leukemia_models.runs.preflight import require_micro_batches
from leukemia_models.training.run_state import TrainSettings


@pytest.mark.parametrize(
    ("batch_size", "num_train", "num_ranks", "accumulate", "sync", "fewest"),
    [
        (8, 100, 1, 4, True, None),
        (8, 100, 1, 5, True, 0),  # 2 2 2 2 0
        (10, 100, 4, 1, True, None),  # seen together
        (10, 100, 4, 1, False, 1),  # 3 3 3 1
        (10, 100, 2, 2, True, 1),
        (9, 100, 3, 1, False, None),
        (9, 5, 3, 1, False, 1),  # the only batch holds 5: 2 2 1
        (2, 100, 1, 1, False, None),
    ],
)
def test_each_micro_batch_must_have_two_images_where_batchnorm_sees_it_alone(
    batch_size: int, num_train: int, num_ranks: int, accumulate: int, sync: bool, fewest: int | None
) -> None:
    settings = TrainSettings(epochs=1, accumulate=accumulate, sync_batchnorm=sync)
    if fewest is None:
        require_micro_batches(batch_size, num_train, settings, num_ranks)
        return
    with pytest.raises(UsageError, match=f"leave {fewest} for the last one"):
        require_micro_batches(batch_size, num_train, settings, num_ranks)
