"""Take runs up again: their settings as they were written, and nothing changed but what has no part in the numbers.

Whoever may be started again begins or resumes by one and the same call. Which of the two it is, the folder alone tells;
what is in the folder must be what that call would have begun, and nothing is ever written over a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.console import Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.lock import lock_run
from leukemia_models.runs.begin_runs import PreparedRun, checkpoint_info, clear_leftovers
from leukemia_models.runs.draft_runs import RunDraft
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.run_checks import require_memory, require_micro_batches
from leukemia_models.runs.run_config import RunConfig, TrainingProcess, load_config, save_config
from leukemia_models.runs.run_folder import RunFolder, find_runs, is_kfold
from leukemia_models.runs.run_split import TRAIN, SplitCache, holds_data
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.training.checkpoint import load_checkpoint, require_trainable
from leukemia_models.training.checkpoint_match import differences, require_same_run
from leukemia_models.training.run_state import STRETCH, require_extended, with_length
from leukemia_models.training.training_plan import SAMPLINGS

# The count is one agent's own: another one, that came later, begins at 0.
_RESTARTS = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT")


@dataclass(frozen=True, kw_only=True)
class RunChanges:
    """What may change when a run is resumed; None keeps what it has.

    Parameters
    ----------
    epochs : int, optional
        Another length, not below the epochs that the run has begun.
    extend : {"stretch", "restart"}, optional
        With a larger length: the schedule over all epochs, or a new one over those added. None stretches.
    accumulate : int, optional
        Micro-batches of each process.
    """

    epochs: int | None = None
    extend: str | None = None
    accumulate: int | None = None


NO_CHANGES = RunChanges()


def may_resume(environment: Mapping[str, str], out: Path | None, *, resume_if_begun: bool) -> bool:
    """Whether a training resumes the run in `out` if one is begun: as asked, or as torchrun may start it again.

    Raises
    ------
    UsageError
        If a later process could not find the run.
    """
    is_restarted = any(environment.get(name, "0") != "0" for name in _RESTARTS)
    if not is_restarted and not resume_if_begun:
        return False
    if out is None:
        what = "--resume-if-begun" if resume_if_begun else "torchrun --max-restarts"
        raise UsageError(f"{what} needs --out: whoever is started again must find the run")
    return True


def resume_folder(
    out: Path, process: TrainingProcess, held: ExitStack, changes: RunChanges = NO_CHANGES
) -> list[PreparedRun]:
    """Read the settings of the run in a folder, or of all stages of the plan there, and hold the folder's lock.

    Raises
    ------
    UsageError, RunError, CacheError
        If there is no run, another process trains it, its cache holds other images, or a change is not possible.
    """
    if is_kfold(out):
        raise UsageError(f"{out} is a cross-validation: go on with `ltrain kfold --out {out} --resume`")
    # Before the lock: it would make the folder.
    folders = find_runs(out)
    if changes.epochs is not None and len(folders) > 1:
        raise UsageError("--epochs gives one run another length; the stages of a plan keep theirs")
    held.enter_context(lock_run(out))
    return resume_runs(out, process, changes)


def resume_runs(out: Path, process: TrainingProcess, changes: RunChanges = NO_CHANGES) -> list[PreparedRun]:
    """Do the same where the caller holds the lock of a folder around it."""
    runs = [_resumed(folder, process, changes) for folder in find_runs(out)]
    clear_leftovers(out)
    return runs


def require_as_drafted(runs: Sequence[PreparedRun], drafts: Sequence[RunDraft], root: Path) -> None:
    """Refuse to resume runs that the same call would not have begun.

    Raises
    ------
    UsageError
        With all differences of the first that differs.
    """
    found = [] if len(runs) == len(drafts) else [f"stages: {len(runs)} instead of {len(drafts)}"]
    for run, draft in zip(runs, drafts, strict=False):
        found = found or list(_differences(run, draft))
    if found:
        raise UsageError(
            f"{root} was begun with other settings: {'; '.join(found)}. Name another --out, or go on with what is "
            f"there by `--out {root} --resume`"
        )


def _differences(run: PreparedRun, draft: RunDraft) -> Iterator[str]:
    own, asked = run.config, draft.config
    yield from differences(checkpoint_info(own, run.data), checkpoint_info(asked, draft.data))
    if own.settings.epochs != asked.settings.epochs:
        yield f"--epochs: {own.settings.epochs} instead of {asked.settings.epochs}"
    for name in ("stage", "class_weights", "judging"):
        one, other = getattr(own, name), getattr(asked, name)
        if one != other:
            yield f"{name}: {one} instead of {other}"


def _resumed(folder: RunFolder, process: TrainingProcess, changes: RunChanges) -> PreparedRun:
    config = load_config(folder)
    if config.augmentation is None:
        raise RunError(
            f"{folder.root} was begun by an earlier version, whose augmentation drew other numbers: it can be "
            "evaluated and used, but not gone on with; start a new run"
        )
    _check_stream(folder, config, config.augmentation, process.console)
    data = _data_of_run(folder, config, process)
    require_memory(data, process)
    if changes.accumulate is not None:
        config = replace(config, settings=replace(config.settings, accumulate=changes.accumulate))
    require_micro_batches(config.batch_size, len(data.indices(TRAIN)), config.settings, process.ranks.world_size)
    config = _with_length(folder, config, data, changes, process.console)
    if changes.accumulate is not None:
        save_config(folder, config)
    return PreparedRun(folder, config, data)


def _data_of_run(folder: RunFolder, config: RunConfig, process: TrainingProcess) -> SplitCache:
    cache = open_run_cache(config, process.options.cache, process.options.copies)
    if config.positive and config.positive not in cache.manifest.classes:
        raise RunError(f"{folder.config} is damaged (no class {config.positive!r}): start a new run")
    data = split_of_run(folder, config, cache, process.console)
    if not holds_data(cache, config.data_digest):
        raise RunError(
            f"{cache.location} holds other images than when the run began, beside the run's own: a resumed run would "
            "not be the same; name the cache as it was with --cache, or start a new run"
        )
    return data


def _check_stream(folder: RunFolder, config: RunConfig, stored: Mapping[str, Any], console: Console) -> None:
    """Refuse settings of the stream that nobody could have given; warn if their readable copy was changed since."""
    try:
        augmentation = Augmentation.from_dict(stored)
    except (UsageError, AttributeError, TypeError) as error:
        raise RunError(f"{folder.config} is damaged ({error}): start a new run") from error
    if config.sampling not in SAMPLINGS:
        raise RunError(f"{folder.config} is damaged (unknown sampling {config.sampling!r}): start a new run")
    path = folder.augmentation
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != augmentation.to_toml():
        console.warn(
            f"{path} was changed after the run began. The run goes on with the augmentation it began with, "
            f"which {folder.config.name} holds; for another one start a new run"
        )


def _with_length(
    folder: RunFolder, config: RunConfig, data: SplitCache, changes: RunChanges, console: Console
) -> RunConfig:
    """Give a run another length, and write it down."""
    if changes.epochs is None or changes.epochs == config.settings.epochs:
        if changes.extend is not None:
            require_extended(config.settings, changes.extend)
        return config
    state = None
    if folder.is_begun:
        checkpoint = load_checkpoint(folder.checkpoint("last"))
        require_trainable(checkpoint)
        # Before run.json is changed: a call that is refused changes nothing.
        require_same_run(checkpoint, checkpoint_info(config, data))
        state = checkpoint.state
    changed = with_length(config.settings, state, changes.epochs, changes.extend or STRETCH)
    console.note(f"note: {changed.note}")
    config = replace(config, settings=changed.settings)
    save_config(folder, config)
    return config
