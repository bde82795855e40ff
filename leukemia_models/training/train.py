"""The training loop: batches in, trained weights and one record per epoch out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import Batch, BatchSource, Normalization, close_batches
from leukemia_models.devices.precision import (
    DEFAULT_BACKEND,
    all_compute_in_bf16,
    convolutions,
    current,
    require_precision,
)
from leukemia_models.training.history import VALID_FIELDS, EpochRecord, TrainHistory
from leukemia_models.training.learner import Learner, MicroBatch, Prepare, place
from leukemia_models.training.losses import (
    DivergenceError,
    SkippedSteps,
    StepLabels,
    StepSums,
    StepTotals,
    first_non_finite,
    isolated_random_state,
)
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState
from leukemia_models.training.sync_batchnorm import synchronized_batchnorm


class Observer:
    """Callbacks of a training; the methods do nothing unless overridden.

    With several ranks each has an observer, and all get the same numbers but for the loss of a step. An error that one
    raises in :meth:`on_state` or :meth:`on_epoch_end` ends the training on all ranks.
    """

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Called before an epoch, counted from 1, of which `steps_done` steps are done already."""

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """Called after each step, counted from 1, of `num_samples` over all ranks.

        The loss is the mean over this rank's own samples, which each rank knows without asking the others; NaN if it
        had none.
        """

    def wants_state(self, epoch: int, step: int) -> bool:
        """Return whether to call :meth:`on_state` after this step; called before it."""
        return False

    def on_state(self, state: TrainState) -> None:
        """Called on every rank after a step for which any rank wanted the state.

        Save it before returning: its tensors, like the network's, are not copies.
        """

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """Called after validation. Save `state` before returning, as in :meth:`on_state`."""


SaveState = Callable[[EpochProgress], None]


class _OwnLoss(NamedTuple):
    """A rank's part of the sums of an epoch."""

    loss_sum: float = 0.0
    weight: float = 0.0


class _BegunStep(NamedTuple):
    """What a rank knows before the forward pass of a step."""

    micro_batches: Iterator[MicroBatch]
    totals: StepTotals
    own_weight: float
    is_wanted: bool  # the state after it, by any rank


