"""The tasks of a build plan, created on demand; sample order and shard bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.building.prior import ABSENT, PriorCache, PriorMatch, RecordColumns, prior_sample
from leukemia_data.building.shard_task import CountedTasks, PriorSample, ShardTask, Target
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import MTIME, SIZE, FileStates, encode_text, states_array

FEW_GONE = 1024
"""Up to this many samples are all candidates for every new image."""
MAX_ALIKE = 16
"""Above that, maximal candidates per new image with its file name, and with its file state."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class GoneSamples:
    """Rows of earlier caches whose images are no longer in the source.

    Parameters
    ----------
    targets
        All caches of the build plan.
    matches
        Their matches with the source's records; None without an earlier cache.
    """

    def __init__(self, targets: Sequence[Target], matches: Sequence[PriorMatch | None]) -> None:
        self._held = [
            (target, match.prior, _gone_rows(match))
            for target, match in zip(targets, matches, strict=True)
            if match is not None
        ]
        is_few = all(len(rows) <= FEW_GONE for _, _, rows in self._held)
        self._all = self._by_digest(rows.tolist() for _, _, rows in self._held) if is_few else None
        self._keys = [] if is_few else [_sorted_keys(prior, rows) for _, prior, rows in self._held]

    def candidates(self, new: Sequence[Record]) -> Mapping[bytes, PriorSample]:
        """By source digest: gone samples that may be one of these images, renamed."""
        if not new:
            return {}
        if self._all is not None:
            return self._all
        wanted = np.array([key for record in new for key in _keys_of(record)], np.uint64)
        return self._by_digest(_alike(keys, rows, wanted) for keys, rows in self._keys)

    def _by_digest(self, rows_of_caches: Iterable[list[int]]) -> dict[bytes, PriorSample]:
        """Samples of the given rows, one list per cache, by source digest."""
        held: dict[bytes, dict[int, tuple[Target, PriorCache, int]]] = {}
        for number, ((target, prior, _), rows) in enumerate(zip(self._held, rows_of_caches, strict=True)):
            for row in rows:
                digest = prior.index.table.source_digests[row].tobytes()
                held.setdefault(digest, {}).setdefault(number, (target, prior, row))
        samples = {digest: prior_sample(list(places.values())) for digest, places in held.items()}
        return {digest: sample for digest, sample in samples.items() if sample is not None}


def _gone_rows(match: PriorMatch) -> NDArray[np.int64]:
    is_gone = np.ones(len(match.prior.index.table), np.bool_)
    is_gone[match.rows_N[match.rows_N >= 0]] = False
    return np.flatnonzero(is_gone).astype(np.int64)


