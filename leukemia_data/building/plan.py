"""The build plan: which shards stay, which must be made, and from what.

Samples are ordered by the hash of their ids and cut into shards by a binary trie over that hash: a shard that would
hold too many is split by the next bit. The shards are thus a function of the set of records alone, not of the
order of builds, and adding or removing an image changes one shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leukemia_data.building.prior import KeptShard, PriorCache, find_kept, is_same_file, load_prior, prior_sample
from leukemia_data.building.shard_task import PriorSample, ShardTask, Target
from leukemia_data.caches.manifest import QuarantinedImage, cache_dir_name
from leukemia_data.caches.shard import shard_bytes
from leukemia_data.errors import ImageError
from leukemia_data.pixels.decode import decode_rgb
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.fingerprint import cache_fingerprint, id_hash
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import SampleTable, bytes_per_row
from leukemia_data.sources.source_file import read_file

if TYPE_CHECKING:
    # Loads fsspec, which caches on disks have no use for.
    from leukemia_data.remote.mirror import StoredCache

DEFAULT_SHARD_CAPACITY = 128
_HASH_BITS = 64


@dataclass(frozen=True)
class TargetPlan:
    """One cache: what it was, and shard by shard what stays; None marks a shard that a task will make."""

    target: Target
    prior: PriorCache | None
    kept: tuple[KeptShard | None, ...]


@dataclass(frozen=True)
class BuildPlan:
    """Everything a build will do, as a value.

    Attributes
    ----------
    targets
        One per size; all have the same number of shards.
    tasks
        Per shard the work, or None where every cache keeps it.
    quarantined
        Images that are unusable already now: missing, or unusable at the last build and still.
    notes
        What a user should know.
    """

    name: str
    recipe: Recipe
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    targets: tuple[TargetPlan, ...]
    tasks: tuple[ShardTask | None, ...]
    quarantined: tuple[QuarantinedImage, ...]
    notes: tuple[str, ...]

    def bytes_to_write(self) -> int:
        """Room that the tasks and the new indexes need: pixels and rows exactly, headers rounded up."""
        row_bytes = bytes_per_row(SampleTable.from_records(self.records))
        indexes = len(self.targets) * shard_bytes(len(self.records), 0, row_bytes + 2 * np.int64().nbytes)
        shards = sum(
            shard_bytes(len(task.records), target.size_px, row_bytes)
            for task in self.tasks
            if task is not None
            for target in task.targets
        )
        return indexes + shards


def plan_build(
    *,
    name: str,
    cache_root: Path,
    recipe: Recipe,
    sizes_px: Sequence[int],
    classes: Sequence[str],
    records: Sequence[Record],
    opencv_version: str,
    shard_capacity: int = DEFAULT_SHARD_CAPACITY,
    stored: Mapping[Path, StoredCache] | None = None,
) -> BuildPlan:
    """Compare a source with the caches there are.

    Parameters
    ----------
    name, cache_root
        The caches lie in ``cache_root/name/<size>-<fingerprint>``.
    recipe, sizes_px, opencv_version
        What decides the pixels.
    classes, records
        The source's listing.
    shard_capacity
        Samples a shard holds at the most.
    stored
        By directory: the state in its store of each cache that lies in one; the directory holds its manifest and index.

    Raises
    ------
    CacheError
        If an earlier cache of this name was made from other images altogether.
    """
    notes: list[str] = []
    targets = []
    priors = []
    for size_px in sizes_px:
        fingerprint = cache_fingerprint(recipe, size_px, opencv_version)
        directory = cache_root / name / cache_dir_name(size_px, fingerprint)
        cache = None if stored is None else stored[directory]
        targets.append(Target(size_px, fingerprint, directory, None if cache is None else cache.url))
        priors.append(load_prior(targets[-1], records, notes, None if cache is None else cache.files))
    bad = _find_unusable(records, priors)
    buckets = _usable_shards(records, bad, shard_capacity)
    kept_per_target = [[find_kept(bucket, prior) for bucket in buckets] for prior in priors]
    removed = _removed_samples(targets, priors, records)
    tasks = []
    for number, bucket in enumerate(buckets):
        lacking = [n for n, kept in enumerate(kept_per_target) if kept[number] is None]
        chosen = [(targets[n], priors[n]) for n in lacking]
        tasks.append(_make_task(bucket, chosen, recipe, removed) if lacking else None)
    plans = [
        TargetPlan(target, prior, tuple(kept))
        for target, prior, kept in zip(targets, priors, kept_per_target, strict=True)
    ]
    return BuildPlan(name, recipe, tuple(classes), tuple(records), tuple(plans), tuple(tasks), tuple(bad), tuple(notes))


def assign_shards(records: Iterable[Record], capacity: int) -> list[tuple[Record, ...]]:
    """Cut records into shards of at most `capacity`, as a function of the set of their ids alone."""
    ordered = sorted((id_hash(record.record_id), record.record_id, record) for record in records)
    shards: list[tuple[Record, ...]] = []

    def split(first: int, end: int, bit: int) -> None:
        if end - first <= capacity or bit < 0:
            if end > first:
                shards.append(tuple(record for _, _, record in ordered[first:end]))
            return
        middle = first
        while middle < end and not ordered[middle][0] >> bit & 1:
            middle += 1
        split(first, middle, bit - 1)
        split(middle, end, bit - 1)

    split(0, len(ordered), _HASH_BITS - 1)
    return shards


def _find_unusable(records: Sequence[Record], priors: Sequence[PriorCache | None]) -> list[QuarantinedImage]:
    """Images that are unusable already now; those quarantined before are tried again."""
    before = {image.record_id for prior in priors if prior is not None for image in prior.manifest.quarantined}
    doubtful = [record for record in records if record.is_missing or record.record_id in before]
    reasons = [(record.record_id, _why_unusable(record)) for record in doubtful]
    return [QuarantinedImage(record_id, reason) for record_id, reason in reasons if reason is not None]


def _usable_shards(
    records: Sequence[Record], bad: Sequence[QuarantinedImage], capacity: int
) -> list[tuple[Record, ...]]:
    """Shards without the unusable images, which take part in the cut all the same.

    Otherwise the shards would depend on whether an earlier build had found out about those images.
    """
    left_out = {image.record_id for image in bad}
    shards = [
        tuple(record for record in shard if record.record_id not in left_out)
        for shard in assign_shards(records, capacity)
    ]
    return [shard for shard in shards if shard]


def _why_unusable(record: Record) -> str | None:
    try:
        decode_rgb(read_file(record.path).data)
    except ImageError as error:
        return str(error)
    return None


def _removed_samples(
    targets: Sequence[Target], priors: Sequence[PriorCache | None], records: Sequence[Record]
) -> dict[bytes, PriorSample]:
    """Earlier samples whose ids are gone: a new id with the same bytes is a renamed file."""
    present = {record.record_id for record in records}
    gone = {
        record_id for prior in priors if prior is not None for record_id in prior.row_of_id if record_id not in present
    }
    samples = [prior_sample(record_id, list(zip(targets, priors, strict=True))) for record_id in sorted(gone)]
    return {sample.source_digest: sample for sample in samples if sample is not None}


def _make_task(
    bucket: tuple[Record, ...],
    chosen: Sequence[tuple[Target, PriorCache | None]],
    recipe: Recipe,
    removed: Mapping[bytes, PriorSample],
) -> ShardTask:
    unchanged: dict[str, PriorSample] = {}
    by_digest = dict(removed)
    for record in bucket:
        sample = prior_sample(record.record_id, chosen)
        if sample is None:
            continue
        by_digest[sample.source_digest] = sample
        holders = [prior for _, prior in chosen if prior is not None and record.record_id in prior.row_of_id]
        if all(is_same_file(record, prior, prior.row_of_id[record.record_id]) for prior in holders):
            unchanged[record.record_id] = sample
    return ShardTask(bucket, tuple(target for target, _ in chosen), recipe, unchanged, by_digest)
