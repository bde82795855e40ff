"""One epoch of training: batches in, moved weights and the epoch's sums out, with a state to save after any step.

What a step adds to the sums, and what it draws at random, depends on the step alone. So an epoch that goes on from a
saved :class:`~leukemia_models.learning.run_state.EpochProgress` ends, bit by bit on the CPU, like one that was never
stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from leukemia_data.errors import RunError
from leukemia_models.inference.batch_source import Batch, BatchSource
from leukemia_models.learning.divergence import DivergenceError, SkippedSteps, first_not_finite
from leukemia_models.learning.history import EpochRecord
from leukemia_models.learning.learner import Learner
from leukemia_models.learning.observer import Observer
from leukemia_models.learning.random_layers import random_layers_apart
from leukemia_models.learning.run_state import EpochProgress

SaveState = Callable[[EpochProgress], None]


class TrainingEpoch:
    """One epoch under way.

    Parameters
    ----------
    learner : Learner
        Moves its network's weights.
    source : BatchSource
        For each step as many batches as the settings have shares for each rank, see
        :class:`~leukemia_models.inference.batch_source.BatchSource`. A step of a single sample, counted over all shares
        and ranks, is left out.
    records : sequence of EpochRecord
        The epochs before it.
    done : EpochProgress
        Where to go on; at the beginning an empty one.
    clock : callable
        Seconds from any origin.

    Raises
    ------
    RunError
        If `done` lies behind the epoch's end.
    """

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
                f"the saved state is at step {done.steps_done} of an epoch of {self._num_steps} steps: go on with the "
                "images and the batch size it was trained with"
            )
        self._sums = done
        self._skipped = SkippedSteps()
        self._wait_s = 0.0
        self._started_s = clock()
        # On the device, until somebody wants to know.
        self._num_correct = torch.zeros((), dtype=torch.int64, device=learner.device)
        self._batches = learner.ranks.together(lambda: iter(source.epoch(self._epoch, done.steps_done)))

    def run(self, observer: Observer, save: SaveState) -> EpochProgress:
        """Take the steps that are left and return the sums of the whole epoch.

        Parameters
        ----------
        observer : Observer
            Is told of every step.
        save : callable
            Is called after the steps for which an observer wants the state.

        Raises
        ------
        DivergenceError
            If the loss, the weights or all gradients are no longer finite. What `save` was given is.
        RunError
            If a label is no class, or there is no batch to train on.
        """
        self._learner.model.train()
        try:
            with random_layers_apart(self._learner.device):
                for step in range(self._sums.steps_done + 1, self._num_steps + 1):
                    self._take_step(step, observer, save)
        finally:
            _close(self._batches)
        progress = self._progress()
        if progress.num_samples == 0:
            raise RunError(
                f"epoch {self._epoch} has no batch of two or more images: training needs more images or a larger batch"
            )
        self._require_finite_weights(self._num_steps)
        return progress

    def _take_step(self, step: int, observer: Observer, save: SaveState) -> None:
        learner = self._learner
        batches, num_samples = self._next_shares(step)
        if num_samples < 2:
            # BatchNorm cannot estimate a variance from it.
            self._sums = replace(self._sums, steps_done=step)
            return
        lr = self._learning_rate(step)
        found = learner.gradient(batches, num_samples, self._epoch, step)
        wants_state = observer.wants_state(self._epoch, step)
        told_WN = learner.ranks.exchange(
            found.lowest_label, found.highest_label, wants_state, found.loss_sum, found.weight_sum
        )
        self._require_labels(told_WN[:, :2], step)
        loss_sum, weight_sum = told_WN[:, 3:].sum(dim=0).tolist()
        self._require_finite_loss(loss_sum, step, lr)
        self._skipped.require_few(found.scale, self._epoch, step)
        lr = learner.update(lr)
        self._count(step, lr, loss_sum, weight_sum, num_samples, found.num_correct)
        observer.on_step(self._epoch, step, loss_sum / weight_sum, num_samples)
        if told_WN[:, 2].any():
            self._require_finite_weights(step)
            save(self._progress())

    def _next_shares(self, step: int) -> tuple[list[Batch], int]:
        """Return this rank's shares of the next batch, and the number of rows of all shares of all ranks."""
        batches: list[Batch] = []
        error: Exception | None = None
        try:
            batches += [self._next_batch(step) for _ in range(self._learner.settings.accumulate)]
        except Exception as caught:
            error = caught
        num_rows = sum(int(batch.mask_B.sum()) for batch in batches)
        return batches, int(self._learner.ranks.exchange(num_rows, error=error).sum())

    def _next_batch(self, step: int) -> Batch:
        started_s = self._clock()
        batch = next(self._batches, None)
        self._wait_s += self._clock() - started_s
        if batch is None:
            raise RunError(f"epoch {self._epoch} ended before step {step}, of {self._num_steps} that were announced")
        return batch

    def _count(
        self, step: int, lr: float, loss_sum: float, weight_sum: float, num_samples: int, num_correct: Tensor
    ) -> None:
        self._num_correct += num_correct
        self._sums = replace(
            self._sums,
            steps_done=step,
            lr=lr,
            loss_sum=self._sums.loss_sum + loss_sum,
            weight_sum=self._sums.weight_sum + weight_sum,
            num_samples=self._sums.num_samples + num_samples,
        )

    def _progress(self) -> EpochProgress:
        """Return the sums so far; this waits for the device, and for all ranks."""
        train_s = self._clock() - self._started_s
        told_WN = self._learner.ranks.exchange(int(self._num_correct), self._wait_s, train_s)
        return replace(
            self._sums,
            num_correct=self._sums.num_correct + int(told_WN[:, 0].sum()),
            wait_s=self._sums.wait_s + float(told_WN[:, 1].max()),
            train_s=self._sums.train_s + float(told_WN[:, 2].max()),
        )

    def _learning_rate(self, step: int) -> float:
        progress = min(self._epoch - 1 + (step - 0.5) / self._num_steps, self._epoch)
        return self._learner.settings.learning_rate(progress, self._records)

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
        # The batch's statistics are in the buffers already: only the weights tell where it began.
        if first_not_finite(dict(self._learner.model.named_parameters())) is None:
            raise DivergenceError(f"{where}; the weights were not updated with it")
        raise DivergenceError(f"{where}: a step before it had made weights that are not finite")

    def _require_finite_weights(self, step: int) -> None:
        spoilt = self._learner.spoilt()
        # Every rank must hear of it, though the weights should be the same on all.
        if self._learner.ranks.exchange(spoilt is not None).any():
            raise DivergenceError(
                f"the training is no longer finite by epoch {self._epoch}, step {step}: "
                f"{spoilt or 'a tensor of another rank'} holds values that are not; none of it was saved"
            )


def _close(batches: Iterator[Batch]) -> None:
    """Let a stream that is left early, or has more to do after its last batch, do so now."""
    close = getattr(batches, "close", None)
    if close is not None:
        close()
