"""Compare the earlier state of a cache with the records of a source, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.building.shard_task import PriorSample, Target
from leukemia_data.caches.codec import RAW
from leukemia_data.caches.hdf5_file import SampleIndex, read_index
from leukemia_data.caches.manifest import Manifest, ShardEntry, find_manifest, missing_files
from leukemia_data.caches.shard import brought_up_to_date
from leukemia_data.errors import CacheError
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import (
    CTIME,
    INODE,
    MTIME,
    SIZE,
    FileStates,
    SampleTable,
    bytes_per_row,
    encode_text,
    is_settled,
    states_array,
)

_CHUNK = 1 << 16


@dataclass(frozen=True)
class TextColumn:
    """Dictionary-encoded texts: `values[codes[i]]` is the encoded text of record i."""

    values: NDArray[np.bytes_]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str], num_texts: int) -> TextColumn:
        """Encode `num_texts` texts."""
        numbers: dict[str, int] = {}
        codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, num_texts)
        return cls(np.array([encode_text(text) for text in numbers] or [b""], np.bytes_), codes)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """Return the encoded texts of the records at some positions."""
        return self.values[self.codes[positions]]


@dataclass(frozen=True)
class RecordColumns:
    """Columns of N records in the given order.

    Attributes
    ----------
    records
        The N records.
    id_hashes : ndarray of shape (N,), uint64
    states : ndarray of shape (N, 4), int64
        See :mod:`leukemia_data.records.sample_table`.
    labels, folds : ndarray of shape (N,), int64
    subjects, splits
        As the index encodes them.
    row_bytes
        Bytes of a sample table's row with room for the longest id, subject and split.
    """

    records: Sequence[Record]
    id_hashes: NDArray[np.uint64]
    states: FileStates
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    subjects: TextColumn
    splits: TextColumn
    row_bytes: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> RecordColumns:
        """Return the columns of records."""

        def numbers(name: str) -> NDArray[np.int64]:
            return np.fromiter(map(attrgetter(name), records), np.int64, len(records))

        id_hashes, id_bytes = hash_ids(map(attrgetter("record_id"), records), len(records))
        subjects = TextColumn.of(map(attrgetter("subject"), records), len(records))
        splits = TextColumn.of(map(attrgetter("split"), records), len(records))
        subject_bytes, split_bytes = (texts.values.dtype.itemsize for texts in (subjects, splits))
        widest = Record("-" * id_bytes, Path(), subject="-" * subject_bytes, split="-" * split_bytes)
        return cls(
            records=records,
            id_hashes=id_hashes,
            states=states_array(map(attrgetter("state"), records), len(records)),
            labels=numbers("label"),
            folds=numbers("fold"),
            subjects=subjects,
            splits=splits,
            row_bytes=bytes_per_row(SampleTable.from_records([widest])),
        )

    def __len__(self) -> int:
        return len(self.records)

    def encoded_ids(self, positions: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.bytes_]]]:
        """Yield the ids at `positions` in chunks, encoded as in an index."""
        for start in range(0, len(positions), _CHUNK):
            chunk = slice(start, min(start + _CHUNK, len(positions)))
            ids = [encode_text(self.records[n].record_id) for n in positions[chunk].tolist()]
            yield chunk, np.array(ids, np.bytes_)


def hash_ids(ids: Iterable[str], num_ids: int) -> tuple[NDArray[np.uint64], int]:
    """Return the XXH3-64 of each id, and the bytes of the longest id."""
    hashes_N, longest_bytes, remaining = np.empty(num_ids, np.uint64), 0, iter(ids)
    for start in range(0, num_ids, _CHUNK):
        chunk = list(map(encode_text, islice(remaining, _CHUNK)))
        hashes_N[start : start + len(chunk)] = _hashes(chunk)
        longest_bytes = max(longest_bytes, max(map(len, chunk)))
    return hashes_N, longest_bytes


def hash_encoded_ids(ids_N: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the XXH3-64 of each id of an index, shape (N,)."""
    parts = [_hashes(ids_N[start : start + _CHUNK].tolist()) for start in range(0, len(ids_N), _CHUNK)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _hashes(encoded: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.fromiter(map(xxhash.xxh3_64_intdigest, encoded), np.uint64, len(encoded))


ABSENT = -1
"""Row of a record that is not in the earlier cache."""
_CHUNK_ROWS = 1 << 18


@dataclass(frozen=True)
class PriorCache:
    """An earlier state of a cache, whose shards may be kept or copied from.

    Attributes
    ----------
    first_rows : ndarray of shape (number of shards,), int64
        First row of each shard in the index.
    is_whole : ndarray of shape (number of shards,), bool
        Whether each shard's file has the size given in the manifest.
    """

    manifest: Manifest
    index: SampleIndex
    first_rows: NDArray[np.int64]
    is_whole: NDArray[np.bool_]


@dataclass(frozen=True)
class PriorMatch:
    """Rows of a source's records in an earlier cache.

    Attributes
    ----------
    rows_N : ndarray of shape (N,), int64
        Row of each record in the index, or :data:`ABSENT`.
    same_file_N : ndarray of shape (N,), bool
        Whether the record's file has the state stored in this row.
    restamped_N : ndarray of shape (N,), bool
        Whether it has the stored size and modification time, but another change time or inode.
    """

    prior: PriorCache
    rows_N: NDArray[np.int64]
    same_file_N: NDArray[np.bool_]
    restamped_N: NDArray[np.bool_]


@dataclass(frozen=True)
class KeptShard:
    """A shard of the earlier cache that is kept: rows [first, end) of the earlier index."""

    entry: ShardEntry
    first_row: int
    end_row: int


def load_prior(target: Target, notes: list[str], stored_files: Mapping[str, int] | None = None) -> PriorCache | None:
    """Read the earlier cache of a target; None, with a message appended to `notes`, if it cannot be used.

    `stored_files` are the bytes of the files by name if the cache is in an object store: its directory holds no shards.
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
    first_rows = np.cumsum([0, *(shard.num_samples for shard in manifest.shards)]).astype(np.int64)[:-1]
    manifest = brought_up_to_date(target.directory, manifest)
    if stored_files is None:
        absent = set(missing_files(target.directory, manifest))
    else:
        absent = {shard.name for shard in manifest.shards if stored_files.get(shard.name) != shard.num_bytes}
    absent.update(shard.name for shard in manifest.shards if shard.metadata_digest is None)
    is_whole = np.array([shard.name not in absent for shard in manifest.shards], np.bool_)
    if not is_whole.all():
        num_absent = int((~is_whole).sum())
        notes.append(f"{num_absent} shards of the {target.size_px} px cache are missing or damaged and are made anew")
    return PriorCache(manifest, index, first_rows, is_whole)


def match_prior(columns: RecordColumns, target: Target, prior: PriorCache, *, is_recheck: bool = False) -> PriorMatch:
    """Find the records of a source in an earlier cache; for a recheck, no file counts as unchanged.

    Raises
    ------
    CacheError
        If the cache shares no image with the source.
    """
    rows_N = _find_rows(columns, prior.index.table.ids)
    is_found = rows_N != ABSENT
    if len(prior.index.table) and len(columns) and not is_found.any():
        raise CacheError(
            f"{target.directory} was made from other images: none of its {len(prior.index.table)} ids is in this "
            "source; give this source a cache of its own with --name"
        )
    same_file_N, restamped_N = np.zeros_like(is_found), np.zeros_like(is_found)
    for start in () if is_recheck else range(0, len(columns), _CHUNK_ROWS):
        found = np.flatnonzero(is_found[start : start + _CHUNK_ROWS]) + start
        earlier = prior.index.source_states[rows_N[found]]
        is_equal, known = earlier == columns.states[found], is_settled(earlier)
        same_file_N[found] = known & is_equal.all(axis=1)
        restamped_N[found] = known & is_equal[:, [SIZE, MTIME]].all(axis=1) & ~is_equal[:, [CTIME, INODE]].all(axis=1)
    return PriorMatch(prior, rows_N, same_file_N, restamped_N)


def _find_rows(columns: RecordColumns, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Row of each record's id in an index, or ABSENT; the first of equal ids."""
    rows_N = np.full(len(columns), ABSENT, np.int64)
    if len(ids) == 0 or len(columns) == 0:
        return rows_N
    hashes = hash_encoded_ids(ids)
    by_hash = np.argsort(hashes, kind="stable")
    hashes = hashes[by_hash]
    # In hash order: looking up sorted values is many times faster.
    positions = np.argsort(columns.id_hashes)
    wanted = columns.id_hashes[positions]
    places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    alike = np.flatnonzero(hashes[places] == wanted)
    positions, places = positions[alike], places[alike]
    for chunk, encoded in columns.encoded_ids(positions):
        rows = by_hash[places[chunk]]
        is_equal = ids[rows] == encoded
        for other in np.flatnonzero(~is_equal).tolist():
            rows[other] = _row_of_equal_hash(ids, hashes, by_hash, int(places[chunk][other]), encoded[other])
        rows_N[positions[chunk]] = rows
    return rows_N


def _row_of_equal_hash(
    ids: NDArray[np.bytes_], hashes: NDArray[np.uint64], by_hash: NDArray[np.int64], place: int, wanted: bytes
) -> int:
    """Row of an id among others with the same hash; ABSENT if it is not among them."""
    run = by_hash[place : int(np.searchsorted(hashes, hashes[place], side="right"))]
    equal = run[ids[run] == wanted]
    return int(equal[0]) if len(equal) else ABSENT


def find_kept(
    columns: RecordColumns,
    positions_M: NDArray[np.int64],
    bounds: NDArray[np.int64],
    match: PriorMatch | None,
    codec: str = RAW,
) -> list[KeptShard | None]:
    """Return per planned shard the complete earlier one with exactly its records, unchanged; or None.

    `positions_M` and `bounds` are those of :class:`~leukemia_data.building.planned_tasks.PlannedTasks`, and no shard is
    empty; `codec` is that of the new shards.
    """
    num_shards = len(bounds) - 1
    if match is None or match.prior.manifest.codec != codec or num_shards == 0 or len(match.prior.first_rows) == 0:
        return [None] * num_shards
    prior, rows_M = match.prior, match.rows_N[positions_M]
    is_broken = ~_same_samples(columns, positions_M, match)
    follows = np.concatenate(([True], rows_M[1:] == rows_M[:-1] + 1))
    follows[bounds[:-1]] = True
    num_broken = np.add.reduceat(is_broken | ~follows, bounds[:-1], dtype=np.int64)
    firsts, counts = rows_M[bounds[:-1]], np.diff(bounds)
    # A shard with an absent first row is not kept anyway.
    shards = np.maximum(np.searchsorted(prior.first_rows, firsts, side="right") - 1, 0)
    num_samples = np.diff(np.append(prior.first_rows, len(prior.index.table)))
    is_kept = (num_broken == 0) & (prior.first_rows[shards] == firsts)
    is_kept &= (num_samples[shards] == counts) & prior.is_whole[shards]
    return [
        KeptShard(prior.manifest.shards[shard], first, first + count) if kept else None
        for kept, shard, first, count in zip(
            is_kept.tolist(), shards.tolist(), firsts.tolist(), counts.tolist(), strict=True
        )
    ]


def _same_samples(columns: RecordColumns, positions_M: NDArray[np.int64], match: PriorMatch) -> NDArray[np.bool_]:
    """Whether the file and metadata of each sample equal its row in the earlier index, shape (M,)."""
    table = match.prior.index.table
    is_same = match.same_file_N[positions_M]
    for start in range(0, len(positions_M), _CHUNK_ROWS):
        here = np.flatnonzero(is_same[start : start + _CHUNK_ROWS]) + start
        positions = positions_M[here]
        rows = match.rows_N[positions]
        is_same[here] = (
            (table.labels[rows] == columns.labels[positions])
            & (table.folds[rows] == columns.folds[positions])
            & (table.subjects[rows] == columns.subjects.at(positions))
            & (table.splits[rows] == columns.splits.at(positions))
        )
    return is_same


def prior_sample(held: Sequence[tuple[Target, PriorCache, int]]) -> PriorSample | None:
    """Return where earlier caches hold an image, given by target and row; None unless they agree on its bytes."""
    rows: dict[int, tuple[str, int]] = {}
    digests: set[bytes] = set()
    for target, prior, row in held:
        shard = int(np.searchsorted(prior.first_rows, row, side="right")) - 1
        rows[target.size_px] = prior.manifest.shards[shard].name, row - int(prior.first_rows[shard])
        digests.add(prior.index.table.source_digests[row].tobytes())
    return PriorSample(digests.pop(), rows) if len(digests) == 1 else None
