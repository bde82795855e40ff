"""Pixels of a cache in an object store: from maps of staged shards, and until those are here by ranges of the objects.

The order of an epoch is uniform, so the second batch already touches most shards. No batch waits until they are all
here: its rows are read straight from the store, many at a time, and held against the CRC that the index knows, while
threads stage the shards that were touched. From then on every row is a copy out of a memory map, as of a local cache.
"""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import locate_rows, one_number
from leukemia_data.caches.manifest import Manifest
from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.caches.shard import ShardImages, shard_images
from leukemia_data.caches.shard_rows import DecodedRows, ShardRows, is_mapped, open_rows
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.open_files import allow_open_files
from leukemia_data.remote.row_ranges import RowRanges
from leukemia_data.remote.shard_stager import ShardStager
from leukemia_data.remote.staging import Stage
from leukemia_data.samples.indices import Indices, as_indices
from leukemia_data.storage.object_store import ObjectStore

# Reading more rows than this of a shard takes longer than to fetch it whole; one row never does.
_FETCH_WHOLE_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class _RemoteRow:
    """A row that is not here: its position in the batch, its sample number, its shard, its row there."""

    position: int
    number: int
    shard: int
    row: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a reader fetched: shards that were staged, in which time, and images read by ranges."""

    staged_bytes: int
    staging_s: float
    num_ranges: int

    @property
    def is_any(self) -> bool:
        """Whether anything was fetched."""
        return bool(self.staged_bytes or self.num_ranges)

    def __str__(self) -> str:
        return (
            f"staged {self.staged_bytes / 1e6:,.0f} MB in {self.staging_s:.1f} s, {self.num_ranges:,} images read by "
            "ranges"
        )


class StagedReader:
    """Copies samples' pixels out of staged shards or the store, by sample number.

    Pickles; each process has threads of its own, which share the stage. Safe to use from several threads.

    Parameters
    ----------
    store
        The cache's folder in its object store.
    stage
        Where shards are staged.
    manifest
        The cache's.
    crcs_N : ndarray of shape (N,), uint32
        CRC-32 of every sample's pixels.
    first_rows
        Sample number at which each shard starts, and the number of samples at the end.
    """

    def __init__(
        self,
        store: ObjectStore,
        stage: Stage,
        manifest: Manifest,
        crcs_N: NDArray[np.uint32],
        first_rows: NDArray[np.int64],
    ) -> None:
        self.size_px = manifest.size_px
        self._store, self._stage = store, stage
        self._entries = manifest.shards
        self._keep = frozenset(manifest.file_names())
        self._shards = [shard_images(stage.directory, entry, manifest.size_px) for entry in manifest.shards]
        self._crcs = crcs_N
        self._first_rows = first_rows
        self._codec = manifest.codec
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_rows", "_ranges", "_stager", "_process", "_counting", "_num_ranges", "_stopping")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """Make what belongs to this process."""
        self._process = os.getpid()
        # A map holds its file open.
        allow_open_files(len(self._entries))
        self._rows: list[ShardRows | None] = [None] * len(self._entries)
        self._ranges = RowRanges(self._store, self._shards, self._codec)
        self._counting, self._num_ranges = threading.Lock(), 0
        self._stager = ShardStager(self._stage, self._store, self._entries, self._keep, self._opener())
        self._stopping = weakref.finalize(self, self._stager.stop)

    def _opener(self) -> _Opener:
        return _Opener(self._stage, self._entries, self._shards, self._rows)

    @property
    def num_unmapped(self) -> int:
        """Staged shards that could not be mapped, whose rows are read instead."""
        return sum(rows is not None and not is_mapped(rows) for rows in self._rows)

    @property
    def traffic(self) -> Traffic:
        """What was fetched so far."""
        return Traffic(self._stager.num_bytes, self._stager.seconds, self._num_ranges)

    def close(self) -> None:
        """End the staging; what is staged can still be read."""
        self._stager.close()

    def image(self, number: int) -> NDArray[np.uint8]:
        """One image, shape (S, S, 3), uint8.

        Raises
        ------
        UsageError
            If there is no such sample.
        """
        (image,) = self.gather(one_number(self._first_rows, number))
        return np.asarray(image, np.uint8)

    def gather(self, numbers_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Several images in the order asked for, as :meth:`leukemia_data.caches.cache.SampleReader.gather`.

        Raises
        ------
        UsageError
            If there is no such sample, or `numbers_B` names none.
        StorageError
            If the store cannot be read, or an object is not what the manifest says; also if that stopped a thread that
            stages shards.
        """
        if self._process != os.getpid():
            # A forked child has none of its parent's threads, and may have their locks as they were.
            self._stopping.detach()
            self._begin()
        numbers_B = as_indices(numbers_B, int(self._first_rows[-1]), "numbers_B")
        if out is None:
            out = np.empty((len(numbers_B), self.size_px, self.size_px, 3), np.uint8)
        flat = out.reshape((len(numbers_B), self.size_px * self.size_px * 3), copy=False)
        shards, rows = locate_rows(self._first_rows, numbers_B)
        self._bring(shards)
        absent = []
        for position, (shard, row) in enumerate(zip(shards, rows, strict=True)):
            staged = self._rows[shard]
            if staged is None:
                absent.append(_RemoteRow(position, int(numbers_B[position]), shard, row))
            elif isinstance(staged, DecodedRows):
                if not self._decode(staged, shard, row, flat[position]):
                    absent.append(_RemoteRow(position, int(numbers_B[position]), shard, row))
            else:
                flat[position] = staged[row]
        if absent:
            self._read_ranges(absent, flat)
        return out

    def _decode(self, staged: DecodedRows, shard: int, row: int, out: NDArray[np.uint8]) -> bool:
        """Decode a row of a staged shard; False if the file was damaged since it came, and is fetched anew."""
        try:
            staged.copy_to(row, out)
        except CacheError:
            if self._stage.is_intact(self._entries[shard]):
                raise
            self._rows[shard] = None
            self._stage.discard(self._entries[shard].name)
            self._stager.forget(shard)
            self._stager.want([shard])
            return False
        return True

    def _bring(self, shards: Sequence[int]) -> None:
        """Map what is staged, wish for the rest, and wait for shards of which many rows are wanted at once."""
        absent = [shard for shard in set(shards) if self._rows[shard] is None]
        if not absent:
            return
        wanted = Counter(shards)
        open_shard = self._opener()
        staged = {shard for shard in absent if self._stage.holds(self._entries[shard])}
        damaged = {shard for shard in staged if not open_shard(shard)}
        for shard in damaged:
            self._stager.forget(shard)
        absent = [shard for shard in absent if shard not in staged or shard in damaged]
        whole = [shard for shard in absent if self._is_wanted_whole(shard, wanted[shard])]
        self._stager.want(whole, first=True)
        self._stager.want(absent)
        self._stager.wait(whole)

    def _is_wanted_whole(self, shard: int, num_rows: int) -> bool:
        return num_rows > max(self._entries[shard].num_samples * _FETCH_WHOLE_SHARE, 1)

    def _read_ranges(self, absent: Sequence[_RemoteRow], flat: NDArray[np.uint8]) -> None:
        """Read rows from the store, those that fail their CRC once more."""
        wrong = self._read_once(absent, flat)
        if wrong:
            wrong = self._read_once(wrong, flat)
        if wrong:
            name = self._entries[wrong[0].shard].name
            raise StorageError(
                f"{self._store.url / name} is damaged: image {wrong[0].row} in it fails its CRC; "
                "`ldata push --verify` from an intact copy of the cache mends it"
            )
        with self._counting:
            self._num_ranges += len(absent)

    def _read_once(self, absent: Sequence[_RemoteRow], flat: NDArray[np.uint8]) -> list[_RemoteRow]:
        """Read rows, and return those that fail their CRC."""
        found = self._store.read_ranges(self._ranges.find([(each.shard, each.row) for each in absent]))
        wrong = []
        for each, data in zip(absent, found, strict=True):
            pixels = flat[each.position]
            if not self._ranges.copy_pixels(data, pixels) or zlib.crc32(pixels.data) != self._crcs[each.number]:
                wrong.append(each)
        return wrong


@dataclass(frozen=True)
class _Opener:
    """Opens staged shards for a reader, which it must not keep alive: threads hold it."""

    stage: Stage
    entries: Sequence[ShardEntry]
    shards: Sequence[ShardImages]
    rows: list[ShardRows | None]

    def __call__(self, shard: int) -> bool:
        """Open one; a file that is not what the manifest says is removed, and will be fetched anew.

        Raises
        ------
        CacheError
            If the file is as it should be, and the system does not open it.
        """
        entry = self.entries[shard]
        try:
            self.rows[shard] = open_rows(self.shards[shard])
        except CacheError:
            if self.stage.is_intact(entry):
                raise
            self.stage.discard(entry.name)
            return False
        self.stage.use(entry)
        return True
