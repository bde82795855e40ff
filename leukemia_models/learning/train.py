"""The training loop: a network and streams of batches in, trained weights and one record per epoch out.

It knows nothing of caches, shards, files or the command line. Batches come from a
:class:`~leukemia_models.inference.batch_source.BatchSource`, augmentation and normalisation are a function handed in,
and whoever wants to draw a progress bar or write checkpoints is an
:class:`~leukemia_models.learning.observer.Observer`. Everything random is a function of (seed, epoch, sample) or (seed,
epoch, step), so a run that starts again from a state of any step ends with the same weights, bit by bit on the CPU, as
one that was never interrupted.

Several ranks, each with its share of every batch, do together what one process does with whole batches. With BatchNorm
that sees one share at a time, they do what one process does that works through as many shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from leukemia_models.batchnorm.sync_batchnorm import synchronized_batchnorm
from leukemia_models.inference.batch_source import BatchSource
from leukemia_models.inference.normalization import Normalization
from leukemia_models.inference.ranks import SINGLE, Ranks
from leukemia_models.learning.compiled import DEFAULT_BACKEND
from leukemia_models.learning.epoch import TrainingEpoch
from leukemia_models.learning.history import EpochRecord, TrainHistory
from leukemia_models.learning.learner import Learner, Prepare, place
from leukemia_models.learning.observer import Observer
from leukemia_models.learning.run_state import EpochProgress, TrainSettings, TrainState


def fit(
    model: nn.Module,
    train_source: BatchSource,
    valid_source: BatchSource | None,
    settings: TrainSettings,
    normalization: Normalization,
    prepare: Prepare,
    device: torch.device,
    observer: Observer | None = None,
    start: TrainState | None = None,
    clock: Callable[[], float] = time.perf_counter,
    ranks: Ranks = SINGLE,
    compile_backend: str = DEFAULT_BACKEND,
    clean_source: BatchSource | None = None,
) -> TrainHistory:
    """Train `model` in place, from the weights it has.

    At the end it holds the weights of the last step; where an average of them is kept, that is in the last state that
    the observer was handed.

    Parameters
    ----------
    model : torch.nn.Module
        Normalised images in, logits out; is moved to `device`. For a resumed run it holds the weights that
        belong to `start`: see :func:`leukemia_models.learning.checkpoint.load_training_weights`.
    train_source : BatchSource
        A batch of a single sample is left out: BatchNorm cannot estimate a variance from it. With several ranks
        this one's shares of the batches; shares may differ in size. For each step it gives as many batches as
        ``settings.accumulate`` says.
    valid_source : BatchSource or None
        Judged after every epoch in eval mode, without touching a buffer. Without it, the last epoch is the best.
    settings : TrainSettings
        Length, optimizer, schedule, loss, precision.
    normalization : Normalization
        Of the training split, for the validation batches.
    prepare : callable
        See :data:`~leukemia_models.learning.learner.Prepare`; for the training batches.
    device : torch.device
        Where the network runs.
    observer : Observer, optional
        Is told of every step and epoch.
    start : TrainState, optional
        Where to go on, also inside an epoch; the run ends after ``settings.epochs`` epochs in total, or by early
        stopping, and then does not go on.
    clock : callable
        Seconds from any origin.
    ranks : Ranks
        The processes that train together. Every one calls this with the same arguments, apart from its shares.
    compile_backend : str
        What torch.compile hands the network to, where the settings want it compiled.
    clean_source : BatchSource or None
        Some of the training images without augmentation, the same every time. Where an average of the weights is
        judged, its BatchNorm statistics are estimated from them before; without them the network's own are used.

    Returns
    -------
    TrainHistory
        All epochs, those of `start` included; the same on every rank.

    Raises
    ------
    UsageError
        If the settings look at a validation split, and there is none.
    RunError
        When the loss or an output is not finite (the optimizer has then not stepped), a label is no class, the
        epoch has no batch of two or more samples, or `start` does not fit the network. On every rank, whichever
        rank met it.
    """
    observer = observer or Observer()
    history = start.history if start else TrainHistory()
    settings.require_validation(valid_source is not None)
    place(model, settings, device)
    num_steps = settings.epochs * len(train_source)
    with synchronized_batchnorm(model, ranks) if settings.sync_batchnorm else nullcontext():
        learner = Learner(
            model,
            settings,
            normalization,
            prepare,
            device,
            num_steps=num_steps,
            ranks=ranks,
            compile_backend=compile_backend,
        )
        if start and not settings.stops_after(history.records):
            learner.restore(start)
        done = start.progress if start else None
        while not settings.stops_after(history.records):
            history = _train_epoch(learner, train_source, valid_source, clean_source, observer, history, done, clock)
            done = None
    return history


def _train_epoch(
    learner: Learner,
    train_source: BatchSource,
    valid_source: BatchSource | None,
    clean_source: BatchSource | None,
    observer: Observer,
    history: TrainHistory,
    done: EpochProgress | None,
    clock: Callable[[], float],
) -> TrainHistory:
    """Train and judge the epoch after those of `history`, and return the history with it."""
    epoch, done, ranks = len(history.records) + 1, done or EpochProgress(), learner.ranks
    observer.on_epoch_start(epoch, len(train_source), done.steps_done)

    def save(progress: EpochProgress) -> None:
        ranks.together(lambda: observer.on_state(learner.state(history, progress)))

    trained = TrainingEpoch(learner, train_source, history.records, done, clock).run(observer, save)
    started_s = clock()
    if clean_source is not None:
        learner.estimate_batchnorm(clean_source)
    judged = learner.validate(valid_source, epoch) if valid_source is not None else _NOT_JUDGED
    judged_s = float(ranks.exchange(clock() - started_s).max())
    record = _record(epoch, trained, judged, judged_s)
    longer = history.extended(record)
    ranks.together(lambda: observer.on_epoch_end(record, learner.state(longer), is_best=longer.best is record))
    return longer


def _record(epoch: int, trained: EpochProgress, judged: dict[str, float | None], judged_s: float) -> EpochRecord:
    train_s = max(trained.train_s, 1e-9)
    return EpochRecord(
        epoch=epoch,
        lr=trained.lr,
        train_loss=trained.loss_sum / trained.weight_sum,
        train_accuracy=trained.num_correct / trained.num_samples,
        **judged,
        seconds=trained.train_s + judged_s,
        images_per_s=trained.num_samples / train_s,
        data_wait_share=trained.wait_s / train_s,
    )


_NOT_JUDGED: dict[str, float | None] = dict.fromkeys(
    ("valid_loss", "valid_accuracy", "valid_balanced_accuracy", "valid_weighted_f1", "valid_auroc")
)
