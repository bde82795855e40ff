"""What happens around each epoch: the progress bar, checkpoints, metrics and curves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from torch import nn
from tqdm import tqdm

from cli.ltrain.epoch_text import epoch_line
from cli.output import print_note
from cli.progress import progress_bar
from leukemia_models.reports.evaluation_figures import draw_history, write_history
from leukemia_models.reports.style import save_figure
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.run_state import TrainState
from leukemia_models.training.train import Observer

_DRAW_SECONDS = 20
"""Epochs may be short: the figure of the curves is not drawn more often than this."""


class Recorder(Observer):
    """Draws the progress bar and writes checkpoints, metrics and curves after every epoch.

    Within an epoch it saves when the last checkpoint is `save_minutes` old. `clock` tells seconds from any origin.
    """

    def __init__(
        self,
        folder: RunFolder,
        info: CheckpointInfo,
        model: nn.Module,
        epochs: int,
        stamp: str,
        save_minutes: float,
        clock: Callable[[], float],
    ) -> None:
        self._folder, self._info, self._model, self._epochs = folder, info, model, epochs
        self._stamp = stamp
        self._save_seconds, self._clock = save_minutes * 60, clock
        self._saved_s = self._drawn_s = clock()
        self._undrawn: TrainHistory | None = None
        self._bar_context: AbstractContextManager[tqdm[Any]] | None = None
        self._bar: tqdm[Any] | None = None

    def on_resume(self, state: TrainState) -> None:
        """Write what a process that was killed right after its last checkpoint did not come to."""
        if state.history.records:
            self._write_history(state.history)

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Open a progress bar over the epoch's steps."""
        self._close_bar()
        self._bar_context = progress_bar(num_steps, f"epoch {epoch}/{self._epochs}", unit="step", done=steps_done)
        self._bar = self._bar_context.__enter__()

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """Move the progress bar."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update()

    def wants_state(self, epoch: int, step: int) -> bool:
        """Whether the last checkpoint is old."""
        return self._clock() - self._saved_s >= self._save_seconds

    def on_state(self, state: TrainState) -> None:
        """Save the step."""
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """Save weights first and pictures last: whoever dies in between resumes from whole files."""
        self._close_bar()
        if is_best:
            save_checkpoint(self._folder.checkpoint("best"), self._model, self._info, state, resumable=False)
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()
        self._write_history(state.history)
        print_note(epoch_line(record, self._epochs, is_best))

    def close(self, *, is_failing: bool = False) -> None:
        """End the progress bar, and draw the epochs that are not yet in the figure.

        Where the run is failing, as on a full disk, a figure that cannot be written must not hide why.
        """
        self._close_bar()
        if self._undrawn is not None:
            with suppress(OSError) if is_failing else nullcontext():
                self._draw(self._undrawn)

    def _close_bar(self) -> None:
        if self._bar_context is not None:
            self._bar_context.__exit__(None, None, None)
            self._bar_context = self._bar = None

    def _write_history(self, history: TrainHistory) -> None:
        write_history(self._folder.history, history, self._stamp)
        self._undrawn = history
        if self._clock() - self._drawn_s >= _DRAW_SECONDS:
            self._draw(history)

    def _draw(self, history: TrainHistory) -> None:
        figure = draw_history(history, title=self._info.model_name, stamp=self._stamp)
        save_figure(figure, self._folder.history_figure)
        self._undrawn, self._drawn_s = None, self._clock()
