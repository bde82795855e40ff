"""Show progress and write checkpoints, metrics and curves of a run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress

from torch import nn

from leukemia_data.console import Console, Progress
from leukemia_models.reports.evaluation_figures import draw_history, write_history
from leukemia_models.reports.style import number_text, save_figure
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import (
    CheckpointInfo,
    CheckpointSnapshot,
    NotSavedError,
    snapshot_checkpoint,
)
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.run_state import TrainState
from leukemia_models.training.train import Observer

_DRAW_SECONDS = 20
"""Shortest time between two drawings of the curves."""


class _Writer:
    """Runs one job at a time in a thread; the error of a job is raised by the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[None] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the last job has ended with an error, which was not raised yet."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def start(self, job: Callable[[], None]) -> None:
        """Start a job after the end of the one before, for which this waits."""
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Wait for the job, and raise its error."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """Wait for the job, and end the thread; an error is raised."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


class Recorder(Observer):
    """Shows progress and writes checkpoints, metrics and curves after every epoch.

    Files are written by a thread from copies of the tensors, so that the training goes on meanwhile. The line on an
    epoch follows when its files are there.

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
        self._writer = _Writer()

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
        """Whether the last checkpoint is old, or could not be written, which :meth:`on_state` raises on all ranks."""
        return self._clock() - self._saved_s >= self._save_seconds or self._writer.has_failed

    def on_state(self, state: TrainState) -> None:
        """Save the step."""
        last = self._snapshot(state)
        self._write(lambda: last.write(self._folder.checkpoint("last")))

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        """Save weights first and figures last, so that a killed process can be resumed from whole files."""
        self._end_progress()
        last, best = self._snapshot(state), self._snapshot(state, resumable=False) if is_best else None

        def write() -> None:
            if best is not None:
                best.write(self._folder.checkpoint("best"))
            last.write(self._folder.checkpoint("last"))
            self._write_history(state.history)
            self._console.note(_epoch_line(record, self._epochs, is_best))

        self._write(write)

    def _snapshot(self, state: TrainState, *, resumable: bool = True) -> CheckpointSnapshot:
        # First, so that no third copy of the tensors is in memory.
        self._writer.wait()
        return snapshot_checkpoint(self._model, self._info, state, resumable=resumable)

    def _write(self, job: Callable[[], None]) -> None:
        self._writer.start(job)
        self._saved_s = self._clock()
        if not self._save_seconds:
            # Promised after every step.
            self._writer.wait()

    def wait(self) -> None:
        """Wait for files that are being written, and raise what prevents it."""
        self._writer.wait()

    def close(self, *, is_failing: bool = False) -> None:
        """End the progress, wait for files that are being written, and draw epochs that are not yet in the figure."""
        self._end_progress()
        with suppress(NotSavedError, OSError) if is_failing else nullcontext():
            self._writer.close()
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
