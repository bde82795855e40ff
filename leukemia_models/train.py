"""The training loop: a network and streams of batches in, trained weights and one record per epoch out.

It knows nothing of caches, shards, files or the command line. Batches come from a
:class:`~leukemia_models.learner.BatchSource`, random augmentation is a function handed in, and whoever wants to draw a
progress bar or write checkpoints is an :class:`Observer`. Everything random is a function of (seed, epoch, sample), so
a run that starts again at an epoch's boundary ends with the same weights, bit by bit on the CPU, as one that was
never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from leukemia_models.history import EpochRecord, TrainHistory
from leukemia_models.learner import Augment, BatchSource, Learner
from leukemia_models.normalization import Normalization
from leukemia_models.run_state import TrainSettings, TrainState


class Observer:
    """Hears of a run's progress. The methods do nothing here: override those of interest."""

    def on_epoch_start(self, epoch: int, num_steps: int) -> None:
        """Before the first of `num_steps` batches of `epoch` (counted from 1)."""

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """After each batch; `step` counts from 1, `loss` is the batch's mean."""

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """After validation. Save `state` before returning: its tensors are the running ones, not copies."""


def fit(
    model: nn.Module,
    train_source: BatchSource,
    valid_source: BatchSource | None,
    settings: TrainSettings,
    normalization: Normalization,
    augment: Augment,
    device: torch.device,
    observer: Observer | None = None,
    start: TrainState | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainHistory:
    """Train `model` in place.

    Parameters
    ----------
    model : torch.nn.Module
        Normalised images in, logits out; is moved to `device`. For a resumed run it holds the weights that
        belong to `start`.
    train_source : BatchSource
        A batch of a single sample is left out: BatchNorm cannot estimate a variance from it.
    valid_source : BatchSource or None
        Judged after every epoch in eval mode, without touching a buffer.
    settings : TrainSettings
        Length, optimizer, precision.
    normalization : Normalization
        Of the training split.
    augment : callable
        See :data:`~leukemia_models.learner.Augment`; for the training batches only.
    device : torch.device
        Where the network runs.
    observer : Observer, optional
        Is told of every step and epoch.
    start : TrainState, optional
        Where to go on; the run ends after ``settings.epochs`` epochs in total.
    clock : callable
        Seconds from any origin.

    Returns
    -------
    TrainHistory
        All epochs, those of `start` included.

    Raises
    ------
    RunError
        When the loss or an output is not finite (the optimizer has then not stepped), a label is no class, the
        epoch has no batch of two or more samples, or `start` does not fit the network.
    """
    observer = observer or Observer()
    history = start.history if start else TrainHistory()
    learner = Learner(model, settings, normalization, augment, device)
    if start and start.epochs_done < settings.epochs:
        learner.restore(start)
    for epoch in range(len(history.records) + 1, settings.epochs + 1):
        started_s = clock()
        observer.on_epoch_start(epoch, len(train_source))
        totals = learner.train_epoch(train_source, epoch, partial(observer.on_step, epoch))
        trained_s = clock()
        judged = learner.validate(valid_source, epoch) if valid_source is not None else _NOT_JUDGED
        record = EpochRecord(
            epoch=epoch,
            lr=totals.lr,
            train_loss=totals.loss_sum / totals.num_samples,
            train_accuracy=totals.num_correct / totals.num_samples,
            **judged,
            seconds=clock() - started_s,
            images_per_s=totals.num_samples / max(trained_s - started_s, 1e-9),
        )
        history = history.extended(record)
        observer.on_epoch_end(record, learner.state(history), is_best=history.best is record)
    return history


_NOT_JUDGED: dict[str, float | None] = dict.fromkeys(
    ("valid_loss", "valid_accuracy", "valid_balanced_accuracy", "valid_weighted_f1", "valid_auroc")
)
