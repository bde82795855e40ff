"""Where in a shard's file the stored bytes of each image lie: known from a few numbers, without HDF5."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.chunked_images import CHUNK_LENGTH_DTYPE
from leukemia_data.caches.codec import StoredBytes, codec_named
from leukemia_data.caches.manifest_entries import CHUNK_LENGTH_BYTES
from leukemia_data.caches.shard import ShardImages
from leukemia_data.errors import CacheError

ReadBytes = Callable[[int, int], StoredBytes]
"""From (offset_bytes, num_bytes) to so many bytes of the file; fewer only where it ends."""

_MARGIN_BYTES = 1 << 10


def image_starts(images: ShardImages, read: ReadBytes) -> NDArray[np.int64]:
    """File offsets between which images lie: image i takes the bytes from ``starts[i]`` to ``starts[i + 1]``.

    Parameters
    ----------
    images
        The shard, as its manifest knows it.
    read
        Reads its file. Only a compressed shard's column of lengths is read.

    Returns
    -------
    ndarray of shape (n + 1,), int64
        Rising, from the images' first byte to their end.

    Raises
    ------
    CacheError
        If the lengths are not those of the shard's images.
    """
    count = images.shape[0]
    if images.chunks is None:
        return images.offset_bytes + np.arange(count + 1) * math.prod(images.shape[1:])
    column = read(images.chunks.lengths_offset_bytes, count * CHUNK_LENGTH_BYTES)
    if len(column) == count * CHUNK_LENGTH_BYTES:
        lengths = np.frombuffer(column, CHUNK_LENGTH_DTYPE).astype(np.int64)
        if lengths.all() and lengths.sum() == images.num_bytes:
            return images.offset_bytes + np.concatenate([[0], np.cumsum(lengths)])
    raise CacheError(
        f"{images.path} is damaged: the lengths of its chunks are not those that were written; "
        "`ldata verify --repair` mends it"
    )


def starts_by_content(images: ShardImages, read: ReadBytes) -> NDArray[np.int64]:
    """The same for a compressed shard whose lengths are damaged: each image's bytes tell where the next one's begin.

    Behind a damaged one nothing can be found; those images are told to take no bytes.
    """
    codec, image_bytes = codec_named(images.codec), math.prod(images.shape[1:])
    starts = np.full(images.shape[0] + 1, images.offset_bytes, np.int64)
    end = images.offset_bytes + images.num_bytes
    for row in range(images.shape[0]):
        start = int(starts[row])
        # Bounded, because a read may be a copy: nothing is stored in much more than its pixels take.
        stored = read(start, min(end - start, 2 * image_bytes + _MARGIN_BYTES))
        try:
            starts[row + 1 :] = start + codec.stored_length(stored, image_bytes)
        except ValueError:
            break
    return starts
