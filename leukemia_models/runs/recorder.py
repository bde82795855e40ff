"""What happens around each epoch: progress, checkpoints, metrics and curves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress

from torch import nn

from leukemia_data.console import Console, Progress
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
    """Shows progress and writes checkpoints, metrics and curves after every epoch.

    Parameters
    ----------
    folder : RunFolder
        Where the files go.
    info : CheckpointInfo
        What the checkpoints say of the network.
    model : torch.nn.Module
        Its weights are saved.
    epochs : int
        Length of the run.
    stamp : str
        The split's, for the figure.
    save_minutes : float
        Within an epoch the state is saved when the last checkpoint is this old.
    clock : callable
        Returns seconds from any origin.
    console : Console
        Hears a line an epoch, and shows progress.
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
        console: Console,
    ) -> None:
        self._folder, self._info, self._model, self._epochs = folder, info, model, epochs
        self._stamp = stamp
        self._save_seconds, self._clock = save_minutes * 60, clock
        self._saved_s = self._drawn_s = clock()
        self._undrawn: TrainHistory | None = None
        self._console = console
        self._shown = ExitStack()
        self._progress: Progress | None = None

    def on_resume(self, state: TrainState) -> None:
        """Write what a process that was killed right after its last checkpoint did not come to."""
        if state.history.records:
            self._write_history(state.history)

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        """Show progress over the epoch's steps."""
        self._end_progress()
        what = f"epoch {epoch}/{self._epochs}"
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
        """Save weights first and pictures last: whoever dies in between resumes from whole files."""
        self._end_progress()
        if is_best:
            save_checkpoint(self._folder.checkpoint("best"), self._model, self._info, state, resumable=False)
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        self._saved_s = self._clock()
        self._write_history(state.history)
        self._console.note(epoch_line(record, self._epochs, is_best))

    def close(self, *, is_failing: bool = False) -> None:
        """End the progress, and draw the epochs that are not yet in the figure.

        Where the run is failing, as on a full disk, a figure that cannot be written must not hide why.
        """
        self._end_progress()
        if self._undrawn is not None:
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


def epoch_line(record: EpochRecord, epochs: int, is_best: bool) -> str:
    """Return one finished epoch as one line."""
    return (
        f"epoch {record.epoch:>3}/{epochs}  train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}  "
        f"{_validation(record)}{record.seconds:.1f} s, {record.images_per_s:.0f} images/s, {_wait(record)}"
        f"{'  best' if is_best and record.valid_loss is not None else ''}"
    )


def _validation(record: EpochRecord) -> str:
    """What the validation part said; nothing where there is none."""
    if record.valid_loss is None:
        return ""
    return (
        f"valid loss {_number(record.valid_loss)} acc {_number(record.valid_accuracy)} "
        f"bal {_number(record.valid_balanced_accuracy)} wF1 {_number(record.valid_weighted_f1)}  "
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _wait(record: EpochRecord) -> str:
    """How much of the training time was spent waiting for batches."""
    return "" if record.data_wait_share is None else f"waiting {100 * record.data_wait_share:.2f} %"
