"""What happens around each epoch: the progress bar, checkpoints, metrics and curves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from tqdm import tqdm

from cli.ltrain.text import epoch_line
from cli.output import print_note
from cli.progress import progress_bar
from leukemia_models.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.figure_style import save_figure
from leukemia_models.history import EpochRecord, TrainHistory
from leukemia_models.history_figures import draw_history
from leukemia_models.observer import Observer
from leukemia_models.report import write_history
from leukemia_models.run_files import RunFolder
from leukemia_models.run_state import TrainState


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
        self._saved_s = clock()
        self._bar_context: AbstractContextManager[tqdm[Any]] | None = None
        self._bar: tqdm[Any] | None = None

    def on_resume(self, state: TrainState) -> None:
        """Write what a process that was killed right after its last checkpoint did not come to."""
        if state.history.records:
            _write_history(self._folder, state.history, self._info.model_name, self._stamp)

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Open a progress bar over the epoch's steps."""
        self.close()
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
        self.close()
        if is_best:
            save_checkpoint(self._folder.checkpoint("best"), self._model, self._info, state, resumable=False)
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()
        _write_history(self._folder, state.history, self._info.model_name, self._stamp)
        print_note(epoch_line(record, self._epochs, is_best))

    def close(self) -> None:
        """End the progress bar."""
        if self._bar_context is not None:
            self._bar_context.__exit__(None, None, None)
            self._bar_context = self._bar = None


def _write_history(folder: RunFolder, history: TrainHistory, model_name: str, stamp: str) -> None:
    write_history(folder.history, history, stamp)
    save_figure(draw_history(history, title=model_name, stamp=stamp), folder.history_figure)