def _sorted_keys(prior: PriorCache, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sorted keys by which a renamed file is found (file name; size and time), and their rows."""
    names = np.fromiter(map(_name_key, prior.index.table.ids[rows].tolist()), np.uint64, len(rows))
    keys = np.concatenate((names, _state_keys(prior.index.source_states[rows])))
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate((rows, rows))[order]


def _keys_of(record: Record) -> tuple[int, int]:
    state = _state_keys(states_array([record.state], 1))
    return _name_key(encode_text(record.record_id)), int(state[0])


def _name_key(encoded_id: bytes) -> int:
    """Hash of the file name, the last part of an id; Windows tables have backslashes."""
    return xxhash.xxh3_64_intdigest(encoded_id.replace(b"\\", b"/").rpartition(b"/")[2])


def _state_keys(states: FileStates) -> NDArray[np.uint64]:
    """Hash of size and modification time, which renaming keeps and copying often does."""
    return (states[:, SIZE].astype(np.uint64) * _GOLDEN + states[:, MTIME].astype(np.uint64)) * _GOLDEN


def _alike(keys: NDArray[np.uint64], rows: NDArray[np.int64], wanted: NDArray[np.uint64]) -> list[int]:
    """Rows with any of the wanted keys, at most MAX_ALIKE per key."""
    firsts = np.searchsorted(keys, wanted)
    ends = np.minimum(np.searchsorted(keys, wanted, side="right"), firsts + MAX_ALIKE)
    return [row for first, end in zip(firsts.tolist(), ends.tolist(), strict=True) for row in rows[first:end].tolist()]


SMALL_CAPACITY = 128
"""Maximal samples per shard in a cache of up to :data:`MAX_IN_SMALL_SHARDS` images."""
MAX_IN_SMALL_SHARDS = 1 << 20
LARGEST_CAPACITY = 4096
_HASH_BITS = 64


def default_capacity(num_samples: int) -> int:
    """Return the default of the maximal samples per shard.

    >>> default_capacity(10_661), default_capacity(1 << 20), default_capacity(10_000_000), default_capacity(10**9)
    (128, 128, 2048, 4096)
    """
    capacity, room = SMALL_CAPACITY, MAX_IN_SMALL_SHARDS
    while room < num_samples and capacity < LARGEST_CAPACITY:
        capacity, room = 2 * capacity, 2 * room
    return capacity


def sample_order(hashes_N: NDArray[np.uint64], id_of: Callable[[int], str]) -> NDArray[np.int64]:
    """Return the positions of ids in sample order: by hash, then by text.

    Parameters
    ----------
    hashes_N : ndarray of shape (N,), uint64
        XXH3-64 of each id.
    id_of
        Returns the id at a position; called for equal hashes only.

    Returns
    -------
    ndarray of shape (N,), int64
    """
    order_N = np.argsort(hashes_N).astype(np.int64, copy=False)
    sorted_N = hashes_N[order_N]
    # Runs of equal hashes as [start, end); almost never any.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], sorted_N[1:] == sorted_N[:-1], [False])).astype(np.int8)))
    for start, last in edges.reshape(-1, 2).tolist():
        run = slice(start, last + 1)
        order_N[run] = sorted(order_N[run].tolist(), key=id_of)
    return order_N


def shard_bounds(sorted_hashes_N: NDArray[np.uint64], capacity: int) -> NDArray[np.int64]:
    """Return shard bounds: shard k holds samples bounds[k] to before bounds[k + 1], at most `capacity`.

    Ids with equal hashes stay in one shard, even if they exceed the capacity.

    Parameters
    ----------
    sorted_hashes_N : ndarray of shape (N,), uint64

    Returns
    -------
    ndarray of shape (number of shards + 1,), int64
        Increasing from 0 to N; just 0 without samples.
    """
    bounds = np.unique(np.array([0, len(sorted_hashes_N)], np.int64))
    for bit in range(_HASH_BITS - 1, -1, -1):
        too_large = np.flatnonzero(np.diff(bounds) > capacity)
        if len(too_large) == 0:
            break
        firsts = sorted_hashes_N[bounds[too_large]]
        # Within each, the upper bits are equal; the second half begins at the first hash with this bit set.
        below, own = np.uint64((1 << bit) - 1), np.uint64(1 << bit)
        middles = np.searchsorted(sorted_hashes_N, (firsts & ~below) | own)
        bounds = np.unique(np.concatenate((bounds, middles)))
    return bounds


@dataclass(frozen=True)
class PlannedTasks(CountedTasks):
    """The tasks of the shards that some cache lacks, created on access.

    Attributes
    ----------
    columns
        All records.
    positions_M : ndarray of shape (M,), int64
        Positions of the samples among them, in sample order.
    bounds : ndarray of shape (number of shards + 1,), int64
        Shard bounds among the samples.
    targets, matches
        The caches, and the matches of their earlier states with the records.
    is_lacking : ndarray of shape (number of caches, number of shards), bool
        Which cache needs which shard.
    recheck_ns
        See :class:`~leukemia_data.building.shard_task.ShardTask`.
    """

    recipe: Recipe
    columns: RecordColumns
    positions_M: NDArray[np.int64]
    bounds: NDArray[np.int64]
    targets: tuple[Target, ...]
    matches: tuple[PriorMatch | None, ...]
    is_lacking: NDArray[np.bool_]
    recheck_ns: int | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, position: int) -> ShardTask: ...

    @overload
    def __getitem__(self, position: slice) -> list[ShardTask]: ...

    def __getitem__(self, position: int | slice) -> ShardTask | list[ShardTask]:
        if isinstance(position, slice):
            return [self._make(number) for number in self.numbers[position]]
        return self._make(self.numbers[position])

    @cached_property
    def numbers(self) -> list[int]:
        """Indices of the shards that have a task."""
        return np.flatnonzero(self.is_lacking.any(axis=0)).tolist()

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of images in each shard, with or without a task."""
        return np.diff(self.bounds)

    def num_records(self) -> list[int]:
        """See :class:`CountedTasks`."""
        sizes: list[int] = self.sizes[self.numbers].tolist()
        return sizes

    def targets_of(self, number: int) -> tuple[Target, ...]:
        """Return the caches that lack a shard."""
        return tuple(self.targets[n] for n in np.flatnonzero(self.is_lacking[:, number]).tolist())

    def records_of(self, number: int) -> tuple[Record, ...]:
        """Return the records of a shard in sample order."""
        return tuple(self.columns.records[position] for position in self._positions_of(number))

    def _positions_of(self, number: int) -> list[int]:
        positions: list[int] = self.positions_M[self.bounds[number] : self.bounds[number + 1]].tolist()
        return positions

    @cached_property
    def _gone(self) -> GoneSamples:
        return GoneSamples(self.targets, self.matches)

    def _make(self, number: int) -> ShardTask:
        records = self.records_of(number)
        chosen = [n for n in np.flatnonzero(self.is_lacking[:, number]).tolist() if self.matches[n] is not None]
        unchanged: dict[str, PriorSample] = {}
        by_digest: dict[bytes, PriorSample] = {}
        for position, record in zip(self._positions_of(number), records, strict=True) if chosen else ():
            sample, is_same = self._prior_sample(position, chosen)
            if sample is not None:
                by_digest[sample.source_digest] = sample
                if is_same:
                    unchanged[record.record_id] = sample
        new = [record for record in records if record.record_id not in unchanged] if unchanged else records
        by_digest = {**self._gone.candidates(new), **by_digest}
        return ShardTask(records, self.targets_of(number), self.recipe, unchanged, by_digest, self.recheck_ns)

    def _prior_sample(self, position: int, chosen: Sequence[int]) -> tuple[PriorSample | None, bool]:
        """Where the chosen caches hold a record, and whether its file is unchanged."""
        held = []
        is_same = True
        for number in chosen:
            match = self.matches[number]
            if match is not None and match.rows_N[position] != ABSENT:
                held.append((self.targets[number], match.prior, int(match.rows_N[position])))
                is_same &= bool(match.same_file_N[position])
        return prior_sample(held) if held else None, is_same
