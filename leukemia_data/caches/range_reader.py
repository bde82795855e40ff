"""Read pixels of a cache in an object store: by range requests until local copies have arrived."""

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
from leukemia_data.caches.codec import RAW, codec_named
from leukemia_data.caches.local_copies import LocalCopies, ShardFetcher
from leukemia_data.caches.manifest import CHUNK_LENGTH_BYTES, Manifest, ShardEntry
from leukemia_data.caches.shard import ShardImages, shard_images
from leukemia_data.caches.shard_rows import DecodedRows, ShardRows, image_starts, is_mapped, open_rows
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.limits import allow_open_files
from leukemia_data.records.arguments import Indices, as_indices
from leukemia_data.stores.object_store import ObjectStore, Range


class RowRanges:
    """Byte ranges and pixels of single images in a cache's shards. Thread-safe.

    Parameters
    ----------
    store
        The cache's folder in its object store.
    shards
        Its shards.
    codec
        Codec of all shards.

    Raises
    ------
    CacheError
        If the codec's library is not installed.
    """

    def __init__(self, store: ObjectStore, shards: Sequence[ShardImages], codec: str) -> None:
        self._codec, self._is_raw = codec_named(codec), codec == RAW
        self._store, self._shards = store, shards
        self._starts: dict[int, NDArray[np.int64]] = {}

    def find(self, rows: Sequence[tuple[int, int]]) -> list[Range]:
        """Return the object name, offset in bytes and length of each image, given by shard and row.

        Raises
        ------
        StorageError
            If the store cannot be read, or a shard's lengths are damaged.
        """
        self._read_starts(sorted({shard for shard, _ in rows} - self._starts.keys()))
        ranges = []
        for shard, row in rows:
            start, end = self._starts[shard][row : row + 2].tolist()
            ranges.append((self._shards[shard].path.name, start, end - start))
        return ranges

    def copy_pixels(self, stored: bytes, out: NDArray[np.uint8]) -> bool:
        """Decode an image's bytes into `out`, (S * S * 3,) uint8; return False if they are damaged."""
        try:
            self._codec.decode(stored, out)
        except ValueError:
            return False
        return True

    def _read_starts(self, shards: Sequence[int]) -> None:
        """Find the offsets of the images of shards; compressed ones take one request each, sent concurrently."""
        wrong = self._read_starts_once(shards)
        if wrong:
            wrong = self._read_starts_once(wrong)
        if wrong:
            name = self._shards[wrong[0]].path.name
            raise StorageError(
                f"{self._store.url / name} is damaged: the lengths of its images are not those that were written; "
                "`ldata push --verify` from an intact copy of the cache repairs it"
            )

    def _read_starts_once(self, shards: Sequence[int]) -> list[int]:
        """Read the offsets of images, and return the shards with damaged ones."""
        columns = [b""] * len(shards)
        if not self._is_raw:
            columns = self._store.read_ranges([_lengths_range(self._shards[shard]) for shard in shards])
        wrong = []
        for shard, column in zip(shards, columns, strict=True):
            starts = self._checked_starts(shard, column)
            if starts is None:
                wrong.append(shard)
            else:
                self._starts[shard] = starts
        return wrong

    def _checked_starts(self, shard: int, column: bytes) -> NDArray[np.int64] | None:
        try:
            return image_starts(self._shards[shard], lambda offset_bytes, num_bytes: column)
        except CacheError:
            return None


def _lengths_range(images: ShardImages) -> Range:
    if images.chunks is None:
        return images.path.name, 0, 0
    return images.path.name, images.chunks.lengths_offset_bytes, images.shape[0] * CHUNK_LENGTH_BYTES


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

    @property
    def is_any(self) -> bool:
        """Whether anything was downloaded."""
        return bool(self.copied_bytes or self.num_ranges)

    def __str__(self) -> str:
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
    copies
        Folder of local copies.
    manifest
        The cache's.
    crcs_N : ndarray of shape (N,), uint32
        CRC-32 of every sample's pixels.
    first_rows
        Index of the first sample of each shard, followed by the number of samples.
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
        own = ("_rows", "_ranges", "_fetcher", "_process", "_counting", "_num_ranges", "_stopping")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """Create the state of this process."""
        self._process = os.getpid()
        # A map holds its file open.
        allow_open_files(len(self._entries))
        self._rows: list[ShardRows | None] = [None] * len(self._entries)
        self._ranges = RowRanges(self._store, self._shards, self._codec)
        self._counting, self._num_ranges = threading.Lock(), 0
        self._fetcher = ShardFetcher(self._copies, self._store, self._entries, self._keep, self._opener())
        self._stopping = weakref.finalize(self, self._fetcher.stop)

    def _opener(self) -> _Opener:
        return _Opener(self._copies, self._entries, self._shards, self._rows)

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
        """Return one image, shape (S, S, 3), uint8.

        Raises
        ------
        UsageError
            If there is no such sample.
        """
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
            if copied is None:
                absent.append(_RemoteRow(position, int(indices_B[position]), shard, row))
            elif isinstance(copied, DecodedRows):
                if not self._decode(copied, shard, row, flat[position]):
                    absent.append(_RemoteRow(position, int(indices_B[position]), shard, row))
            else:
                flat[position] = copied[row]
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
        open_shard = self._opener()
        copied = {shard for shard in absent if self._copies.holds(self._entries[shard])}
        damaged = {shard for shard in copied if not open_shard(shard)}
        for shard in damaged:
            self._fetcher.forget(shard)
        absent = [shard for shard in absent if shard not in copied or shard in damaged]
        whole = [shard for shard in absent if self._is_wanted_whole(shard, wanted[shard])]
        self._fetcher.want(whole, first=True)
        self._fetcher.want(absent)
        self._fetcher.wait(whole)

    def _is_wanted_whole(self, shard: int, num_rows: int) -> bool:
        is_begun = self._num_ranges >= _MAX_RANGES_AT_FIRST
        return is_begun or num_rows > max(self._entries[shard].num_samples * _FETCH_WHOLE_SHARE, 1)

    def _read_ranges(self, absent: Sequence[_RemoteRow], flat: NDArray[np.uint8]) -> None:
        """Read rows from the store, and retry once those that fail their CRC."""
        wrong = self._read_once(absent, flat)
        if wrong:
            wrong = self._read_once(wrong, flat)
        if wrong:
            name = self._entries[wrong[0].shard].name
            raise StorageError(
                f"{self._store.url / name} is damaged: image {wrong[0].row} in it fails its CRC; "
                "`ldata push --verify` from an intact copy of the cache repairs it"
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
    """Opens local copies for a reader. Holds no reference to the reader, because threads hold this object."""

    copies: LocalCopies
    entries: Sequence[ShardEntry]
    shards: Sequence[ShardImages]
    rows: list[ShardRows | None]

    def __call__(self, shard: int) -> bool:
        """Open a copy; a damaged one is removed, to be downloaded again.

        Raises
        ------
        CacheError
            If the file is intact but cannot be opened.
        """
        entry = self.entries[shard]
        try:
            self.rows[shard] = open_rows(self.shards[shard])
        except CacheError:
            if self.copies.is_intact(entry):
                raise
            self.copies.discard(entry.name)
            return False
        self.copies.use(entry)
        return True
