"""Runs that one rank has prepared, broadcast to all others: their settings and split; caches are each node's own.

Only the first rank reads and writes the folder of a run. The others need not see it: on another machine they open a
copy of the cache, at a path of their own, and refuse it unless it holds the same pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.errors import RunError, UsageError
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.stores.url import parse_location
from leukemia_models.devices.distributed import Ranks
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.prepared_run import PreparedRun
from leukemia_models.runs.run_config import RunConfig, parse_config
from leukemia_models.runs.run_data import holds_data
from leukemia_models.runs.run_folder import RunFolder, is_begun, is_kfold
from leukemia_models.runs.run_options import MachineOptions, TrainingProcess
from leukemia_models.runs.run_split import SplitCache


def on_all_ranks(
    prepare: Callable[[], list[PreparedRun]], process: TrainingProcess, out: Path | None
) -> list[PreparedRun]:
    """Let the first rank prepare runs; the others open their own copies of the caches for them.

    Parameters
    ----------
    prepare
        Called on the first rank alone.
    process
        This process.
    out
        The folder of the runs, where it was named.

    Raises
    ------
    RunError, UsageError
        On every rank, whichever rank met it: if a node has no cache for a run, or one of other images, or if only
        another node than the first rank's sees the run that is begun in `out`.
    """
    ranks = process.ranks
    _require_folder_of_first(out, ranks)
    runs: list[PreparedRun] = []
    ranks.run_on_all(lambda: runs.extend(prepare()) if ranks.is_first else None)
    if ranks.world_size == 1:
        return runs
    described = ranks.broadcast_text(json.dumps([_described(run) for run in runs]))
    splits = ranks.broadcast_bytes(lambda: b"".join(run.data.codes.tobytes() for run in runs))
    return ranks.run_on_all(lambda: runs or _opened(json.loads(described), splits, process.options))


def is_finished(run: PreparedRun, ranks: Ranks) -> bool:
    """Whether a run is trained and evaluated, as the first rank sees it."""
    return ranks.broadcast_flag(ranks.is_first and run.is_finished)


def _require_folder_of_first(out: Path | None, ranks: Ranks) -> None:
    """Refuse to begin anew where another node has the run: the first rank may be on another node than last time."""
    begun = out is not None and (is_begun(out) or is_kfold(out))
    begun_W = ranks.all_gather_numbers(begun)[:, 0]
    if begun_W.any() and not begun_W[0]:
        raise UsageError(
            f"rank {int(begun_W.argmax())} finds a run in --out {out}, and rank 0 on its node does not: put "
            "--out where all nodes see it, or let rank 0 be on the node that has it"
        )


def _described(run: PreparedRun) -> dict[str, Any]:
    num_samples = len(run.data.codes)
    return {"root": str(run.folder.root), "config": run.config.to_dict(), "num_samples": num_samples}


def _opened(described: list[dict[str, Any]], splits: bytes, options: MachineOptions) -> list[PreparedRun]:
    runs, codes_N = [], np.frombuffer(splits, np.int8)
    for values in described:
        config = parse_config(values["config"])
        codes, codes_N = np.split(codes_N, [values["num_samples"]])
        # None where an earlier version began the run: then the first rank alone has found it out.
        seen_before = config.seen_before or NOTHING_SEEN_BEFORE
        data = SplitCache(_own_cache(config, options), parse_split(config.split), codes, seen_before)
        runs.append(PreparedRun(RunFolder(Path(values["root"])), config, data))
    return runs


def _own_cache(config: RunConfig, options: MachineOptions) -> Cache:
    """Open the copy of a run's cache that this node has: where it says so, else where the first rank has its own."""
    location = parse_location(config.cache_dir)
    if options.cache is None and isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
        raise RunError(
            f"there is no cache at {config.cache_dir} on this node: copy it there, or say by --cache or $LTRAIN_CACHE "
            "where this node has its own"
        )
    cache = open_run_cache(config, options.cache, options.copies)
    if not holds_data(cache, config.data_digest):
        raise RunError(
            f"{cache.location} holds other images than the cache of rank 0 ({config.cache_dir}): give every node a "
            "copy of the same cache"
        )
    return cache
