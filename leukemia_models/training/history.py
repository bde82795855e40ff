"""The epochs of a run, the best of them, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.files.documents import COUNT, COUNT_OR_NONE, NUMBER, NUMBER_OR_NONE, Kind, require_kinds


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch. The `valid_*` fields are None without a validation split, or where undefined.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    lr : float
        Learning rate of the last step.
    train_loss, train_accuracy : float
        Means over the augmented training images, in training mode, during the epoch. The loss includes label smoothing
        and class weights.
    valid_loss, valid_accuracy : float or None
        Means over the validation images, in eval mode, with the weights at the end of the epoch or their running
        average. The loss is the plain cross-entropy.
    valid_balanced_accuracy, valid_weighted_f1, valid_auroc : float or None
        See :class:`~leukemia_models.evaluation.classification.ClassificationMetrics`.
    seconds : float
        Time of training and validation.
    images_per_s : float
        Training images per second of training.
    data_wait_share : float or None
        Fraction of the training time spent waiting for batches, in [0, 1], the maximum over the ranks. None in runs of
        earlier versions.
    size_px : int or None
        Side to which the images were reduced, in a run with progressive sizes; else None.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    valid_loss: float | None
    valid_accuracy: float | None
    valid_balanced_accuracy: float | None
    valid_weighted_f1: float | None
    valid_auroc: float | None
    seconds: float
    images_per_s: float
    data_wait_share: float | None = None
    size_px: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochRecord:
        """Return what :meth:`to_dict` wrote; raise TypeError or ValueError if the file is damaged."""
        require_kinds(values, _KINDS)
        return cls(**values)


EPOCH_FIELDS = tuple(field.name for field in fields(EpochRecord))
VALID_FIELDS = tuple(name for name in EPOCH_FIELDS if name.startswith("valid_"))
_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(EPOCH_FIELDS, NUMBER),
        **dict.fromkeys((*VALID_FIELDS, "data_wait_share"), NUMBER_OR_NONE),
        "epoch": COUNT,
        "size_px": COUNT_OR_NONE,
    }
)


@dataclass(frozen=True)
class TrainHistory:
    """The finished epochs of a run, in order."""

    records: tuple[EpochRecord, ...] = ()

    @property
    def best(self) -> EpochRecord | None:
        """The epoch with the highest :func:`validation_score`, or None without epochs.

        Among equals it is that with the lower validation loss, then the earlier one; without validation the last one.
        With progressive sizes it is one of the epochs at the present size: other sizes are not comparable.
        """
        records = self.records
        if not records or records[-1].valid_loss is None:
            return records[-1] if records else None
        return max((record for record in records if record.size_px == records[-1].size_px), key=_merit)

    def extended(self, record: EpochRecord) -> TrainHistory:
        """Return the history with one more epoch."""
        return TrainHistory((*self.records, record))


def validation_score(record: EpochRecord) -> float | None:
    """Return the balanced accuracy, or the accuracy if validation has one class only; None without validation."""
    score = record.valid_balanced_accuracy
    return record.valid_accuracy if score is None else score


def since_improvement(losses: Iterable[float | None], min_delta: float = 0.0) -> Iterator[int]:
    """Yield for each loss, except None, how many losses ago one was lower than all before by more than `min_delta`."""
    best, count = math.inf, 0
    for loss in losses:
        if loss is not None:
            improved = loss < best - min_delta
            best, count = (loss, 0) if improved else (best, count + 1)
            yield count


def _merit(record: EpochRecord) -> tuple[float, float]:
    score, loss = validation_score(record), record.valid_loss
    return -1.0 if score is None else score, -math.inf if loss is None else -loss


STOPPING_METRICS = ("balanced_accuracy", "loss")


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Settings to end a run whose validation does not improve.

    Parameters
    ----------
    patience_epochs : int
        Number of epochs in a row without an improvement that ends the run; at least 1.
    min_delta : float
        Smallest improvement over the best value before; >= 0.
    metric : {"balanced_accuracy", "loss"}
        The first is :func:`validation_score`.

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
    """Return whether a run ends early after these epochs; epochs without validation do not count."""
    if stopping is None:
        return False
    if stopping.metric == "loss":
        losses = [record.valid_loss for record in records]
    else:
        losses = [-score for score in map(validation_score, records) if score is not None]
    return any(count >= stopping.patience_epochs for count in since_improvement(losses, stopping.min_delta))