class _Epoch:
    """One epoch of training, after `done` of its steps and the epochs of `records`."""

    def __init__(
        self,
        learner: Learner,
        source: BatchSource,
        records: Sequence[EpochRecord],
        done: EpochProgress,
        clock: Callable[[], float],
    ) -> None:
        self._learner, self._records, self._clock = learner, records, clock
        self._epoch = len(records) + 1
        self._num_steps = len(source)
        if done.steps_done > self._num_steps:
            raise RunError(
                f"the saved state is at step {done.steps_done} of an epoch of {self._num_steps} steps: resume with the "
                "images and the batch size of the training"
            )
        self._sums = done
        self._own_loss = self._first_only(done)
        self._failure: DivergenceError | None = None
        self._skipped = SkippedSteps()
        self._wait_s = 0.0
        self._started_s = clock()
        # Stays on the device, so that no step waits for it.
        self._num_correct = torch.zeros((), dtype=torch.int64, device=learner.device)
        self._batches = learner.ranks.run_on_all(lambda: iter(source.epoch(self._epoch, done.steps_done)))

    def run(self, observer: Observer, save: SaveState) -> EpochProgress:
        """Take the remaining steps and return the sums of the whole epoch."""
        self._learner.model.train()
        try:
            with isolated_random_state(self._learner.device):
                for step in range(self._sums.steps_done + 1, self._num_steps + 1):
                    self._take_step(step, observer, save)
        finally:
            close_batches(self._batches)
        progress = self._progress()
        if progress.num_samples == 0:
            raise RunError(
                f"epoch {self._epoch} has no batch of two or more images: training needs more images or a larger batch"
            )
        self._require_finite_weights(self._num_steps)
        return progress

    def _take_step(self, step: int, observer: Observer, save: SaveState) -> None:
        learner = self._learner
        begun = self._begin_step(step, wants_state=observer.wants_state(self._epoch, step))
        totals = begun.totals
        if totals.num_samples < 2:
            # BatchNorm cannot estimate a variance from it.
            self._sums = replace(self._sums, steps_done=step)
            return
        progress = min(self._epoch - 1 + (step - 0.5) / self._num_steps, self._epoch)
        lr = learner.settings.learning_rate(progress, self._records)
        found = learner.gradient(begun.micro_batches, totals)
        self._failure = self._non_finite_loss(found.loss_sum, step, lr)
        if self._failure is None:
            self._update(step, lr, found, begun)
            own_loss = found.loss_sum / begun.own_weight if begun.own_weight else math.nan
            observer.on_step(self._epoch, step, own_loss, totals.num_samples)
        elif learner.ranks.world_size == 1:
            self._exchange()
        if begun.is_wanted:
            self._require_finite_weights(step)
            save(self._progress())

    def _update(self, step: int, lr: float, found: StepSums, begun: _BegunStep) -> None:
        self._skipped.require_few(found.scale, self._epoch, step)
        self._num_correct += found.num_correct
        self._own_loss = _OwnLoss(self._own_loss.loss_sum + found.loss_sum, self._own_loss.weight + begun.own_weight)
        num_samples = self._sums.num_samples + begun.totals.num_samples
        self._sums = replace(self._sums, steps_done=step, lr=self._learner.update(lr), num_samples=num_samples)

    def _begin_step(self, step: int, *, wants_state: bool) -> _BegunStep:
        """Load the first of this rank's micro-batches, and exchange what the ranks know before the forward pass.

        This is the only exchange of a step but for the mean of the gradients, and the host waits for no device in it.
        """
        learner = self._learner
        own = StepLabels()
        micro_batches: Iterator[MicroBatch] = iter(())
        error: Exception | None = None
        try:
            batches = [self._next_batch(step) for _ in range(learner.settings.accumulate)]
            own = learner.step_labels(batches)
            loading = learner.micro_batches(batches, self._epoch, step)
            # Here, so that its error reaches the other ranks.
            micro_batches = chain((next(loading),), loading)
        except Exception as caught:
            error = caught
        try:
            gathered_WN = self._exchange(*own, wants_state, error=error)
        finally:
            del error
        num_samples, _, _, weight, num_empty, num_wanting = gathered_WN.sum(dim=0).tolist()
        if num_samples >= 2:
            self._require_labels(gathered_WN[:, 1:3], step)
        share_with_rows = 1 - num_empty / (learner.ranks.world_size * learner.settings.accumulate)
        totals = StepTotals(int(num_samples), weight, share_with_rows)
        return _BegunStep(micro_batches, totals, own.weight, num_wanting > 0)

    def _next_batch(self, step: int) -> Batch:
        started_s = self._clock()
        batch = next(self._batches, None)
        self._wait_s += self._clock() - started_s
        if batch is None:
            raise RunError(f"epoch {self._epoch} ended before step {step} of {self._num_steps}")
        return batch

    def _progress(self) -> EpochProgress:
        """Return the sums so far, with equal BatchNorm statistics on all ranks; waits for the device and for them."""
        train_s = self._clock() - self._started_s
        gathered_WN = self._exchange(*self._own_loss, int(self._num_correct), self._wait_s, train_s)
        loss_sum, weight_sum, num_correct = gathered_WN[:, :3].sum(dim=0).tolist()
        self._learner.average_statistics()
        progress = replace(
            self._sums,
            loss_sum=loss_sum,
            weight_sum=weight_sum,
            num_correct=self._sums.num_correct + int(num_correct),
            wait_s=self._sums.wait_s + float(gathered_WN[:, 3].max()),
            train_s=self._sums.train_s + float(gathered_WN[:, 4].max()),
        )
        # As after a resume from this state, so that it ends with the same digits.
        self._own_loss = self._first_only(progress)
        return progress

    def _first_only(self, progress: EpochProgress) -> _OwnLoss:
        """Return the sums over all ranks so far as the first rank's own, to which each adds its further steps."""
        return _OwnLoss(progress.loss_sum, progress.weight_sum) if self._learner.ranks.is_first else _OwnLoss()

    def _exchange(self, *numbers: float, error: Exception | None = None) -> Tensor:
        """Gather numbers of all ranks, or raise on all: DivergenceError if the loss of one was non-finite."""
        ranks = self._learner.ranks
        failure, self._failure = self._failure, None
        try:
            gathered_WN = ranks.all_gather_numbers(*numbers, failure is not None, error=error)
            if gathered_WN[:, -1].any():
                self._raise_divergence(failure)
            return gathered_WN[:, :-1]
        finally:
            del error, failure  # see all_gather_numbers

    def _raise_divergence(self, failure: DivergenceError | None) -> None:
        try:
            self._learner.ranks.all_gather_numbers(error=failure)
        except DivergenceError:
            raise
        except RunError as error:
            raise DivergenceError(str(error)) from None
        finally:
            del failure

    def _require_labels(self, ranges_W2: Tensor, step: int) -> None:
        low, high, num_classes = int(ranges_W2.min()), int(ranges_W2.max()), self._learner.settings.num_classes
        if low < 0 or high >= num_classes:
            raise RunError(
                f"epoch {self._epoch}, step {step}: labels from {low} to {high}, but the classes are 0 to "
                f"{num_classes - 1}; images without a label (-1) cannot be trained on"
            )

    def _non_finite_loss(self, loss: float, step: int, lr: float) -> DivergenceError | None:
        """Return the error of a non-finite loss of this rank, which :meth:`_exchange` raises on all."""
        if math.isfinite(loss):
            return None
        where = f"the training loss became {loss} in epoch {self._epoch}, step {step}, at learning rate {lr:.3g}"
        # Only the weights show the cause: the buffers already hold the statistics of this batch.
        if first_non_finite(dict(self._learner.model.named_parameters())) is None:
            return DivergenceError(f"{where}; the weights were not updated with it")
        return DivergenceError(f"{where}: an earlier step had made the weights non-finite")

    def _require_finite_weights(self, step: int) -> None:
        non_finite = self._learner.first_non_finite()
        # Checked on every rank, although the weights should be the same on all.
        if self._exchange(non_finite is not None).any():
            raise DivergenceError(
                f"the training has diverged by epoch {self._epoch}, step {step}: "
                f"{non_finite or 'a tensor of another rank'} is non-finite; this state was not saved"
            )


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
    """Train `model` in place from the weights it has, and return all epochs, including those of `start`.

    The model ends with the weights of the last step; their average, if kept, is in the observer's last state. With
    several ranks each calls this with its own rows of the batches, and gets the same history.

    Parameters
    ----------
    model : torch.nn.Module
        Maps normalised images to logits; is moved to `device`. To resume, it has the weights that belong to `start`.
    train_source : BatchSource
        ``settings.accumulate`` micro-batches for each step; a step of a single sample is skipped.
    valid_source : BatchSource, optional
        Evaluated after every epoch; without it the last epoch is the best.
    settings, normalization : TrainSettings, Normalization
        What the settings leave open, the devices of all ranks decide. The normalisation is that of validation and clean
        images.
    prepare : callable
        Augments and normalises training images, see :data:`~leukemia_models.training.learner.Prepare`.
    start : TrainState, optional
        State to resume from, possibly inside an epoch.
    clock : callable
        Returns seconds from any origin.
    clean_source : BatchSource, optional
        Training images without augmentation, from which BatchNorm statistics of averaged weights are estimated.

    Raises
    ------
    UsageError
        If the settings need a validation split, and there is none, or the device would emulate their precision.
    DivergenceError
        On every rank, if the loss, the weights or all gradients are non-finite; saved states are finite.
    RunError
        On every rank, if a validation output is non-finite, a label is no class, an epoch has no batch of two or more
        samples, or `start` does not fit the network or the number of steps.
    """
    settings.require_validation(valid_source is not None)
    settings = settings.decided(device, has_bf16=all_compute_in_bf16(device, ranks))
    place(model, settings, device)
    options: dict[str, Any] = {
        "num_steps": settings.epochs * len(train_source),
        "ranks": ranks,
        "compile_backend": compile_backend,
    }
    with (
        current(device),
        convolutions(device, tf32=settings.tf32, cudnn_benchmark=bool(settings.cudnn_benchmark)),
        synchronized_batchnorm(model, ranks) if settings.sync_batchnorm else nullcontext(),
    ):
        learner = Learner(model, settings, normalization, prepare, device, **options)
        loop = _Loop(learner, train_source, valid_source, clean_source, observer or Observer(), clock)
        return loop.run(start)


