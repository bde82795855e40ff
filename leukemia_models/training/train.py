"""The training loop: batches in, trained weights and one record per epoch out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import Batch, BatchSource, Normalization, close_batches
from leukemia_models.devices.precision import DEFAULT_BACKEND, convolutions, require_precision
from leukemia_models.training.history import VALID_FIELDS, EpochRecord, TrainHistory
from leukemia_models.training.learner import Learner, Prepare, place
from leukemia_models.training.losses import DivergenceError, SkippedSteps, first_non_finite, isolated_random_state
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState
from leukemia_models.training.sync_batchnorm import synchronized_batchnorm


class Observer:
    """Callbacks of a training; the methods do nothing unless overridden.

    With several ranks each has an observer, and all get the same numbers. An error that one raises in
    :meth:`on_state` or :meth:`on_epoch_end` ends the training on all ranks.
    """

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Called before an epoch, counted from 1, of which `steps_done` steps are done already."""

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """Called after each step, counted from 1, with the mean loss over the `num_samples` of all ranks."""

    def wants_state(self, epoch: int, step: int) -> bool:
        """Return whether to call :meth:`on_state` after this step; called during the step."""
        return False

    def on_state(self, state: TrainState) -> None:
        """Called on every rank after a step for which any rank wanted the state.

        Save it before returning: its tensors, like the network's, are not copies.
        """

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """Called after validation. Save `state` before returning, as in :meth:`on_state`."""


SaveState = Callable[[EpochProgress], None]


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
        batches, num_samples = self._next_micro_batches(step)
        if num_samples < 2:
            # BatchNorm cannot estimate a variance from it.
            self._sums = replace(self._sums, steps_done=step)
            return
        progress = min(self._epoch - 1 + (step - 0.5) / self._num_steps, self._epoch)
        lr = learner.settings.learning_rate(progress, self._records)
        found = learner.gradient(batches, num_samples, self._epoch, step)
        wants_state = observer.wants_state(self._epoch, step)
        gathered_WN = learner.ranks.all_gather_numbers(
            found.lowest_label, found.highest_label, wants_state, found.loss_sum, found.weight_sum
        )
        self._require_labels(gathered_WN[:, :2], step)
        loss_sum, weight_sum = gathered_WN[:, 3:].sum(dim=0).tolist()
        self._require_finite_loss(loss_sum, step, lr)
        self._skipped.require_few(found.scale, self._epoch, step)
        self._num_correct += found.num_correct
        self._sums = replace(
            self._sums,
            steps_done=step,
            lr=learner.update(lr),
            loss_sum=self._sums.loss_sum + loss_sum,
            weight_sum=self._sums.weight_sum + weight_sum,
            num_samples=self._sums.num_samples + num_samples,
        )
        observer.on_step(self._epoch, step, loss_sum / weight_sum, num_samples)
        if gathered_WN[:, 2].any():
            self._require_finite_weights(step)
            save(self._progress())

    def _next_micro_batches(self, step: int) -> tuple[list[Batch], int]:
        """Return this rank's micro-batches of the next step, and the number of rows of the whole batch."""
        batches: list[Batch] = []
        error: Exception | None = None
        try:
            batches += [self._next_batch(step) for _ in range(self._learner.settings.accumulate)]
        except Exception as caught:
            error = caught
        num_rows = sum(int(batch.mask_B.sum()) for batch in batches)
        return batches, int(self._learner.ranks.all_gather_numbers(num_rows, error=error).sum())

    def _next_batch(self, step: int) -> Batch:
        started_s = self._clock()
        batch = next(self._batches, None)
        self._wait_s += self._clock() - started_s
        if batch is None:
            raise RunError(f"epoch {self._epoch} ended before step {step} of {self._num_steps}")
        return batch

    def _progress(self) -> EpochProgress:
        """Return the sums so far; waits for the device and for all ranks."""
        train_s = self._clock() - self._started_s
        gathered_WN = self._learner.ranks.all_gather_numbers(int(self._num_correct), self._wait_s, train_s)
        return replace(
            self._sums,
            num_correct=self._sums.num_correct + int(gathered_WN[:, 0].sum()),
            wait_s=self._sums.wait_s + float(gathered_WN[:, 1].max()),
            train_s=self._sums.train_s + float(gathered_WN[:, 2].max()),
        )

    def _require_labels(self, ranges_W2: Tensor, step: int) -> None:
        low, high, num_classes = int(ranges_W2.min()), int(ranges_W2.max()), self._learner.settings.num_classes
        if low < 0 or high >= num_classes:
            raise RunError(
                f"epoch {self._epoch}, step {step}: labels from {low} to {high}, but the classes are 0 to "
                f"{num_classes - 1}; images without a label (-1) cannot be trained on"
            )

    def _require_finite_loss(self, loss: float, step: int, lr: float) -> None:
        if math.isfinite(loss):
            return
        where = f"the training loss became {loss} in epoch {self._epoch}, step {step}, at learning rate {lr:.3g}"
        # Only the weights show the cause: the buffers already hold the statistics of this batch.
        if first_non_finite(dict(self._learner.model.named_parameters())) is None:
            raise DivergenceError(f"{where}; the weights were not updated with it")
        raise DivergenceError(f"{where}: an earlier step had made the weights non-finite")

    def _require_finite_weights(self, step: int) -> None:
        non_finite = self._learner.first_non_finite()
        # Checked on every rank, although the weights should be the same on all.
        if self._learner.ranks.all_gather_numbers(non_finite is not None).any():
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
        What the settings leave open, `device` decides. The latter normalises validation and clean images.
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
    settings = settings.decided(device)
    place(model, settings, device)
    options: dict[str, Any] = {
        "num_steps": settings.epochs * len(train_source),
        "ranks": ranks,
        "compile_backend": compile_backend,
    }
    with (
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
