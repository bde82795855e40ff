"""Evaluate a network four ways after every epoch, to show why it can fail in eval mode but not in training mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_models.devices.normalization import Batch, BatchSource, Normalization, Normalizer
from leukemia_models.evaluation.predict import average_views, predict_probabilities, views
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import D4, LOGITS, Tta
from leukemia_models.reports.style import BLUE, GREEN, ORANGE, VERMILION, stamped_figure, tick_whole_numbers
from leukemia_models.training.batchnorm_report import BatchNormScores
from leukemia_models.training.batchnorm_statistics import applied, reestimate_batchnorm
from leukemia_models.training.history import EpochRecord
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.train import Observer, fit

WAYS = ("eval_at_once", "train_mode", "eval_after_train_mode", "eval_reestimated")


@dataclass(frozen=True, kw_only=True)
class EpochScores:
    """The same weights on the same validation images, evaluated four ways.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    train_accuracy : float
        In training mode, on augmented images, during the epoch.
    eval_at_once : BatchNormScores
        In eval mode with the statistics after training.
    train_mode : BatchNormScores
        In training mode with eight views of each image, as the report validated.
    eval_after_train_mode : BatchNormScores
        In eval mode with the statistics after those passes, as the report tested.
    eval_reestimated : BatchNormScores
        In eval mode with statistics from training images without augmentation.
    """

    epoch: int
    train_accuracy: float
    eval_at_once: BatchNormScores
    train_mode: BatchNormScores
    eval_after_train_mode: BatchNormScores
    eval_reestimated: BatchNormScores

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def train_four_ways(
    model: nn.Module,
    train_source: BatchSource,
    clean_source: BatchSource,
    valid_source: BatchSource,
    settings: TrainSettings,
    normalization: Normalization,
    augmentation: Augmentation,
    device: torch.device,
    on_step: Callable[[int], object] | None = None,
) -> list[EpochScores]:
    """Train `model` in place and evaluate it four ways after every epoch.

    Parameters
    ----------
    model : torch.nn.Module
        Maps normalised images to two logits.
    train_source, clean_source, valid_source : BatchSource
        Images for training, for re-estimated statistics and for validation, in shuffled batches: in training mode the
        scores depend on the other images of a batch.
    on_step : callable, optional
        Called with 1 after each training step.
    """
    evaluation = _Evaluation(model, clean_source, valid_source, normalization, device, settings.channels_last)
    observer = _EpochEvaluation(evaluation, on_step)
    augmenter = Augmenter(
        augmentation,
        seed=settings.seed,
        mean=normalization.mean,
        std=normalization.std,
        device=device,
        channels_last=settings.channels_last,
    )
    fit(model, train_source, None, settings, normalization, augmenter, device, observer)
    return observer.epochs


class _EpochEvaluation(Observer):
    def __init__(self, evaluation: _Evaluation, on_step: Callable[[int], object] | None) -> None:
        self._evaluation, self._on_step = evaluation, on_step
        self.epochs: list[EpochScores] = []

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if self._on_step is not None:
            self._on_step(1)

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        self.epochs.append(
            EpochScores(epoch=record.epoch, train_accuracy=record.train_accuracy, **self._evaluation.four_ways())
        )


@dataclass(frozen=True)
class _Evaluation:
    """Evaluates a network without changing it."""

    model: nn.Module
    clean_source: BatchSource
    valid_source: BatchSource
    normalization: Normalization
    device: torch.device
    channels_last: bool

    def four_ways(self) -> dict[str, BatchNormScores]:
        changed = copy.deepcopy(self.model)
        found = [
            self._in_eval_mode(self.model),
            predict_in_train_mode(changed, self.valid_source.epoch(1), self.normalization, self.device),
            self._in_eval_mode(changed),
        ]
        statistics = reestimate_batchnorm(
            self.model, self.clean_source.epoch(1), self.normalization, self.device, channels_last=self.channels_last
        )
        with applied(statistics, self.model):
            found.append(self._in_eval_mode(self.model))
        return {way: BatchNormScores.of(predictions) for way, predictions in zip(WAYS, found, strict=True)}

    def _in_eval_mode(self, model: nn.Module) -> Predictions:
        batches = self.valid_source.epoch(1)
        return predict_probabilities(model, batches, self.normalization, self.device, channels_last=self.channels_last)


@torch.no_grad()
def predict_in_train_mode(
    model: nn.Module, batches: Iterable[Batch], normalization: Normalization, device: torch.device
) -> Predictions:
    """Predict as the validation of the second report did; for this experiment only.

    In training mode each of the eight views of a batch is normalised by its own statistics, which also update the
    running ones of `model`. Batches hold two or more labelled images.
    """
    model.train()
    normalizer = Normalizer(normalization, device)
    logits, labels, indices = [], [], []
    for batch in batches:
        views_V = views(Tta(D4), batch.images_BHWC.to(device))
        logits.append(torch.stack([model(normalizer(view_BHWC)) for view_BHWC in views_V], dim=1).cpu().double())
        labels.append(batch.labels_B.cpu())
        indices.append(batch.indices_B)
    log_probabilities_NK = average_views(torch.cat(logits), LOGITS).log_softmax(dim=1)
    return Predictions(
        torch.cat(indices).numpy().astype(np.int64), torch.cat(labels).numpy(), log_probabilities_NK.numpy()
    )


WAY_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "eval_at_once": "(i) eval mode at once",
        "train_mode": "(ii) training mode, 8 views",
        "eval_after_train_mode": "(iii) eval mode after (ii)",
        "eval_reestimated": "(iv) eval mode, re-estimated",
    }
)
# In the order of the titles: colour, line and marker.
_STYLES = ((VERMILION, "-", "o"), (BLUE, "--", "s"), (ORANGE, ":", "^"), (GREEN, "-.", "D"))


def draw_batchnorm(epochs: Sequence[EpochScores], *, share_of_labels: float, title: str, stamp: str) -> Figure:
    """Draw validation accuracy, the fraction of predictions of class 1 and the cross-entropy, per epoch.

    Parameters
    ----------
    epochs : sequence of EpochScores
        One or more.
    share_of_labels : float
        Fraction of class 1 in the validation labels, which is also the accuracy of always predicting class 1.
    title, stamp : str
        As for :func:`~leukemia_models.reports.style.stamped_figure`.
    """
    figure = stamped_figure((13.0, 4.4), title, stamp)
    accuracy_axes, share_axes, loss_axes = figure.subplots(1, 3)
    _draw_panel(accuracy_axes, epochs, "accuracy", "validation accuracy")
    _draw_panel(share_axes, epochs, "share_positive", "answers that are class 1 (ALL)")
    _draw_panel(loss_axes, epochs, "loss", "validation cross-entropy (log scale)")
    for axes, label in ((accuracy_axes, "always answering ALL"), (share_axes, "share of the labels")):
        line = axes.axhline(share_of_labels, color="0.45", linewidth=1, label=label)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(handles=[line], loc="lower right", fontsize=9)
    loss_axes.set_yscale("log")
    loss_axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
    return figure


def _draw_panel(axes: Axes, epochs: Sequence[EpochScores], quantity: str, label: str) -> None:
    xs = [scores.epoch for scores in epochs]
    for (way, title), (color, line, marker) in zip(WAY_TITLES.items(), _STYLES, strict=True):
        values = [getattr(getattr(scores, way), quantity) for scores in epochs]
        axes.plot(xs, values, label=title, color=color, ls=line, marker=marker, ms=6, markerfacecolor="none")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(min(xs) - 0.3, max(xs) + 0.3)
    tick_whole_numbers(axes.xaxis)
    axes.grid(visible=True, color="0.9")
