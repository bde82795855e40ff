"""Show progress and write checkpoints, metrics and curves of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress

from torch import nn

from leukemia_data.console import Console, Progress
from leukemia_models.reports.evaluation_figures import draw_history, write_history
from leukemia_models.reports.style import number_text, save_figure
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.run_state import TrainState
from leukemia_models.training.train import Observer

_DRAW_SECONDS = 20
"""Shortest time between two drawings of the curves."""


class Recorder(Observer):
    """Shows progress and writes checkpoints, metrics and curves after every epoch.

    Parameters
    ----------
    folder : RunFolder
        Gets the files.
    info : CheckpointInfo
        Description of the network in the checkpoints; its settings have the length of the run.
    model : torch.nn.Module
        The trained network.
    stamp : str
        Of the split, for the figure.
    save_minutes : float
        Age of the last checkpoint at which an epoch is interrupted to save.
    clock : callable
        Returns seconds from any origin.
    console : Console
        Gets progress and a line per epoch.
    """

    def __init__(
        self,
        folder: RunFolder,
        info: CheckpointInfo,
        model: nn.Module,
        stamp: str,
        save_minutes: float,
        clock: Callable[[], float],
        console: Console,
    ) -> None:
        self._folder, self._info, self._model, self._stamp = folder, info, model, stamp
        self._epochs = info.settings.epochs
        self._save_seconds, self._clock, self._console = save_minutes * 60, clock, console
        self._saved_s = self._drawn_s = clock()
        self._undrawn: TrainHistory | None = None
        self._shown = ExitStack()
        self._progress: Progress | None = None

    def on_resume(self, state: TrainState) -> None:
        """Write the history, which a process killed right after its last checkpoint did not write."""
        if state.history.records:
            self._write_history(state.history)

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Show progress over the epoch's steps."""
        self._end_progress()
        what = f"epoch {epoch}/{self._epochs}{_size_text(self._info.settings.size_at(epoch))}"
        self._progress = self._shown.enter_context(self._console.progress(num_steps, what, "step", steps_done))

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """Count the step."""
        if self._progress is not None:
            self._progress.show(loss=f"{loss:.3f}")
            self._progress.update()

    def wants_state(self, epoch: int, step: int) -> bool:
        """Whether the last checkpoint is old."""
        return self._clock() - self._saved_s >= self._save_seconds

    def on_state(self, state: TrainState) -> None:
        """Save the step."""
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """Save weights first and figures last, so that a killed process can be resumed from whole files."""
        self._end_progress()
        if is_best:
            save_checkpoint(self._folder.checkpoint("best"), self._model, self._info, state, resumable=False)
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()
        self._write_history(state.history)
        self._console.note(_epoch_line(record, self._epochs, is_best))

    def close(self, *, is_failing: bool = False) -> None:
        """End the progress, and draw the epochs that are not yet in the figure."""
        self._end_progress()
        if self._undrawn is not None:
            # On a full disk, a second error would hide the first.
            with suppress(OSError) if is_failing else nullcontext():
                self._draw(self._undrawn)

    def _end_progress(self) -> None:
        self._shown.close()
        self._progress = None

    def _write_history(self, history: TrainHistory) -> None:
        write_history(self._folder.history, history, self._stamp)
        self._undrawn = history
        if self._clock() - self._drawn_s >= _DRAW_SECONDS:
            self._draw(history)

    def _draw(self, history: TrainHistory) -> None:
        figure = draw_history(history, title=self._info.model_name, stamp=self._stamp)
        save_figure(figure, self._folder.history_figure)
        self._undrawn, self._drawn_s = None, self._clock()


def _size_text(size_px: int | None) -> str:
    return "" if size_px is None else f", {size_px} px"


def _epoch_line(record: EpochRecord, epochs: int, is_best: bool) -> str:
    valid = best = ""
    if record.valid_loss is not None:
        valid = (
            f"valid loss {number_text(record.valid_loss)} acc {number_text(record.valid_accuracy)} "
            f"bal {number_text(record.valid_balanced_accuracy)} wF1 {number_text(record.valid_weighted_f1)}  "
        )
        best = "  best" if is_best else ""
    wait = "" if record.data_wait_share is None else f"waiting {100 * record.data_wait_share:.2f} %"
    epoch = f"epoch {record.epoch:>3}/{epochs}{_size_text(record.size_px)}"
    return (
        f"{epoch}  train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}  "
        f"{valid}{record.seconds:.1f} s, {record.images_per_s:.0f} images/s, {wait}{best}"
    )
