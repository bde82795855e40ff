"""The task of one shard, its result, and the receipt by which a repeated run is skipped."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukemia_data.caches.codec import RAW
from leukemia_data.caches.manifest import QuarantinedImage, ShardEntry
from leukemia_data.caches.shard import metadata_digest, open_images, read_table, shard_images, shard_name
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import FileState, move_into_place, scratch_path
from leukemia_data.files.documents import parse_json
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import LOOKS_VERSION, file_digest, records_digest
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import FileStates, SampleTable, states_array

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl


@dataclass(frozen=True, slots=True)
class Target:
    """A cache to build: size, identity, directory, codec, and address if it is in a store."""

    size_px: int
    fingerprint: str
    directory: Path
    codec: str = RAW
    stored_at: StoredUrl | None = None


@dataclass(frozen=True, slots=True)
class PriorSample:
    """A sample in earlier caches: per size, the shard and the row in it."""

    source_digest: bytes
    rows: Mapping[int, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Everything needed to make one shard of one or several caches.

    Attributes
    ----------
    records
        Images of the shard in sample order.
    targets
        Caches that lack this shard.
    recipe
        Preprocessing of each image.
    unchanged
        By record id: samples whose files have not changed since they were cached.
    by_digest
        By digest of the source file: samples that may turn out to be the same image.
    recheck_ns
        Time when a recheck began (ns since the epoch): results of earlier runs are ignored. None accepts them.
    """

    records: tuple[Record, ...]
    targets: tuple[Target, ...]
    recipe: Recipe
    unchanged: Mapping[str, PriorSample] = field(default_factory=dict)
    by_digest: Mapping[bytes, PriorSample] = field(default_factory=dict)
    recheck_ns: int | None = None

    @property
    def key(self) -> str:
        """Identity of the work: metadata and file states of the records, and the version of looks."""
        recheck = "" if self.recheck_ns is None else f", recheck {self.recheck_ns}"
        return records_digest(self.records, f"looks {LOOKS_VERSION}{recheck}")


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Result of a task.

    Attributes
    ----------
    entries
        Per size, the shard; empty when no image of the task was usable.
    tables
        Per size, the rows of the shard.
    source_states : ndarray of shape (n, 4), int64
        State of each row's file when it was read, see :mod:`leukemia_data.records.sample_table`.
    failures
        Unusable images, with reasons.
    num_processed, num_copied
        Images that were preprocessed, and images that were copied from an earlier shard.
    num_records
        Images of the task.
    """

    entries: Mapping[int, ShardEntry]
    tables: Mapping[int, SampleTable]
    source_states: FileStates
    failures: tuple[QuarantinedImage, ...]
    num_processed: int
    num_copied: int
    num_records: int


TaskRunner = Callable[[Sequence["ShardTask"]], Iterable[tuple[int, ShardResult]]]
"""Runs tasks and yields (position, result) once each, in order of completion."""


class CountedTasks(Sequence["ShardTask"], ABC):
    """Tasks whose numbers of images are known before they are created."""

    @abstractmethod
    def num_records(self) -> list[int]:
        """Return the number of images of each task, without creating it."""


def largest_first(tasks: Sequence[ShardTask]) -> list[int]:
    """Return the positions of the tasks, largest first, to balance the workers' load."""
    sizes = tasks.num_records() if isinstance(tasks, CountedTasks) else [len(task.records) for task in tasks]
    return sorted(range(len(tasks)), key=lambda position: -sizes[position])


RECEIPTS_DIR = "receipts"


def receipt_path(task: ShardTask, target: Target) -> Path:
    """Return the path of a task's receipt for one cache."""
    return target.directory / RECEIPTS_DIR / f"{task.key}.json"


def leave_receipts(task: ShardTask, result: ShardResult) -> None:
    """Write a receipt into each cache of the task."""
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
            move_into_place(scratch, path)


def find_receipts(task: ShardTask, *, take_failures: bool = False) -> ShardResult | None:
    """Return the result of an earlier run of this task if its shards are complete and match the receipts, else None.

    `take_failures` accepts a run with unusable images: a build tries them again, a commit reports them.
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
    # Receipts of different runs may disagree about an image that changed in between: with the file states of one, the
    # other cache would look up to date permanently.
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
    """The shard that a receipt names (None if no image was usable), and its rows.

    A receipt is untrusted input: raises ValueError if the shard is not the described one, or holds other images.
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
    # Check the digest first: HDF5 may hang or crash on damaged files.
    if (digest, shard_name(digest)) != (entry.digest, entry.name):
        raise ValueError("the shard has other bytes")
    images, table = open_images(path), read_table(path)
    expected = (path.stat().st_size, len(table), images.offset_bytes, metadata_digest(images))
    if (entry.num_bytes, entry.num_samples, entry.images_offset_bytes, entry.metadata_digest) != expected:
        raise ValueError("the shard is another one")
    if images.codec != target.codec or shard_images(target.directory, entry, target.size_px, target.codec) != images:
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
