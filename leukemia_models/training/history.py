"""The epochs of a run: which one is best, and when early stopping ends it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.files.documents import COUNT, NUMBER, NUMBER_OR_NONE, Kind, require_kinds


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch. The `valid_*` fields are None without a validation split, or where undefined.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    lr : float
        Learning rate of the epoch's last step.
    train_loss, train_accuracy : float
        Means over the epoch's samples, in training mode, on augmented images, while the weights moved. The loss is the
        one that was minimised: with label smoothing or class weights it is not comparable to `valid_loss`.
    valid_loss, valid_accuracy : float or None
        Means over the validation samples, in eval mode, with the weights of the epoch's end, or with their running
        average where the run keeps one. The loss is the plain cross-entropy, whatever was minimised.
    valid_balanced_accuracy, valid_weighted_f1, valid_auroc : float or None
        See :class:`~leukemia_models.evaluation.metrics.ClassificationMetrics`.
    seconds : float
        Training and validation together.
    images_per_s : float
        Training images per second of training.
    data_wait_share : float or None
        Fraction of the training time spent waiting for batches, in [0, 1]; with several ranks that of the one
        that waited longest. None in runs of earlier versions.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochRecord:
        """Return what :meth:`to_dict` wrote.

        Raises
        ------
        TypeError, ValueError
            If a field is missing, unknown or no number, as in a damaged file.
        """
        require_kinds(values, _KINDS)
        return cls(**values)


EPOCH_FIELDS = tuple(field.name for field in fields(EpochRecord))
_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(EPOCH_FIELDS, NUMBER),
        **{name: NUMBER_OR_NONE for name in EPOCH_FIELDS if name.startswith("valid_") or name == "data_wait_share"},
        "epoch": COUNT,
    }
)


@dataclass(frozen=True)
class TrainHistory:
    """The epochs of a run, in order.

    Parameters
    ----------
    records : tuple of EpochRecord
        One per finished epoch.
    """

    records: tuple[EpochRecord, ...] = ()

    @property
    def best(self) -> EpochRecord | None:
        """The best epoch so far, see :func:`best_record`."""
        return best_record(self.records)

    def extended(self, record: EpochRecord) -> TrainHistory:
        """Return the history with one more epoch."""
        return TrainHistory((*self.records, record))


def best_record(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the epoch whose weights are evaluated as the run's, None for no epochs.

    The highest balanced accuracy on the validation split; among equals the lower validation loss, then the
    earlier epoch. Where the validation split holds one class only, accuracy takes the place of balanced accuracy.
    Without validation there is nothing to choose by, and the last epoch is the answer: picking by training loss would
    only pick the most overfitted.
    """
    if not records or records[-1].valid_loss is None:
        return records[-1] if records else None
    return max(records, key=_merit)


def validation_score(record: EpochRecord) -> float | None:
    """Return the balanced accuracy, or the accuracy if there is one class only; None without validation."""
    score = record.valid_balanced_accuracy
    return record.valid_accuracy if score is None else score


def improvements(losses: Iterable[float], min_delta: float = 0.0) -> Iterator[bool]:
    """Yield for each of some numbers, of which the lowest is best, whether it beats all improvements before it.

    To count as an improvement, a number must be lower than the last improvement by more than `min_delta`. The first
    one always is.
    """
    best = math.inf
    for loss in losses:
        improved = loss < best - min_delta
        best = loss if improved else best
        yield improved


def _merit(record: EpochRecord) -> tuple[float, float]:
    score, loss = validation_score(record), record.valid_loss
    return (score if score is not None else -1.0, -loss if loss is not None else float("-inf"))


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
    """Return whether a run with these epochs behind it ends early. Epochs without validation do not count."""
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
