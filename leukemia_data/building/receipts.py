"""Receipts: what a finished task leaves in each cache it served, so that running it again costs nothing.

A receipt is named by the task's key and tells which shard the task made. That is how a build that was stopped goes on
where it stopped; the commit of a cache removes them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from leukemia_data.building.shard_task import ShardResult, ShardTask, Target
from leukemia_data.caches.manifest import ShardEntry
from leukemia_data.caches.shard import read_table
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.samples.sample_table import SampleTable

RECEIPTS_DIR = "receipts"


def receipt_path(task: ShardTask, target: Target) -> Path:
    """Where a task's receipt for one cache lies."""
    return target.directory / RECEIPTS_DIR / f"{task.key}.json"


def leave_receipts(task: ShardTask, result: ShardResult) -> None:
    """Write a receipt into each cache that the task served."""
    states = {"sizes": result.source_sizes_bytes.tolist(), "mtimes": result.source_mtimes_ns.tolist()}
    for target in task.targets:
        path = receipt_path(task, target)
        path.parent.mkdir(exist_ok=True)
        with scratch_path(path.parent, path.name) as scratch:
            scratch.write_text(
                json.dumps({"shard": asdict(result.entries[target.size_px]), **states}), encoding="utf-8"
            )
            scratch.replace(path)


def find_receipts(task: ShardTask) -> ShardResult | None:
    """The result of an earlier run of this task, if its shards are whole on disk."""
    entries: dict[int, ShardEntry] = {}
    tables: dict[int, SampleTable] = {}
    sizes, mtimes = np.empty(0, np.int64), np.empty(0, np.int64)
    for target in task.targets:
        try:
            receipt = json.loads(receipt_path(task, target).read_text(encoding="utf-8"))
            entry = ShardEntry(**receipt["shard"])
            path = target.directory / entry.name
            if file_digest(path) != entry.digest:
                return None
            tables[target.size_px] = read_table(path)
        except (OSError, ValueError, TypeError, KeyError, CacheError):
            return None
        entries[target.size_px] = entry
        sizes, mtimes = np.array(receipt["sizes"], np.int64), np.array(receipt["mtimes"], np.int64)
    n = len(task.records)
    return ShardResult(entries, tables, sizes, mtimes, (), num_processed=0, num_copied=n, num_records=n)
