"""What stops a training: checks of data and disk before it starts, and explanations of failures during it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import ShardEntry, is_whole
from leukemia_data.caches.verify import Damage, changed_shards
from leukemia_data.console import Console
from leukemia_data.errors import CacheError, InterruptionError, RunError
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.files.text import format_bytes
from leukemia_data.scanning.frame_notes import cautions, frame_caution
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_data.splitting.splits import split_indices
from leukemia_data.stores.url import Location
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import is_out_of_memory, wanted_memory
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.draft_runs import train_statistics
from leukemia_models.runs.run_config import RunConfig, TrainingProcess
from leukemia_models.runs.run_split import TRAIN, SplitCache
from leukemia_models.training.checkpoint import NotSavedError
from leukemia_models.training.checkpoint_file import CheckpointRoom, checkpoint_room
from leukemia_models.training.losses import DivergenceError


def check_data(runs: Sequence[PreparedRun], root: Path, process: TrainingProcess) -> None:
    """Compare the shards that the runs use with their digests, once on each machine, and say how long that took.

    Parameters
    ----------
    runs
        Those that are not finished.
    root
        The folder to resume, for messages.
    process
        This process; its options may leave the check out.

    Raises
    ------
    CacheError
        On every rank, if one of them is damaged on some machine.
    """
    if not (process.options.check and runs):
        return
    caches: dict[Location, list[Cache]] = {}
    for run in runs:
        caches.setdefault(run.data.cache.location, []).append(run.data.cache)
    shards = used_shards(run.data for run in runs)
    to_read = {place: [shard for shard in shards[place] if _is_read(caches[place][0], shard)] for place in caches}
    num_bytes = sum(shard.num_bytes for entries in to_read.values() for shard in entries)
    started_s = time.perf_counter()

    def check() -> None:
        # Processes on one machine read the same files.
        if process.is_first_here:
            _check(caches, to_read, num_bytes, process.resume_text(root), process.console)

    process.ranks.run_on_all(check)
    num_later = sum(len(shards[place]) - len(to_read[place]) for place in caches)
    later = f"; shards that are checked as they arrive: {num_later}" if num_later else ""
    process.console.note(f"checked {format_bytes(num_bytes)} in {time.perf_counter() - started_s:.1f} s{later}")


def warn_of_sources(runs: Iterable[PreparedRun], console: Console) -> None:
    """Say once, however many stages or folds there are, what of their sources should be looked at."""
    manifests = [run.data.cache.manifest for run in runs]
    read = [(manifest.understood, manifest) for manifest in manifests if manifest.understood is not None]
    telling = [frame_caution(reading, manifest.recipe) for reading, manifest in read]
    others = [
        caution
        for reading, manifest in read
        for caution in cautions(reading, manifest.recipe, manifest.size_px, with_finding=False)
    ]
    for text in dict.fromkeys(filter(None, telling)):
        console.warn(text)
    for text in dict.fromkeys(others):
        console.note(f"note: {text}")


def require_disk_room(runs: Sequence[PreparedRun], console: Console) -> None:
    """Compare what the checkpoints of runs will take with what is free; those that are there already are replaced.

    Parameters
    ----------
    runs
        Those that are not finished, in order, on one disk.
    console
        Warned if a later run than the first will find no room.

    Raises
    ------
    RunError
        If the first of them will find no room.
    """
    taken_before = 0
    for number, run in enumerate(runs):
        room, root = _room(run.config), run.folder.root
        there = sum(path.stat().st_size for path in root.glob("*.safetensors"))
        needed = taken_before + max(room.max_bytes - there, room.resumable_bytes)
        free = free_disk_bytes(root)
        if free is not None and needed > free:
            text = f"the checkpoints of {root} need {format_bytes(needed)}, {format_bytes(free)} are free"
            if number == 0:
                raise RunError(f"{text}: make room and go on with --resume, or name another --out")
            console.warn(f"with those of the runs before it, {text}: make room while they are trained")
            return
        taken_before += max(room.kept_bytes - there, 0)


def _room(config: RunConfig) -> CheckpointRoom:
    # Without memory for it, and without the time that first weights take.
    with torch.device("meta"):
        model = build_model(config.model_name, config.settings.num_classes)
    return checkpoint_room(model, config.settings)


def used_shards(splits: Iterable[SplitCache]) -> dict[Location, list[ShardEntry]]:
    """Return, by the cache's place, the shards that hold a sample of some part of a split, in the manifest's order."""
    caches: dict[Location, Cache] = {}
    numbers: dict[Location, set[int]] = {}
    for data in splits:
        caches[data.cache.location] = data.cache
        numbers.setdefault(data.cache.location, set()).update(_shard_numbers(data))
    return {place: [caches[place].manifest.shards[n] for n in sorted(numbers[place])] for place in caches}


def _is_read(cache: Cache, shard: ShardEntry) -> bool:
    """Whether a shard is to be read now: those that are still to be fetched are compared when they are."""
    return not cache.is_fetched or is_whole(cache.directory, shard)


def _shard_numbers(data: SplitCache) -> list[int]:
    samples = np.concatenate([split_indices(data.codes, part) for part in SPLIT_NAMES])
    numbers = np.unique(np.searchsorted(data.cache.first_rows, samples, side="right") - 1)
    return [int(number) for number in numbers]


def _check(
    caches: Mapping[Location, Sequence[Cache]],
    shards: Mapping[Location, list[ShardEntry]],
    num_bytes: int,
    resume_text: str,
    console: Console,
) -> None:
    with console.progress(num_bytes, "checking", unit="B") as bar:
        for place, entries in shards.items():
            cache = caches[place][0]
            directory = cache.directory
            damages = changed_shards(directory, entries, num_threads=os.cpu_count() or 1, progress=bar.update)
            if damages and cache.is_fetched:
                _fetch_anew(caches[place], directory, damages, console)
            elif damages:
                raise CacheError(
                    f"{len(damages)} of the {len(entries)} shards to train on are damaged, first "
                    f"{directory / damages[0].file}: {damages[0].problem}. Repair them with `ldata verify {directory} "
                    f"--repair --source SOURCE`, where SOURCE is what they were built from; then go on with "
                    f"`{resume_text}`"
                )


def _fetch_anew(caches: Iterable[Cache], directory: Path, damages: Sequence[Damage], console: Console) -> None:
    """Remove copies that are damaged: whoever needs them fetches them once more."""
    for cache in caches:
        # What was read to prepare the runs mapped these files, and would go on giving their bytes.
        cache.close()
    for damage in damages:
        (directory / damage.file).unlink(missing_ok=True)
    console.note(f"damaged local copies, to be fetched anew: {len(damages)}, first {damages[0].file}")


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
