"""Receipts: what a finished task leaves in each cache it served, so that running it again costs nothing.

A receipt is named by the task's key and tells which shard the task made. That is how a build that was stopped goes on
where it stopped; the commit of a cache removes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.shard_task import ShardResult, ShardTask, Target
from leukemia_data.caches.manifest import ShardEntry
from leukemia_data.caches.shard import metadata_digest, open_images, read_table, shard_images, shard_name
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path
from leukemia_data.files.documents import parse_json
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
    """The result of an earlier run of this task, if its shards are whole on disk and are what the receipts say."""
    entries: dict[int, ShardEntry] = {}
    tables: dict[int, SampleTable] = {}
    sizes, mtimes = np.empty(0, np.int64), np.empty(0, np.int64)
    for target in task.targets:
        try:
            receipt = parse_json(receipt_path(task, target).read_text(encoding="utf-8"))
            entry, table = _shard_of(task, target, receipt["shard"])
            sizes, mtimes = _whole_numbers(receipt["sizes"], len(table)), _whole_numbers(receipt["mtimes"], len(table))
        except (OSError, ValueError, TypeError, KeyError, CacheError):
            return None
        entries[target.size_px], tables[target.size_px] = entry, table
    n = len(task.records)
    return ShardResult(entries, tables, sizes, mtimes, (), num_processed=0, num_copied=n, num_records=n)


def _shard_of(task: ShardTask, target: Target, values: Mapping[str, Any]) -> tuple[ShardEntry, SampleTable]:
    """The shard that a receipt names, and its rows. Anybody may have written a receipt: all of it is compared.

    Raises
    ------
    ValueError
        If the shard is not the one that the receipt describes, or does not hold the task's images.
    """
    entry = ShardEntry(**values)
    if Path(entry.name).name != entry.name:
        raise ValueError("the name leaves the cache's directory")
    path = target.directory / entry.name
    digest = file_digest(path)
    # HDF5 may hang or crash on damaged files, so their digest comes first.
    if (digest, shard_name(digest)) != (entry.digest, entry.name):
        raise ValueError("the shard has other bytes")
    images, table = open_images(path), read_table(path)
    expected = (path.stat().st_size, len(table), images.offset_bytes, metadata_digest(images))
    if (entry.num_bytes, entry.num_samples, entry.images_offset_bytes, entry.metadata_digest) != expected:
        raise ValueError("the shard is another one")
    if images.codec != target.codec or shard_images(target.directory, entry, target.size_px) != images:
        raise ValueError("the images are stored in another way")
    if images.shape != (len(task.records), target.size_px, target.size_px, 3):
        raise ValueError("the images have another shape")
    if list(table.id_texts) != [record.record_id for record in task.records]:
        raise ValueError("the shard holds other images")
    return entry, table


def _whole_numbers(values: list[int], num_values: int) -> NDArray[np.int64]:
    if not isinstance(values, list) or len(values) != num_values or not all(type(value) is int for value in values):
        raise ValueError(f"expected {num_values} whole numbers")
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise ValueError("numbers of more than 64 bits") from error
