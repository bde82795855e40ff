"""What training tells people: one line an epoch."""

from __future__ import annotations

from leukemia_models.training.history import EpochRecord


def epoch_line(record: EpochRecord, epochs: int, is_best: bool) -> str:
    """One finished epoch on one line."""
    return (
        f"epoch {record.epoch:>3}/{epochs}  train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}  "
        f"{_validation(record)}{record.seconds:.1f} s, {record.images_per_s:.0f} images/s, {_wait(record)}"
        f"{'  best' if is_best and record.valid_loss is not None else ''}"
    )


def _validation(record: EpochRecord) -> str:
    """What the validation part said; nothing where there is none."""
    if record.valid_loss is None:
        return ""
    return (
        f"valid loss {_number(record.valid_loss)} acc {_number(record.valid_accuracy)} "
        f"bal {_number(record.valid_balanced_accuracy)} wF1 {_number(record.valid_weighted_f1)}  "
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _wait(record: EpochRecord) -> str:
    """How much of the training time was spent waiting for batches."""
    return "" if record.data_wait_share is None else f"waiting {100 * record.data_wait_share:.2f} %"
