"""Why a network that judges well in training mode can fail in eval mode: a small training, judged four ways an epoch.

The second course report found validation unstable with ``model.eval()``, down to one answer for all images, and good
without it; testing with ``model.eval()`` then "worked perfectly". The four ways are (i) eval mode at once; (ii) what
that report did: the network left in training mode, eight views of each image, every pass writing validation images into
the running statistics; (iii) eval mode after that; (iv) eval mode with statistics estimated anew on clean training
images.

Way (ii) is bad practice and exists in this module alone, on a copy of the network: answers depend on which images share
a batch, and what is judged has been looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_models.batchnorm.batchnorm_report import BatchNormScores
from leukemia_models.batchnorm.reestimation import applied, reestimate_batchnorm
from leukemia_models.inference.batch_source import Batch, BatchSource
from leukemia_models.inference.normalization import Normalization, Normalizer
from leukemia_models.inference.predict import predict_probabilities
from leukemia_models.inference.tta import D4, LOGITS, Tta, average_views, views
from leukemia_models.judging.predictions import Predictions
from leukemia_models.learning.history import EpochRecord
from leukemia_models.learning.observer import Observer
from leukemia_models.learning.run_state import TrainSettings, TrainState
from leukemia_models.learning.train import fit

WAYS = ("eval_at_once", "train_mode", "eval_after_train_mode", "eval_reestimated")


@dataclass(frozen=True, kw_only=True)
class EpochScores:
    """The same weights on the same validation images, judged four ways.

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


def run_experiment(
    model: nn.Module,
    train_source: BatchSource,
    clean_source: BatchSource,
    valid_source: BatchSource,
    settings: TrainSettings,
    normalization: Normalization,
    augmentation: Augmentation,
    device: torch.device,
    on_step: Callable[[int], None] | None = None,
) -> list[EpochScores]:
    """Train `model` in place and judge it four ways after every epoch.

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
    judge = _Judge(model, clean_source, valid_source, normalization, device, settings.channels_last)
    watcher = _Watcher(judge, on_step)
    augmenter = Augmenter(
        augmentation, seed=settings.seed, mean=normalization.mean, std=normalization.std, device=device
    )
    fit(model, train_source, None, settings, normalization, augmenter, device, watcher)
    return watcher.epochs


class _Watcher(Observer):
    """Judges the network after every epoch."""

    def __init__(self, judge: _Judge, on_step: Callable[[int], None] | None) -> None:
        self._judge, self._on_step = judge, on_step
        self.epochs: list[EpochScores] = []

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if self._on_step is not None:
            self._on_step(1)

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        self.epochs.append(
            EpochScores(epoch=record.epoch, train_accuracy=record.train_accuracy, **self._judge.four_ways())
        )


@dataclass(frozen=True)
class _Judge:
    """Judges a network without changing it."""

    model: nn.Module
    clean_source: BatchSource
    valid_source: BatchSource
    normalization: Normalization
    device: torch.device
    channels_last: bool

    def four_ways(self) -> dict[str, BatchNormScores]:
        spoilt = copy.deepcopy(self.model)
        found = [
            self._in_eval_mode(self.model),
            predict_in_train_mode(spoilt, self._validation(), self.normalization, self.device),
            self._in_eval_mode(spoilt),
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
        A copy that may be spoilt: its BatchNorm buffers change.
    batches : iterable of Batch
        Labelled; of two or more images each, as training mode needs them.
    normalization, device
        As for :func:`~leukemia_models.inference.predict.predict_probabilities`.
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
