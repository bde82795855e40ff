"""Receipts: what a finished task leaves in each cache it served, so that running it again costs nothing.

A receipt is named by the task's key and tells which shard the task made, and which of its images could not be used.
That is how a build that was stopped goes on where it stopped, and how the commit of a plan learns what its shares made;
the commit of a cache removes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leukemia_data.building.shard_task import ShardResult, ShardTask, Target
from leukemia_data.caches.manifest_entries import QuarantinedImage, ShardEntry
from leukemia_data.caches.shard import metadata_digest, open_images, read_table, shard_images, shard_name
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path
from leukemia_data.files.documents import parse_json
from leukemia_data.files.file_state import FileState
from leukemia_data.samples.file_states import FileStates, states_array
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.samples.sample_table import SampleTable

RECEIPTS_DIR = "receipts"


def receipt_path(task: ShardTask, target: Target) -> Path:
    """Where a task's receipt for one cache lies."""
    return target.directory / RECEIPTS_DIR / f"{task.key}.json"


def leave_receipts(task: ShardTask, result: ShardResult) -> None:
    """Write a receipt into each cache that the task served."""
    failures = [[failure.record_id, failure.reason] for failure in result.failures]
    for target in task.targets:
        path = receipt_path(task, target)
        path.parent.mkdir(exist_ok=True)
        entry = result.entries.get(target.size_px)
        receipt = {
            "shard": None if entry is None else asdict(entry),
            "states": result.source_states.tolist(),
            "failures": failures,
        }
        with scratch_path(path.parent, path.name) as scratch:
            scratch.write_text(json.dumps(receipt), encoding="utf-8")
            scratch.replace(path)


def find_receipts(task: ShardTask, *, take_failures: bool = False) -> ShardResult | None:
    """The result of an earlier run of this task, if its shards are whole on disk and are what the receipts say.

    Parameters
    ----------
    take_failures
        Whether a run that could not use some images counts. A build tries such images again; a commit reports them.
    """
    entries: dict[int, ShardEntry] = {}
    tables: dict[int, SampleTable] = {}
    states = states_array([], 0)
    runs: set[tuple[tuple[QuarantinedImage, ...], bytes, bytes]] = set()
    for target in task.targets:
        try:
            receipt = parse_json(receipt_path(task, target).read_text(encoding="utf-8"))
            failures = _failures(receipt.get("failures", []), task)
            entry, table = _shard_of(task, target, receipt["shard"], failures)
            states = _states_of(receipt["states"], len(table))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, CacheError):
            return None
        runs.add((failures, states.tobytes(), table.source_digests.tobytes()))
        tables[target.size_px] = table
        if entry is not None:
            entries[target.size_px] = entry
    # Two caches that were served by different runs may disagree about an image that was mended or changed in between:
    # with the file states of one, the other would look up to date for ever.
    if len(runs) > 1:
        return None
    n, bad = len(task.records), next(iter(runs))[0] if runs else ()
    if bad and not take_failures:
        return None
    return ShardResult(entries, tables, states, bad, num_processed=0, num_copied=n - len(bad), num_records=n)


def _failures(values: list[list[str]], task: ShardTask) -> tuple[QuarantinedImage, ...]:
    failures = tuple(QuarantinedImage(record_id, reason) for record_id, reason in values)
    ids = {failure.record_id for failure in failures}
    if not all(isinstance(failure.reason, str) for failure in failures):
        raise ValueError("a reason is no text")
    if len(ids) < len(failures) or not ids <= {record.record_id for record in task.records}:
        raise ValueError("failures of other images")
    return failures


def _shard_of(
    task: ShardTask, target: Target, values: Mapping[str, Any] | None, failures: tuple[QuarantinedImage, ...]
) -> tuple[ShardEntry | None, SampleTable]:
    """The shard that a receipt names, and its rows. Anybody may have written a receipt: all of it is compared.

    There is none where no image could be used.

    Raises
    ------
    ValueError
        If the shard is not the one that the receipt describes, or does not hold the task's images.
    """
    left_out = {failure.record_id for failure in failures}
    record_ids = [record.record_id for record in task.records if record.record_id not in left_out]
    if values is None and not record_ids:
        return None, SampleTable.from_records([])
    entry = ShardEntry(**(values or {}))
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
    if images.shape != (len(record_ids), target.size_px, target.size_px, 3):
        raise ValueError("the images have another shape")
    if list(table.id_texts) != record_ids:
        raise ValueError("the shard holds other images")
    return entry, table


def _states_of(values: list[list[int]], num_values: int) -> FileStates:
    if not isinstance(values, list) or len(values) != num_values or not all(map(_is_state, values)):
        raise ValueError(f"expected {num_values} file states of whole numbers")
    try:
        return states_array([FileState(*value) for value in values], num_values)
    except OverflowError as error:
        raise ValueError("numbers of more than 64 bits") from error


def _is_state(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(type(number) is int for number in value)
