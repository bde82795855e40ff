"""One network evaluated four ways after every epoch: why one that does well in training mode can fail in eval mode."""

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
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor, nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_models.devices.normalization import Batch, BatchSource, Normalization, Normalizer
from leukemia_models.evaluation.predict import average_views, predict_probabilities, views
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import D4, LOGITS, Tta
from leukemia_models.reports.style import BLUE, GREEN, ORANGE, VERMILION, stamped_figure
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
        In training mode, on augmented images, while the weights moved.
    eval_at_once : BatchNormScores
        Eval mode with the statistics that training left.
    train_mode : BatchNormScores
        Training mode with eight views of each image, as the report validated.
    eval_after_train_mode : BatchNormScores
        Eval mode with the statistics that those passes left, as the report tested.
    eval_reestimated : BatchNormScores
        Eval mode with statistics from clean training images.
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
        Normalised images in, two logits out.
    train_source, clean_source, valid_source : BatchSource
        Training images for learning; the same or others, in shuffled batches, for the re-estimation; validation images
        in shuffled batches, for in training mode the company in a batch matters.
    settings : TrainSettings
        Length, optimizer, seed.
    normalization : Normalization
        Of the training images.
    augmentation : Augmentation
        Of the training images; drawn from the settings' seed.
    device : torch.device
        Where the network runs.
    on_step : callable, optional
        Called with 1 after each training step.

    Returns
    -------
    list of EpochScores
    """
    evaluation = _Evaluation(model, clean_source, valid_source, normalization, device, settings.channels_last)
    watcher = _Watcher(evaluation, on_step)
    augmenter = Augmenter(
        augmentation, seed=settings.seed, mean=normalization.mean, std=normalization.std, device=device
    )
    fit(model, train_source, None, settings, normalization, augmenter, device, watcher)
    return watcher.epochs


class _Watcher(Observer):
    """Evaluates the network after every epoch."""

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
            predict_in_train_mode(changed, self._validation(), self.normalization, self.device),
            self._in_eval_mode(changed),
            self._reestimated(),
        ]
        return {way: BatchNormScores.of(predictions) for way, predictions in zip(WAYS, found, strict=True)}

    def _validation(self) -> Iterable[Batch]:
        return self.valid_source.epoch(1)

    def _in_eval_mode(self, model: nn.Module) -> Predictions:
        return predict_probabilities(
            model, self._validation(), self.normalization, self.device, channels_last=self.channels_last
        )

    def _reestimated(self) -> Predictions:
        statistics = reestimate_batchnorm(
            self.model, self.clean_source.epoch(1), self.normalization, self.device, channels_last=self.channels_last
        )
        with applied(statistics, self.model):
            return self._in_eval_mode(self.model)


@torch.no_grad()
def predict_in_train_mode(
    model: nn.Module, batches: Iterable[Batch], normalization: Normalization, device: torch.device
) -> Predictions:
    """Do what the second report's validation did, to see what it does. Nothing else may use this.

    The network stays in training mode, and so each of the eight views of a batch is normalised by its own statistics
    and written into the running ones.

    Parameters
    ----------
    model : torch.nn.Module
        A copy: its BatchNorm buffers change.
    batches : iterable of Batch
        Labelled; of two or more images each, as training mode needs them.
    normalization, device
        As for :func:`~leukemia_models.evaluation.predict.predict_probabilities`.
    """
    model.train()
    normalizer = Normalizer(normalization, device)
    logits, labels, indices = [], [], []
    for batch in batches:
        shown = views(Tta(D4), batch.images_BHWC.to(device))
        answers: Sequence[Tensor] = [model(normalizer(view_BHWC)) for view_BHWC in shown]
        logits.append(torch.stack(list(answers), dim=1).cpu().double())
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
_STYLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "eval_at_once": {"color": VERMILION, "linestyle": "-", "marker": "o"},
        "train_mode": {"color": BLUE, "linestyle": "--", "marker": "s"},
        "eval_after_train_mode": {"color": ORANGE, "linestyle": ":", "marker": "^"},
        "eval_reestimated": {"color": GREEN, "linestyle": "-.", "marker": "D"},
    }
)


def draw_batchnorm(epochs: Sequence[EpochScores], *, share_of_labels: float, title: str, stamp: str) -> Figure:
    """Draw validation accuracy, the share of class 1 among the answers and the cross-entropy, per epoch.

    Parameters
    ----------
    epochs : sequence of EpochScores
        At least one.
    share_of_labels : float
        Share of class 1 in the validation labels: what the answers' share should be near, and what always answering
        class 1 scores.
    title : str
        What was trained.
    stamp : str
        Kind of split, printed under the panels.
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
    numbers = [scores.epoch for scores in epochs]
    for way in WAYS:
        values = [getattr(getattr(scores, way), quantity) for scores in epochs]
        axes.plot(numbers, values, label=WAY_TITLES[way], markersize=6, markerfacecolor="none", **_STYLES[way])
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color="0.9")