@dataclass(frozen=True)
class _Loop:
    """Trains and evaluates one epoch after the other."""

    learner: Learner
    train_source: BatchSource
    valid_source: BatchSource | None
    clean_source: BatchSource | None
    observer: Observer
    clock: Callable[[], float]

    def run(self, start: TrainState | None) -> TrainHistory:
        history, done = (start.history, start.progress) if start else (TrainHistory(), None)
        stops_after = self.learner.settings.stops_after
        if not stops_after(history.records):
            self._require_precision()
            if start:
                self.learner.restore(start)
        while not stops_after(history.records):
            history, done = self._train_epoch(history, done or EpochProgress()), None
        return history

    def _require_precision(self) -> None:
        precision, device = self.learner.settings.precision, self.learner.device
        self.learner.ranks.run_on_all(lambda: require_precision(precision, device))

    def _train_epoch(self, history: TrainHistory, done: EpochProgress) -> TrainHistory:
        learner, observer, epoch = self.learner, self.observer, len(history.records) + 1
        observer.on_epoch_start(epoch, len(self.train_source), done.steps_done)

        def save(progress: EpochProgress) -> None:
            learner.ranks.run_on_all(lambda: observer.on_state(learner.state(history, progress)))

        trained = _Epoch(learner, self.train_source, history.records, done, self.clock).run(observer, save)
        record = self._evaluated(epoch, trained)
        longer = history.extended(record)
        is_best = longer.best is record
        learner.ranks.run_on_all(lambda: observer.on_epoch_end(record, learner.state(longer), is_best=is_best))
        return longer

    def _evaluated(self, epoch: int, trained: EpochProgress) -> EpochRecord:
        started_s = self.clock()
        if self.clean_source is not None:
            self.learner.estimate_batchnorm(self.clean_source, epoch)
        scores: dict[str, float | None] = dict.fromkeys(VALID_FIELDS)
        if self.valid_source is not None:
            scores = self.learner.validate(self.valid_source, epoch)
        evaluation_s = float(self.learner.ranks.all_gather_numbers(self.clock() - started_s).max())
        train_s = max(trained.train_s, 1e-9)
        return EpochRecord(
            epoch=epoch,
            lr=trained.lr,
            train_loss=trained.loss_sum / trained.weight_sum,
            train_accuracy=trained.num_correct / trained.num_samples,
            **scores,
            seconds=trained.train_s + evaluation_s,
            images_per_s=trained.num_samples / train_s,
            data_wait_share=trained.wait_s / train_s,
            size_px=self.learner.settings.size_at(epoch),
        )
