"""Checks of data and disk before a training, and errors of the training that say how to resume."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import ShardEntry, is_whole
from leukemia_data.caches.verify import changed_shards
from leukemia_data.console import Console, Progress
from leukemia_data.errors import CacheError, InterruptionError, RunError
from leukemia_data.files.atomic import remove_file
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.files.text import format_bytes
from leukemia_data.scanning.frame_notes import cautions, frame_caution
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_data.splitting.splits import split_indices
from leukemia_data.stores.url import Location
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import BF16, FP16, FP32, computes_in_bf16, is_out_of_memory, wanted_memory
from leukemia_models.networks.registry import build_outline
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.draft_runs import train_statistics
from leukemia_models.runs.run_config import RunConfig, TrainingProcess
from leukemia_models.runs.run_split import TRAIN, SplitCache
from leukemia_models.training.checkpoint import NotSavedError
from leukemia_models.training.checkpoint_file import checkpoint_room
from leukemia_models.training.losses import DivergenceError


def check_data(runs: Sequence[PreparedRun], root: Path, process: TrainingProcess) -> None:
    """Compare the shards that unfinished runs use with their digests, once on each machine.

    Parameters
    ----------
    root
        The folder to resume, for messages.

    Raises
    ------
    CacheError
        On every rank, if a shard is damaged on some machine.
    """
    if not (process.options.check and runs):
        return
    splits: dict[Location, list[SplitCache]] = {}
    for run in runs:
        splits.setdefault(run.data.cache.location, []).append(run.data)
    shards = {place: used_shards(same_cache) for place, same_cache in splits.items()}
    # Shards that are still to be downloaded are checked on arrival.
    here = {place: [shard for shard in shards[place] if _is_here(splits[place][0].cache, shard)] for place in splits}
    num_bytes = sum(shard.num_bytes for entries in here.values() for shard in entries)
    started_s = time.perf_counter()

    def check() -> None:
        # Processes on one machine read the same files.
        if process.is_first_here:
            with process.console.progress(num_bytes, "checking", unit="B") as bar:
                for place, entries in here.items():
                    caches = [data.cache for data in splits[place]]
                    _check_shards(caches, entries, bar, process.resume_text(root), process.console)

    process.ranks.run_on_all(check)
    num_later = sum(len(shards[place]) - len(here[place]) for place in shards)
    later = f"; shards that are checked as they arrive: {num_later}" if num_later else ""
    process.console.note(f"checked {format_bytes(num_bytes)} in {time.perf_counter() - started_s:.1f} s{later}")


def used_shards(splits: Sequence[SplitCache]) -> list[ShardEntry]:
    """Return the shards that hold a sample of a part of a split, in the manifest's order; all splits of one cache."""
    cache = splits[0].cache
    samples = np.concatenate([split_indices(data.codes, part) for data in splits for part in SPLIT_NAMES])
    indices = np.unique(np.searchsorted(cache.first_rows, samples, side="right") - 1)
    return [cache.manifest.shards[index] for index in indices]


def _is_here(cache: Cache, shard: ShardEntry) -> bool:
    return not cache.is_fetched or is_whole(cache.directory, shard)


def _check_shards(
    caches: Sequence[Cache], shards: Sequence[ShardEntry], bar: Progress, resume_text: str, console: Console
) -> None:
    """Check shards of one cache; `caches` are all its open readers."""
    directory = caches[0].directory
    damages = changed_shards(directory, shards, num_threads=os.cpu_count() or 1, progress=bar.update)
    if damages and not caches[0].is_fetched:
        raise CacheError(
            f"{len(damages)} of the {len(shards)} shards to train on are damaged, first "
            f"{directory / damages[0].file}: {damages[0].problem}. Repair them with `ldata verify {directory} "
            f"--repair --source SOURCE`, where SOURCE is what they were built from; then go on with `{resume_text}`"
        )
    if damages:
        for cache in caches:
            # It may have mapped the damaged files.
            cache.close()
        for damage in damages:
            remove_file(directory / damage.file)
        console.note(f"damaged local copies, to be downloaded again: {len(damages)}, first {damages[0].file}")


def warn_of_sources(runs: Iterable[PreparedRun], console: Console) -> None:
    """Print the cautions of the sources of runs, each once."""
    frames: dict[str, None] = {}
    others: dict[str, None] = {}
    for manifest in (run.data.cache.manifest for run in runs):
        if (reading := manifest.understood) is not None:
            if caution := frame_caution(reading, manifest.recipe):
                frames[caution] = None
            others |= dict.fromkeys(cautions(reading, manifest.recipe, manifest.size_px, with_finding=False))
    for text in frames:
        console.warn(text)
    for text in others:
        console.note(f"note: {text}")


