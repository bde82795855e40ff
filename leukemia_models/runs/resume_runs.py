"""Resume runs with their recorded settings; only settings that do not change the results may change.

A call that may be repeated begins or resumes, depending on the folder alone. The runs in the folder must be those that
the call would have begun; a run is never overwritten.
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
from leukemia_models.devices.precision import FP32, decide_precision, has_precision
from leukemia_models.runs.begin_runs import PreparedRun, checkpoint_info, clear_leftovers
from leukemia_models.runs.draft_runs import RunDraft
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.preflight import require_memory, require_micro_batches
from leukemia_models.runs.run_config import RunConfig, TrainingProcess, load_config, save_config
from leukemia_models.runs.run_folder import RunFolder, find_runs, is_kfold
from leukemia_models.runs.run_split import TRAIN, SplitCache, holds_data
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.training.checkpoint import load_checkpoint, require_trainable
from leukemia_models.training.checkpoint_match import differences, require_same_run
from leukemia_models.training.run_state import STRETCH, PrecisionChange, TrainState, require_extended, with_length
from leukemia_models.training.training_plan import SAMPLINGS

# Each agent counts its own restarts; one that joined later begins at 0.
_RESTARTS = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT")


@dataclass(frozen=True, kw_only=True)
class RunChanges:
    """Changes to a resumed run; None keeps its setting.

    Parameters
    ----------
    epochs : int, optional
        Length of the run, at least the number of epochs it has begun.
    extend : {"stretch", "restart"}, optional
        Schedule of a longer run: over all epochs, or a new one over the added ones. None stretches.
    accumulate : int, optional
        Micro-batches of each process.
    precision : str, optional
        For a device that lacks the run's own. The change is recorded.
    """

    epochs: int | None = None
    extend: str | None = None
    accumulate: int | None = None
    precision: str | None = None


NO_CHANGES = RunChanges()


def may_resume(environment: Mapping[str, str], out: Path | None, *, resume_if_begun: bool) -> bool:
    """Whether a training resumes a run in `out`: by option, or because torchrun may restart it.

    Raises
    ------
    UsageError
        If `out` is None, so that a restarted process could not find the run.
    """
    is_restarted = any(environment.get(name, "0") != "0" for name in _RESTARTS)
    if not is_restarted and not resume_if_begun:
        return False
    if out is None:
        what = "--resume-if-begun" if resume_if_begun else "torchrun --max-restarts"
        raise UsageError(f"{what} needs --out: a restarted process must find the run")
    return True


def resume_folder(
    out: Path, process: TrainingProcess, held: ExitStack, changes: RunChanges = NO_CHANGES
) -> list[PreparedRun]:
    """Return the run in a folder, or all stages of a plan, ready to be trained; `held` gets the folder's lock.

    Raises
    ------
    UsageError, RunError, CacheError
        If there is no run, another process trains it, its cache holds other images, or a change is not possible.
    """
    if is_kfold(out):
        raise UsageError(f"{out} is a cross-validation: resume it with `ltrain kfold --out {out} --resume`")
    # Before the lock, which would make the folder.
    folders = find_runs(out)
    if changes.epochs is not None and len(folders) > 1:
        raise UsageError("--epochs changes the length of one run; the stages of a plan keep theirs")
    held.enter_context(lock_run(out))
    return resume_runs(out, process, changes)


def resume_runs(out: Path, process: TrainingProcess, changes: RunChanges = NO_CHANGES) -> list[PreparedRun]:
    """Do the same for a caller that holds the lock of a parent folder."""
    runs = [_resumed(folder, process, changes) for folder in find_runs(out)]
    clear_leftovers(out)
    return runs


def require_as_drafted(runs: Sequence[PreparedRun], drafts: Sequence[RunDraft], root: Path) -> None:
    """Raise a UsageError with the differences if the same call would have begun other runs."""
    found = [] if len(runs) == len(drafts) else [f"stages: {len(runs)} instead of {len(drafts)}"]
    for run, draft in zip(runs, drafts, strict=False):
        found = found or list(_differences(run, draft))
    if found:
        raise UsageError(
            f"{root} was begun with other settings: {'; '.join(found)}. Choose another --out, or resume the run with "
            f"`--out {root} --resume`"
        )


def _differences(run: PreparedRun, draft: RunDraft) -> Iterator[str]:
    own, asked = run.config, draft.config
    # A job that is restarted on another machine goes on as the first one decided.
    decided = {name: getattr(own.settings, name) for name in draft.left_to_device}
    asked = replace(asked, settings=replace(asked.settings, **decided))
    yield from differences(checkpoint_info(own, run.data), checkpoint_info(asked, draft.data))
    if own.settings.epochs != asked.settings.epochs:
        yield f"--epochs: {own.settings.epochs} instead of {asked.settings.epochs}"
    for name in ("stage", "class_weights", "judging"):
        one, other = getattr(own, name), getattr(asked, name)
        if one != other:
            yield f"{name}: {one} instead of {other}"


def _resumed(folder: RunFolder, process: TrainingProcess, changes: RunChanges) -> PreparedRun:
    config = begun = load_config(folder)
    if config.augmentation is None:
        raise RunError(
            f"{folder.root} was begun by an earlier version with another augmentation: it can be evaluated and used, "
            "but not resumed; start a new run"
        )
    _check_augmentation(folder, config, config.augmentation, process.console)
    data = _data_of_run(folder, config, process)
    require_memory(data, config.model_name, config.settings, process)
    if changes.accumulate is not None:
        config = replace(config, settings=replace(config.settings, accumulate=changes.accumulate))
    require_micro_batches(config.batch_size, len(data.indices(TRAIN)), config.settings, process.ranks.world_size)
    config = _with_length(folder, config, data, changes, process.console)
    config = _with_precision(folder, config, data, changes, process)
    # After all checks: a change that is refused changes nothing.
    if config != begun:
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
            "not be the same; name the original cache with --cache, or start a new run"
        )
    return data


def _check_augmentation(folder: RunFolder, config: RunConfig, stored: Mapping[str, Any], console: Console) -> None:
    """Raise a RunError if augmentation or sampling is damaged; warn if ``augment.toml`` was edited."""
    try:
        augmentation = Augmentation.from_dict(stored)
    except (UsageError, AttributeError, TypeError) as error:
        raise RunError(f"{folder.config} is damaged ({error}): start a new run") from error
    if config.sampling not in SAMPLINGS:
        raise RunError(f"{folder.config} is damaged (unknown sampling {config.sampling!r}): start a new run")
    path = folder.augmentation
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != augmentation.to_toml():
        console.warn(
            f"{path} was changed after the run began. The run keeps the augmentation in {folder.config.name}; for "
            "another one start a new run"
        )


def _with_length(
    folder: RunFolder, config: RunConfig, data: SplitCache, changes: RunChanges, console: Console
) -> RunConfig:
    """Return the settings of a run with another length."""
    if changes.epochs is None or changes.epochs == config.settings.epochs:
        if changes.extend is not None:
            require_extended(config.settings, changes.extend)
        return config
    state = _state(folder, config, data)
    changed = with_length(config.settings, state, changes.epochs, changes.extend or STRETCH)
    console.note(f"note: {changed.note}")
    return replace(config, settings=changed.settings)


def _state(folder: RunFolder, config: RunConfig, data: SplitCache) -> TrainState | None:
    """Return the state of a run whose settings will be changed; None before it begins."""
    if not folder.is_begun:
        return None
    checkpoint = load_checkpoint(folder.checkpoint("last"))
    require_trainable(checkpoint)
    # Before run.json is changed.
    require_same_run(checkpoint, checkpoint_info(config, data))
    return checkpoint.state


def _with_precision(
    folder: RunFolder, config: RunConfig, data: SplitCache, changes: RunChanges, process: TrainingProcess
) -> RunConfig:
    """Return the settings of an unfinished run with another precision, or require that the devices have its own."""
    settings, device, has_bf16 = config.settings, process.device, process.has_bf16
    wanted = settings.precision
    if changes.precision is not None:
        size_px = settings.smallest_px(data.cache.size_px)
        wanted = decide_precision(changes.precision, device, has_bf16=has_bf16, size_px=size_px)
    if wanted == settings.precision and has_precision(wanted, device, has_bf16=has_bf16):
        return config
    state = _state(folder, config, data)
    if state is not None and settings.stops_after(state.history.records):
        return config
    if wanted == settings.precision:
        raise UsageError(
            f"{folder.root} computes in {wanted}, which {device} would emulate: resume it where it was begun, or with "
            f"--precision {FP32}, which is recorded as a change of the run"
        )
    if state is None:
        return replace(config, settings=replace(settings, precision=wanted))
    change = PrecisionChange(after_epochs=state.epochs_done, from_precision=settings.precision, to_precision=wanted)
    process.console.note(f"note: {change.text()}")
    changed = replace(settings, precision=wanted, precision_changes=(*(settings.precision_changes or ()), change))
    return replace(config, settings=changed)
