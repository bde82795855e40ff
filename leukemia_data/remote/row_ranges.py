"""Where images lie in shards' objects, and how their bytes become pixels.

All that reading by ranges knows of shards stands here. Where a raw image lies follows from its row. Of a compressed
shard the lengths of its images are read first, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import codec_named
from leukemia_data.caches.image_starts import image_starts
from leukemia_data.caches.manifest_entries import CHUNK_LENGTH_BYTES, RAW
from leukemia_data.caches.shard import ShardImages
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.storage.object_store import ObjectStore, Range


class RowRanges:
    """Ranges and pixels of single images of a cache's shards. Safe to use from several threads.

    Parameters
    ----------
    store
        The cache's folder in its object store.
    shards
        Its shards.
    codec
        How all of them store pixels.

    Raises
    ------
    CacheError
        If the library of the codec is not installed.
    """

    def __init__(self, store: ObjectStore, shards: Sequence[ShardImages], codec: str) -> None:
        self._codec, self._is_raw = codec_named(codec), codec == RAW
        self._store, self._shards = store, shards
        self._starts: dict[int, NDArray[np.int64]] = {}

    def find(self, rows: Sequence[tuple[int, int]]) -> list[Range]:
        """Name of the object, offset in bytes and number of bytes of each image, given by shard and row.

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
        """Fill `out`, (S * S * 3,) uint8, from the bytes of an image's range; False if they are damaged."""
        try:
            self._codec.decode(stored, out)
        except ValueError:
            return False
        return True

    def _read_starts(self, shards: Sequence[int]) -> None:
        """Find out where the images of some shards start; of compressed ones by a single request each, all at once."""
        wrong = self._read_starts_once(shards)
        if wrong:
            wrong = self._read_starts_once(wrong)
        if wrong:
            name = self._shards[wrong[0]].path.name
            raise StorageError(
                f"{self._store.url / name} is damaged: the lengths of its images are not those that were written; "
                "`ldata push --verify` from an intact copy of the cache mends it"
            )

    def _read_starts_once(self, shards: Sequence[int]) -> list[int]:
        """Read where images start, and return the shards of which that is damaged."""
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
