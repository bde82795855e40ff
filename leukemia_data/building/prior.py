"""The earlier state of a cache, and what of it a build may keep or copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leukemia_data.building.shard_task import PriorSample, Target
from leukemia_data.caches.index import SampleIndex, read_index
from leukemia_data.caches.manifest import Manifest, ShardEntry, find_manifest, missing_files
from leukemia_data.caches.shard import brought_up_to_date
from leukemia_data.errors import CacheError
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import encode_text


@dataclass(frozen=True)
class PriorCache:
    """An earlier state of a cache: what may be kept or copied.

    Attributes
    ----------
    row_of_id
        Row of the index for each record id.
    first_rows
        Row of the index at which each shard starts.
    whole_shards
        Numbers of the shards whose files are there with the size that the manifest knows.
    """

    manifest: Manifest
    index: SampleIndex
    row_of_id: Mapping[str, int]
    first_rows: tuple[int, ...]
    whole_shards: frozenset[int]

    def shard_of(self, row: int) -> tuple[int, int]:
        """Number of the shard that holds a row of the index, and the row in it."""
        shard = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return shard, row - self.first_rows[shard]


@dataclass(frozen=True)
class KeptShard:
    """A shard of the earlier cache that stays as it is: rows [first, end) of the earlier index."""

    entry: ShardEntry
    first_row: int
    end_row: int


def load_prior(
    target: Target, records: Sequence[Record], notes: list[str], stored_files: Mapping[str, int] | None = None
) -> PriorCache | None:
    """Read what an earlier build left for a target; None, with a note, where it cannot be used.

    Parameters
    ----------
    target, records
        The cache, and the source's listing.
    notes
        Is told what a user should know.
    stored_files
        Sizes in bytes of the cache's files by name, where it lies in a store: the target's directory then holds no
        shards.

    Raises
    ------
    CacheError
        If the cache was made from other images altogether.
    """
    try:
        manifest = find_manifest(target.directory)
        if manifest is None:
            return None
        index = read_index(target.directory, manifest.index)
    except CacheError as error:
        notes.append(f"the earlier {target.size_px} px cache cannot be used and is built anew: {error}")
        return None
    if manifest.fingerprint != target.fingerprint:
        notes.append(f"{target.directory} holds a cache of another fingerprint: built anew")
        return None
    if len(index.table) != manifest.num_samples:
        notes.append(f"the manifest and the index in {target.directory} do not fit together: built anew")
        return None
    row_of_id = {record_id: row for row, record_id in enumerate(index.table.id_texts)}
    if row_of_id and records and row_of_id.keys().isdisjoint(record.record_id for record in records):
        raise CacheError(
            f"{target.directory} was made from other images: none of its {len(row_of_id)} ids is in this source; "
            "give this source a cache of its own with --name"
        )
    first_rows = np.cumsum([0, *(shard.num_samples for shard in manifest.shards)]).tolist()
    manifest = brought_up_to_date(target.directory, manifest)
    absent = set(missing_files(target.directory, manifest)) if stored_files is None else _absent(manifest, stored_files)
    absent.update(shard.name for shard in manifest.shards if shard.metadata_digest is None)
    whole = frozenset(n for n, shard in enumerate(manifest.shards) if shard.name not in absent)
    if len(whole) < len(manifest.shards):
        num_absent = len(manifest.shards) - len(whole)
        notes.append(f"{num_absent} shards of the {target.size_px} px cache are missing or damaged and are made anew")
    return PriorCache(manifest, index, row_of_id, tuple(first_rows[:-1]), whole)


def _absent(manifest: Manifest, stored_files: Mapping[str, int]) -> set[str]:
    return {shard.name for shard in manifest.shards if stored_files.get(shard.name) != shard.num_bytes}


def find_kept(bucket: Sequence[Record], prior: PriorCache | None) -> KeptShard | None:
    """The earlier shard that holds exactly these records, unchanged and whole; or None."""
    if prior is None:
        return None
    first_row = prior.row_of_id.get(bucket[0].record_id)
    if first_row is None:
        return None
    shard, row_in_shard = prior.shard_of(first_row)
    entry = prior.manifest.shards[shard]
    if row_in_shard != 0 or entry.num_samples != len(bucket) or shard not in prior.whole_shards:
        return None
    for row, record in enumerate(bucket, first_row):
        if prior.row_of_id.get(record.record_id) != row or not _is_same(record, prior, row):
            return None
    return KeptShard(entry, first_row, first_row + len(bucket))


def _is_same(record: Record, prior: PriorCache, row: int) -> bool:
    """Whether a record's file and metadata are those of a row of the earlier index."""
    table = prior.index.table
    return (
        is_same_file(record, prior, row)
        and int(table.labels[row]) == record.label
        and int(table.folds[row]) == record.fold
        and table.subjects[row] == encode_text(record.subject)
        and table.splits[row] == encode_text(record.split)
    )


def is_same_file(record: Record, prior: PriorCache, row: int) -> bool:
    """Whether a record's file has the size and modification time that a row of the earlier index tells."""
    index = prior.index
    return bool(index.source_sizes_bytes[row] == record.size_bytes and index.source_mtimes_ns[row] == record.mtime_ns)


def prior_sample(record_id: str, caches: Sequence[tuple[Target, PriorCache | None]]) -> PriorSample | None:
    """Where earlier caches hold a record; None unless all that hold it agree on its bytes."""
    rows: dict[int, tuple[str, int]] = {}
    digests: set[bytes] = set()
    for target, prior in caches:
        row = None if prior is None else prior.row_of_id.get(record_id)
        if prior is None or row is None:
            continue
        shard, row_in_shard = prior.shard_of(row)
        rows[target.size_px] = prior.manifest.shards[shard].name, row_in_shard
        digests.add(prior.index.table.source_digests[row].tobytes())
    return PriorSample(digests.pop(), rows) if len(digests) == 1 else None
