"""Read pixels of a cache in an object store: by range requests until local copies have arrived."""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import locate_rows, one_number
from leukemia_data.caches.codec import codec_named
from leukemia_data.caches.local_copies import LocalCopies, ShardFetcher
from leukemia_data.caches.manifest import CHUNK_LENGTH_BYTES, Manifest, ShardEntry
from leukemia_data.caches.shard import ShardImages, shard_images
from leukemia_data.caches.shard_rows import DecodedRows, ShardRows, image_starts, is_mapped, open_rows
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.limits import allow_open_files
from leukemia_data.records.arguments import Indices, as_indices
from leukemia_data.stores.object_store import ObjectStore, Range

# Above this fraction of rows, downloading the whole shard is faster; one row is always read alone.
_FETCH_WHOLE_SHARE = 1 / 8
# The first images are read by ranges, so that the first batches do not wait for whole shards. More range requests
# would take longer than the shards, and slow them down.
_MAX_RANGES_AT_FIRST = 256


@dataclass(frozen=True, slots=True)
class _RemoteRow:
    """A row without a local copy: position in the batch, sample index, shard and row there."""

    position: int
    number: int
    shard: int
    row: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Downloads of a reader: bytes of shards, their time, and number of images read by ranges."""

    copied_bytes: int
    copying_s: float
    num_ranges: int

    def __str__(self) -> str:
        if not self.copied_bytes and not self.num_ranges:
            return ""
        return (
            f"copied {self.copied_bytes / 1e6:,.0f} MB in {self.copying_s:.1f} s, {self.num_ranges:,} images read by "
            "ranges"
        )


class RangeReader:
    """Reads pixels from local copies or the store, by sample index.

    Thread-safe, and can be pickled: each process has its own threads, which share the folder of copies.

    Parameters
    ----------
    store
        The cache's folder in its object store.
    crcs_N : ndarray of shape (N,), uint32
        CRC-32 of every sample's pixels.
    first_rows
        As :attr:`leukemia_data.caches.cache.Cache.first_rows`.
    """

    def __init__(
        self,
        store: ObjectStore,
        copies: LocalCopies,
        manifest: Manifest,
        crcs_N: NDArray[np.uint32],
        first_rows: NDArray[np.int64],
    ) -> None:
        self.size_px = manifest.size_px
        self._store, self._copies = store, copies
        self._entries = manifest.shards
        self._keep = frozenset(manifest.file_names())
        self._shards = [
            shard_images(copies.directory, entry, manifest.size_px, manifest.codec) for entry in manifest.shards
        ]
        self._crcs = crcs_N
        self._first_rows = first_rows
        self._codec = manifest.codec
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("size_px", "_store", "_copies", "_entries", "_keep", "_shards", "_crcs", "_first_rows", "_codec")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """Create the state of this process."""
        self._process = os.getpid()
        # A map holds its file open.
        allow_open_files(len(self._entries))
        self._rows: list[ShardRows | None] = [None] * len(self._entries)
        self._decoder = codec_named(self._codec)
        self._starts: dict[int, NDArray[np.int64]] = {}
        self._counting, self._num_ranges = threading.Lock(), 0
        self._open_copy = partial(_open_copy, self._copies, self._entries, self._shards, self._rows)
        self._fetcher = ShardFetcher(self._copies, self._store, self._entries, self._keep, self._open_copy)
        self._stopping = weakref.finalize(self, self._fetcher.stop)

    @property
    def num_unmapped(self) -> int:
        """Number of copies that could not be mapped, and are read instead."""
        return sum(rows is not None and not is_mapped(rows) for rows in self._rows)

    @property
    def traffic(self) -> Traffic:
        """Downloads so far."""
        return Traffic(self._fetcher.num_bytes, self._fetcher.seconds, self._num_ranges)

    def close(self) -> None:
        """Stop downloading; existing copies can still be read."""
        self._fetcher.close()

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return one image, shape (S, S, 3), uint8; raises UsageError if there is no such sample."""
        (image,) = self.gather(one_number(self._first_rows, number))
        return np.asarray(image, np.uint8)

    def gather(self, indices_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return images in the order of the indices, as :meth:`leukemia_data.caches.cache.SampleReader.gather`.

        Raises
        ------
        UsageError
            If there is no such sample, or `indices_B` names none.
        StorageError
            If the store cannot be read, or an object differs from the manifest; also for errors of download threads.
        """
        if self._process != os.getpid():
            # A forked child has no threads of its parent, and perhaps their locks in a locked state.
            self._stopping.detach()
            self._begin()
        indices_B = as_indices(indices_B, int(self._first_rows[-1]), "indices_B")
        if out is None:
            out = np.empty((len(indices_B), self.size_px, self.size_px, 3), np.uint8)
        flat = out.reshape((len(indices_B), self.size_px * self.size_px * 3), copy=False)
        shards, rows = locate_rows(self._first_rows, indices_B)
        self._bring(shards)
        absent = []
        for position, (shard, row) in enumerate(zip(shards, rows, strict=True)):
            copied = self._rows[shard]
            if copied is not None and not isinstance(copied, DecodedRows):
                flat[position] = copied[row]
            elif copied is None or not self._decode(copied, shard, row, flat[position]):
                absent.append(_RemoteRow(position, int(indices_B[position]), shard, row))
        if absent:
            self._read_ranges(absent, flat)
        return out

    def _decode(self, copied: DecodedRows, shard: int, row: int, out: NDArray[np.uint8]) -> bool:
        """Decode a row of a local copy; return False if it is damaged, and request it again."""
        try:
            copied.copy_to(row, out)
        except CacheError:
            if self._copies.is_intact(self._entries[shard]):
                raise
            self._rows[shard] = None
            self._copies.discard(self._entries[shard].name)
            self._fetcher.forget(shard)
            self._fetcher.want([shard])
            return False
        return True

    def _bring(self, shards: Sequence[int]) -> None:
        """Map existing copies, request the others, and wait for shards with many wanted rows."""
        absent = [shard for shard in set(shards) if self._rows[shard] is None]
        if not absent:
            return
        wanted = Counter(shards)
        copied = {shard for shard in absent if self._copies.holds(self._entries[shard])}
        damaged = {shard for shard in copied if not self._open_copy(shard)}
        for shard in damaged:
            self._fetcher.forget(shard)
        absent = [shard for shard in absent if shard not in copied or shard in damaged]
        is_begun = self._num_ranges >= _MAX_RANGES_AT_FIRST
        whole = [
            shard
            for shard in absent
            if is_begun or wanted[shard] > max(self._entries[shard].num_samples * _FETCH_WHOLE_SHARE, 1)
        ]
        self._fetcher.want(whole, first=True)
        self._fetcher.want(absent)
        self._fetcher.wait(whole)

    def _read_ranges(self, absent: Sequence[_RemoteRow], flat: NDArray[np.uint8]) -> None:
        """Read rows from the store, and retry once those that fail their CRC."""
        wrong = self._read_once(absent, flat)
        if wrong and (wrong := self._read_once(wrong, flat)):
            name = self._entries[wrong[0].shard].name
            raise StorageError(
                f"{self._store.url / name} is damaged: image {wrong[0].row} in it fails its CRC; "
                "`ldata push --verify` from an intact copy of the cache repairs it"
            )
        with self._counting:
            self._num_ranges += len(absent)

    def _read_once(self, absent: Sequence[_RemoteRow], flat: NDArray[np.uint8]) -> list[_RemoteRow]:
        """Read rows, and return those that fail their CRC."""
        unknown = sorted({each.shard for each in absent} - self._starts.keys())
        if unknown:
            self._read_starts(unknown)
        ranges = []
        for each in absent:
            start, end = self._starts[each.shard][each.row : each.row + 2].tolist()
            ranges.append((self._entries[each.shard].name, start, end - start))
        return [
            each
            for each, data in zip(absent, self._store.read_ranges(ranges), strict=True)
            if not self._copy_pixels(data, flat[each.position], self._crcs[each.number])
        ]

    def _copy_pixels(self, stored: bytes, out: NDArray[np.uint8], crc: int) -> bool:
        """Decode an image's bytes; return False if they are damaged."""
        try:
            self._decoder.decode(stored, out)
        except ValueError:
            return False
        return zlib.crc32(out.data) == crc

    def _read_starts(self, shards: Sequence[int]) -> None:
        """Find the offsets of the images of shards, and retry once those that are damaged.

        Compressed shards take one request each, sent concurrently.
        """
        for _ in range(2):
            columns = self._store.read_ranges([_lengths_range(self._shards[shard]) for shard in shards])
            for shard, column in zip(shards, columns, strict=True):
                with suppress(CacheError):
                    self._starts[shard] = image_starts(self._shards[shard], lambda *where, found=column: found)
            shards = [shard for shard in shards if shard not in self._starts]
            if not shards:
                return
        raise StorageError(
            f"{self._store.url / self._entries[shards[0]].name} is damaged: the lengths of its images are not "
            "those that were written; `ldata push --verify` from an intact copy of the cache repairs it"
        )


def _lengths_range(images: ShardImages) -> Range:
    if images.chunks is None:
        return images.path.name, 0, 0
    return images.path.name, images.chunks.lengths_offset_bytes, images.shape[0] * CHUNK_LENGTH_BYTES


def _open_copy(
    copies: LocalCopies,
    entries: Sequence[ShardEntry],
    shards: Sequence[ShardImages],
    rows: list[ShardRows | None],
    shard: int,
) -> bool:
    """Open a local copy; a damaged one is removed, to be downloaded again.

    No method of the reader, to which the fetcher's threads must hold no reference.
    """
    try:
        rows[shard] = open_rows(shards[shard])
    except CacheError:
        if copies.is_intact(entries[shard]):
            raise
        copies.discard(entries[shard].name)
        return False
    copies.use(entries[shard])
    return True
