"""Before a run: every byte of the shards that it will use, once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cli.ltrain.prepare import Run
from cli.ltrain.run_faults import run_again
from cli.ltrain.train_request import TrainRequest
from cli.output import format_bytes, print_note
from cli.progress import progress_bar
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import ShardEntry, is_whole
from leukemia_data.caches.verify import Damage, changed_shards
from leukemia_data.errors import CacheError
from leukemia_data.scanning.frame_notes import cautions, frame_caution
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_data.splitting.splits import split_indices
from leukemia_data.stores.url import Location
from leukemia_models.devices.distributed import Ranks
from leukemia_models.runs.run_split import SplitCache


def check_data(runs: list[Run], request: TrainRequest, environment: Mapping[str, str], ranks: Ranks) -> None:
    """Hold the shards that the runs use against their digests, once on each machine, and say how long that took.

    Raises
    ------
    CacheError
        On every rank, if one of them is damaged on some machine.
    """
    if not (request.check and runs):
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
        if int(environment.get("LOCAL_RANK", "0")) == 0:
            _check(caches, to_read, num_bytes, run_again(runs[0], request))

    ranks.run_on_all(check)
    if ranks.is_first:
        num_later = sum(len(shards[place]) - len(to_read[place]) for place in caches)
        later = f"; shards that are checked as they arrive: {num_later}" if num_later else ""
        print_note(f"checked {format_bytes(num_bytes)} in {time.perf_counter() - started_s:.1f} s{later}")


def tell_of_sources(runs: Iterable[Run], ranks: Ranks) -> None:
    """Say once, however many stages or folds there are, what of their sources should be looked at."""
    if not ranks.is_first:
        return
    manifests = [run.data.cache.manifest for run in runs]
    read = [(manifest.understood, manifest) for manifest in manifests if manifest.understood is not None]
    telling = [frame_caution(reading, manifest.recipe) for reading, manifest in read]
    others = [
        caution
        for reading, manifest in read
        for caution in cautions(reading, manifest.recipe, manifest.size_px, with_finding=False)
    ]
    for text in dict.fromkeys(filter(None, telling)):
        print_note(f"warning: {text}")
    for text in dict.fromkeys(others):
        print_note(f"note: {text}")


def used_shards(splits: Iterable[SplitCache]) -> dict[Location, list[ShardEntry]]:
    """By the cache's place: the shards that hold a sample of some part of a split, in the manifest's order."""
    caches: dict[Location, Cache] = {}
    numbers: dict[Location, set[int]] = {}
    for data in splits:
        caches[data.cache.location] = data.cache
        numbers.setdefault(data.cache.location, set()).update(_shard_numbers(data))
    return {place: [caches[place].manifest.shards[n] for n in sorted(numbers[place])] for place in caches}


def _is_read(cache: Cache, shard: ShardEntry) -> bool:
    """Whether a shard is to be read now: those that are still to be fetched are held against their digests then."""
    return not cache.is_fetched or is_whole(cache.directory, shard)


def _shard_numbers(data: SplitCache) -> list[int]:
    samples = np.concatenate([split_indices(data.codes, part) for part in SPLIT_NAMES])
    numbers = np.unique(np.searchsorted(data.cache.first_rows, samples, side="right") - 1)
    return [int(number) for number in numbers]


def _check(
    caches: Mapping[Location, Sequence[Cache]],
    shards: Mapping[Location, list[ShardEntry]],
    num_bytes: int,
    run_command: str,
) -> None:
    with progress_bar(num_bytes, "checking", unit="B") as bar:
        for place, entries in shards.items():
            cache = caches[place][0]
            directory = cache.directory
            damages = changed_shards(directory, entries, num_threads=os.cpu_count() or 1, progress=bar.update)
            if damages and cache.is_fetched:
                _fetch_anew(caches[place], directory, damages)
            elif damages:
                raise CacheError(
                    f"{len(damages)} of the {len(entries)} shards to train on are damaged, first "
                    f"{directory / damages[0].file}: {damages[0].problem}. Mend them with `ldata verify {directory} "
                    f"--repair --source SOURCE`, where SOURCE is what they were built from; then go on with "
                    f"`{run_command}`"
                )


def _fetch_anew(caches: Iterable[Cache], directory: Path, damages: Sequence[Damage]) -> None:
    """Remove copies that are damaged: whoever needs them fetches them once more."""
    for cache in caches:
        # What was read to prepare the runs mapped these files, and would go on giving their bytes.
        cache.close()
    for damage in damages:
        (directory / damage.file).unlink(missing_ok=True)
    print_note(f"damaged copies in the stage, to be fetched anew: {len(damages)}, first {damages[0].file}")
