"""Early stopping: a rule and the epochs so far in, whether to go on out. A pure function, so a resumed run agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leukemia_data.errors import UsageError
from leukemia_models.learning.history import EpochRecord, improvements, validation_score

STOPPING_METRICS = ("balanced_accuracy", "loss")


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """End a run when its validation has not become better for a while.

    Parameters
    ----------
    patience_epochs : int
        So many epochs in a row without an improvement end the run; at least 1.
    min_delta : float
        By how much a value must be better than the best one before to count as better; >= 0.
    metric : {"balanced_accuracy", "loss"}
        What is watched on the validation split. Where it holds one class only, accuracy takes the place of balanced
        accuracy.

    Raises
    ------
    UsageError
        If a value is outside its range.
    """

    patience_epochs: int
    min_delta: float = 0.0
    metric: str = "balanced_accuracy"

    def __post_init__(self) -> None:
        if self.patience_epochs < 1:
            raise UsageError(f"patience_epochs must be at least 1, got {self.patience_epochs}")
        if not 0 <= self.min_delta < math.inf:
            raise UsageError(f"min_delta must be finite and not below 0, got {self.min_delta}")
        if self.metric not in STOPPING_METRICS:
            raise UsageError(f"unknown metric {self.metric!r}; early stopping watches {' or '.join(STOPPING_METRICS)}")


def has_stopped(stopping: EarlyStopping | None, records: Sequence[EpochRecord]) -> bool:
    """Return whether a run with these epochs behind it ends early. Epochs that were not judged do not count."""
    if stopping is None:
        return False
    loss_like = [value for record in records if (value := _loss_like(record, stopping.metric)) is not None]
    num_without = 0
    for improved in improvements(loss_like, stopping.min_delta):
        num_without = 0 if improved else num_without + 1
        if num_without >= stopping.patience_epochs:
            return True
    return False


def _loss_like(record: EpochRecord, metric: str) -> float | None:
    """Return the watched value, turned so that lower is better."""
    if metric == "loss":
        return record.valid_loss
    score = validation_score(record)
    return None if score is None else -score
