"""Before runs are trained: the bytes of their shards, room for their checkpoints, and what to know of their sources."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import ShardEntry, is_whole
from leukemia_data.caches.verify import Damage, changed_shards
from leukemia_data.console import Console
from leukemia_data.errors import CacheError, RunError
from leukemia_data.files.limits import free_disk_bytes
from leukemia_data.files.text import format_bytes
from leukemia_data.scanning.frame_notes import cautions, frame_caution
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_data.splitting.splits import split_indices
from leukemia_data.stores.url import Location
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.run_config import RunConfig, TrainingProcess
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.checkpoint_file import CheckpointRoom, checkpoint_room


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
