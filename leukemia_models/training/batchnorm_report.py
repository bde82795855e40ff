"""Comparison of running and re-estimated BatchNorm statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.metrics import POSITIVE
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import AUTO, REESTIMATED, RUNNING, require_batchnorm_mode
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, applied

TWO_CLASSES = ("hem", "all")


@dataclass(frozen=True, kw_only=True)
class BatchNormScores:
    """Scores of a network in eval mode with one kind of statistics.

    Parameters
    ----------
    loss : float
        Mean cross-entropy.
    accuracy, balanced_accuracy, one_class_warning
        As in :class:`~leukemia_models.evaluation.classification.ClassificationMetrics`.
    share_positive : float or None
        Fraction of the predictions that are class 1 of two; None of more classes.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float | None
    share_positive: float | None
    one_class_warning: str | None

    @classmethod
    def of(cls, predictions: Predictions, classes: Sequence[str] = TWO_CLASSES) -> BatchNormScores:
        """Evaluate predictions of labelled images."""
        probabilities_NK = predictions.probabilities_NK
        scores = classification_metrics(predictions.labels_N, probabilities_NK, classes, of_each_class=False)
        predicted_N = probabilities_NK.argmax(axis=1)
        return cls(
            loss=predictions.loss,
            accuracy=scores.accuracy,
            balanced_accuracy=scores.balanced_accuracy,
            share_positive=float((predicted_N == POSITIVE).mean()) if len(classes) == 2 else None,
            one_class_warning=scores.one_class_warning,
        )


@dataclass(frozen=True, kw_only=True)
class BatchNormReport:
    """Scores with running statistics and with re-estimated ones.

    Parameters
    ----------
    mode : {"auto", "running", "reestimated"}
        "auto" chooses the re-estimated ones where they are better.
    judged_on : str
        Part of the split that the scores are of, such as ``valid``.
    num_judged : int
        Number of its images.
    num_images : int
        Number of training images of the re-estimation; 0 for a network without statistics.
    running : BatchNormScores
        With the statistics of training.
    reestimated : BatchNormScores or None
        None for a network without statistics.
    class_name : str
        Name of class 1, for the text.
    """

    mode: str
    judged_on: str
    num_judged: int
    num_images: int
    running: BatchNormScores
    reestimated: BatchNormScores | None
    class_name: str = TWO_CLASSES[POSITIVE]

    def __post_init__(self) -> None:
        require_batchnorm_mode(self.mode)

    @property
    def better(self) -> str | None:
        """The statistics with the lower cross-entropy, "running" when equal; None without re-estimated ones."""
        if self.reestimated is None:
            return None
        return REESTIMATED if self.reestimated.loss < self.running.loss else RUNNING

    @property
    def chosen(self) -> str:
        """The statistics to use under the mode: "running" or "reestimated"."""
        if self.better is None:
            return RUNNING
        return self.better if self.mode == AUTO else self.mode

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, `better` and `chosen` as JSON values."""
        return {**asdict(self), "better": self.better, "chosen": self.chosen}

    def text(self) -> str:
        """Return one line on the choice, and one for each warning."""
        if self.reestimated is None:
            return "BatchNorm: the network has no running statistics, nothing to re-estimate"
        chosen = "the re-estimated statistics" if self.chosen == REESTIMATED else "the running statistics"
        line = (
            f"BatchNorm: {chosen} are used ({self.mode}). On {self.num_judged:,} images ({self.judged_on}), running -> "
            f"re-estimated from {self.num_images:,} training images: {self._changes(self.running, self.reestimated)}"
        )
        texts = {"running": self.running.one_class_warning, "re-estimated": self.reestimated.one_class_warning}
        return "\n".join([line, *(f"With {name} statistics {text}" for name, text in texts.items() if text)])

    def _changes(self, running: BatchNormScores, reestimated: BatchNormScores) -> str:
        changes = [
            f"cross-entropy {running.loss:.4f} -> {reestimated.loss:.4f}",
            f"accuracy {running.accuracy:.3f} -> {reestimated.accuracy:.3f}",
        ]
        if running.balanced_accuracy is not None and reestimated.balanced_accuracy is not None:
            changes.append(f"balanced accuracy {running.balanced_accuracy:.3f} -> {reestimated.balanced_accuracy:.3f}")
        if running.share_positive is not None and reestimated.share_positive is not None:
            shares = f"{running.share_positive:.3f} -> {reestimated.share_positive:.3f}"
            changes.append(f"share of {self.class_name!r} {shares}")
        return ", ".join(changes)


def compare_batchnorm(
    model: nn.Module,
    statistics: BatchNormStatistics,
    predict: Callable[[], Predictions],
    *,
    mode: str,
    judged_on: str,
    classes: Sequence[str] = TWO_CLASSES,
) -> BatchNormReport:
    """Evaluate a network with its running statistics and with re-estimated ones; it is left unchanged.

    Parameters
    ----------
    model : torch.nn.Module
        With its running statistics.
    statistics : BatchNormStatistics
        From :func:`~leukemia_models.training.batchnorm_statistics.reestimate_batchnorm`.
    predict : callable
        Predicts labelled images, other than those of the re-estimation, with the present statistics of `model`. Called
        by all ranks, once for each kind of statistics.
    mode, judged_on
        As for :class:`BatchNormReport`.
    classes : sequence of str
        Names of the classes.

    Raises
    ------
    UsageError
        If the mode is unknown, or the images have no labels.
    """
    require_batchnorm_mode(mode)
    predictions = predict()
    reestimated = None
    if not statistics.is_empty:
        with applied(statistics, model):
            reestimated = BatchNormScores.of(predict(), classes)
    return BatchNormReport(
        mode=mode,
        judged_on=judged_on,
        num_judged=len(predictions.labels_N),
        num_images=statistics.num_images,
        running=BatchNormScores.of(predictions, classes),
        reestimated=reestimated,
        class_name=classes[POSITIVE],
    )