def require_disk_room(runs: Sequence[PreparedRun], console: Console) -> None:
    """Compare the sizes of checkpoints to be written, less those they replace, with the free space.

    Parameters
    ----------
    runs
        Unfinished runs, in order, on one disk.
    console
        Warned if the disk will be too full for a later run.

    Raises
    ------
    RunError
        If it is too full for the first one.
    """
    taken_before = 0
    for number, run in enumerate(runs):
        settings, root = run.config.settings, run.folder.root
        room = checkpoint_room(build_outline(run.config.model_name, settings.num_classes), settings)
        present = sum(path.stat().st_size for path in root.glob("*.safetensors"))
        needed = taken_before + max(room.max_bytes - present, room.resumable_bytes)
        free = free_disk_bytes(root)
        if free is not None and needed > free:
            text = f"the checkpoints of {root} need {format_bytes(needed)}, {format_bytes(free)} are free"
            if number == 0:
                raise RunError(f"{text}: make room and go on with --resume, or choose another --out")
            console.warn(f"with those of the runs before it, {text}: make room while they are trained")
            return
        taken_before += max(room.kept_bytes - present, 0)


@contextmanager
def explained_faults(run: PreparedRun, root: Path, process: TrainingProcess) -> Iterator[None]:
    """Turn failures of the training in the block into errors that say how to resume.

    Parameters
    ----------
    root
        The folder to resume: of all stages, or all folds.

    Raises
    ------
    InterruptionError
        For a KeyboardInterrupt.
    RunError
        For non-finite numbers, exhausted memory or a full disk. Other errors are not changed.
    """
    again = f"`{process.resume_text(root)}`"
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(f"interrupted: go on with {again}") from None
    except DivergenceError as error:
        # Other ranks may not see the run's folder.
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
    """Return which weights are left, and which settings to change."""
    rate = run.config.settings.optimizer.peak_lr / 10
    other = f"a lower learning rate (such as {rate:g}), a limit to gradients (--clip-norm 1) or some --warmup-epochs"
    if Normalization.of(**run.config.normalization) != train_statistics(run.data.cache, run.data.indices(TRAIN)):
        other += ", and check --normalize"
    if run.config.stage:
        other += ", in a copy of the plan"
    last = run.folder.checkpoint("last")
    if not last.is_file():
        return f"Nothing was saved before it. Start a new run with {other}"
    start = "" if run.is_fold else f" --start {quoted(last)} and"
    return (
        f"{last} holds the finite weights saved before it. {again} goes on from there with the same "
        f"settings, and may fail again; otherwise start a new run with{start} {other}"
    )


def _out_of_memory(error: BaseException, run: PreparedRun, again: str, process: TrainingProcess) -> str:
    config, device, wanted = run.config, process.device, wanted_memory(error)
    # All other residencies keep all pixels of a part in memory.
    is_mapped = process.options.residency == MAPPED
    mapped = "" if is_mapped else " and `--residency mapped`, which keeps fewer pixels in memory"
    parts = 2 * config.settings.accumulate
    changes = [f"--batch-size {max(config.batch_size // 2, 2)}"] if config.batch_size > 2 else []
    changes += [f"--accumulate {parts}"] if config.batch_size >= 2 * parts else []
    changes += [f"--precision {name}" for name in _halving_precision(config, device)]
    changes.append("a cache of a smaller --size")
    last = run.folder.checkpoint("last")
    start = f", from the saved weights: --start {quoted(last)}" if last.is_file() and not run.is_fold else ""
    return (
        f"memory ran out on {device} with {config.model_name} and batches of {config.batch_size} images of "
        f"{run.data.cache.size_px} px{f' (when {wanted} more were wanted)' if wanted else ''}. End what else uses that "
        f"memory and go on with {again}{mapped}; or start a new run with {' or '.join(changes)}{start}"
    )


def _halving_precision(config: RunConfig, device: torch.device) -> list[str]:
    """Return the precision of 16 bits that the device has, in one word or none; none if the run is in it."""
    if config.settings.precision != FP32:
        return []
    if computes_in_bf16(device):
        return [BF16]
    return [FP16] if device.type == "cuda" else []


def _disk_full(error: BaseException, run: PreparedRun, again: str) -> str:
    name = getattr(error, "filename", None)
    path = Path(re.sub(r"\.[0-9a-f]{12}\.partial$", "", str(name))) if name else run.folder.root
    free = free_disk_bytes(path)
    room = "" if free is None else f" ({format_bytes(free)} are free)"
    return (
        f"{path} could not be written: {getattr(error, 'strerror', None) or error}{room}. Earlier checkpoints and "
        f"files are whole; make room, then go on with {again}"
    )


def quoted(path: Path) -> str:
    """Return a path as one word of a command line."""
    return f'"{path}"' if " " in str(path) else str(path)
