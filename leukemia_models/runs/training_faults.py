"""What stops a training from outside or within, as one line: what happened, what is left, and how to go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leukemia_data.errors import InterruptionError, RunError
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.files.text import format_bytes
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import is_out_of_memory, wanted_memory
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.draft_runs import train_statistics
from leukemia_models.runs.run_config import TrainingProcess
from leukemia_models.runs.run_split import TRAIN
from leukemia_models.training.checkpoint import NotSavedError
from leukemia_models.training.losses import DivergenceError

_SMALLEST_BATCH = 2
_SCRATCH_NAME = re.compile(r"\.[0-9a-f]{12}\.partial$")


@contextmanager
def explained_faults(run: PreparedRun, root: Path, process: TrainingProcess) -> Iterator[None]:
    """Turn what stops the training in the block into a RunError that says how to go on.

    What was saved is for the first rank to say: others may not see the run's folder.

    Parameters
    ----------
    run
        The run that is trained.
    root
        The folder to resume: with all its stages, or all its folds.
    process
        This process.

    Raises
    ------
    InterruptionError
        For an interruption.
    RunError
        For numbers that are no longer finite, memory that ran out, or a full disk. Other errors come
        through as they are.
    """
    again = f"`{process.resume_text(root)}`"
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(f"interrupted: go on with {again}") from None
    except DivergenceError as error:
        if not process.ranks.is_first:
            raise
        raise RunError(f"{error}. {_after_divergence(run, again)}") from error
    except NotSavedError as error:
        raise RunError(f"{error}, then go on with {again}") from error
    except (RuntimeError, MemoryError, OSError) as error:
        if is_out_of_memory(error):
            raise RunError(_out_of_memory(error, run, again, process)) from error
        if is_disk_full(error):
            raise RunError(_disk_full(error, run, again)) from error
        raise


def _after_divergence(run: PreparedRun, again: str) -> str:
    """What is left of a training whose numbers ran away, and which settings to change."""
    rate = run.config.settings.optimizer.peak_lr / 10
    other = f"a lower learning rate (such as {rate:g}), a limit to gradients (--clip-norm 1) or some --warmup-epochs"
    if _has_given_normalization(run):
        other += ", and check --normalize"
    if run.config.stage:
        other += ", in a copy of the plan"
    last = run.folder.checkpoint("last")
    if not last.is_file():
        return f"Nothing was saved before it. Start a new run with {other}"
    start = "" if run.is_fold else f" --start {quoted(last)} and"
    return (
        f"{last} holds the finite weights saved before it. {again} goes on from there by the same "
        f"settings, and may come to the same; otherwise start a new run with{start} {other}"
    )


def _has_given_normalization(run: PreparedRun) -> bool:
    """Whether it is normalised by other numbers than those of its training images."""
    own = train_statistics(run.data.cache, run.data.indices(TRAIN))
    return Normalization.of(**run.config.normalization) != own


def _out_of_memory(error: BaseException, run: PreparedRun, again: str, process: TrainingProcess) -> str:
    batch_size, size_px, device = run.config.batch_size, run.data.cache.size_px, process.device
    wanted = wanted_memory(error)
    text = (
        f"memory ran out on {device} with {run.config.model_name} and batches of {batch_size} images of {size_px} px"
        + (f" (when {wanted} more were wanted)" if wanted else "")
    )
    same_run = again
    if process.options.residency in ("auto", "device", "ram"):
        # These keep all pixels of a part in memory, where there seemed to be room.
        same_run = f"{again} and `--residency mapped`, which keeps fewer pixels in memory"
    parts = 2 * run.config.settings.accumulate
    changes = [f"--batch-size {max(batch_size // 2, _SMALLEST_BATCH)}"] if batch_size > _SMALLEST_BATCH else []
    changes += [f"--accumulate {parts}"] if batch_size >= _SMALLEST_BATCH * parts else []
    if device.type == "cuda" and not run.config.settings.amp:
        changes.append("--amp")
    changes.append("a cache of a smaller --size")
    last = run.folder.checkpoint("last")
    start = f", from what was saved: --start {quoted(last)}" if last.is_file() and not run.is_fold else ""
    return (
        f"{text}. End what else uses that memory and go on with {same_run}; or start a new run with "
        f"{' or '.join(changes)}{start}"
    )


def _disk_full(error: BaseException, run: PreparedRun, again: str) -> str:
    name = getattr(error, "filename", None)
    path = Path(_SCRATCH_NAME.sub("", str(name))) if name else run.folder.root
    free = free_disk_bytes(path)
    room = "" if free is None else f" ({format_bytes(free)} are free)"
    return (
        f"{path} could not be written: {getattr(error, 'strerror', None) or error}{room}. Checkpoints and what was "
        f"written before are whole; make room, then go on with {again}"
    )


def quoted(path: Path) -> str:
    """Return a path as one word of a command line."""
    return f'"{path}"' if " " in str(path) else str(path)
