"""Who watches a training run: hears of its steps and epochs, and is handed its state to save."""

from __future__ import annotations

from leukemia_models.learning.history import EpochRecord
from leukemia_models.learning.run_state import TrainState


class Observer:
    """Hears of a run's progress. The methods do nothing here: override those of interest.

    With several ranks there is one on each, and all hear the same numbers. An error that one of them raises in
    :meth:`on_state` or :meth:`on_epoch_end` ends the run on all ranks.
    """

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Before an epoch of `num_steps` batches (epochs count from 1), of which `steps_done` lie behind already."""

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """After each batch; `step` counts from 1, `loss` is the mean over the batch's `num_samples` of all ranks."""

    def wants_state(self, epoch: int, step: int) -> bool:
        """Whether :meth:`on_state` shall be called after this step. Asked while the step is under way."""
        return False

    def on_state(self, state: TrainState) -> None:
        """After a step for which any rank wanted the state: on every rank, after :meth:`on_step`.

        Save it before returning: its tensors are the running ones, not copies. So are the network's.
        """

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """After validation. Save `state` before returning, as in :meth:`on_state`."""
