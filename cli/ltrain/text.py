"""What training and judging tell people: one line an epoch, a few lines a judged part."""

from __future__ import annotations

from leukemia_models.history import EpochRecord
from leukemia_models.report import Results


def epoch_line(record: EpochRecord, epochs: int, is_best: bool) -> str:
    """One finished epoch on one line."""
    return (
        f"epoch {record.epoch:>3}/{epochs}  train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}  "
        f"valid loss {_number(record.valid_loss)} acc {_number(record.valid_accuracy)} "
        f"bal {_number(record.valid_balanced_accuracy)} wF1 {_number(record.valid_weighted_f1)}  "
        f"{record.seconds:.1f} s, {record.images_per_s:.0f} images/s, {_wait(record)}{'  best' if is_best else ''}"
    )


def result_lines(part: str, results: Results) -> str:
    """One judged part in a few lines for people."""
    metrics = results.metrics

    recall = ", ".join(
        f"{name} {_number(value)}" for name, value in zip(results.classes, metrics.recall_per_class, strict=True)
    )
    lines = [
        f"{part} ({metrics.num_samples:,} images, epoch {results.epoch}, {results.split.stamp}):",
        f"  balanced accuracy {_number(metrics.balanced_accuracy)}, recall {recall}",
        f"  weighted F1 {metrics.weighted_f1:.3f} (always the larger class: {results.baseline.weighted_f1:.3f}), "
        f"macro F1 {_number(metrics.macro_f1)}, AUROC {_number(metrics.auroc)}",
        *(f"  caution: {sentence}" for sentence in results.to_dict()["cautions"]),
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _wait(record: EpochRecord) -> str:
    """How much of the training time was spent waiting for batches."""
    return "" if record.data_wait_share is None else f"waiting {100 * record.data_wait_share:.2f} %"
