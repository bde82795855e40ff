"""Where an image lies in a shard's object, and how its bytes become pixels.

All that reading by ranges knows of shards stands here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.shard import ShardImages
from leukemia_data.storage.object_store import Range


def row_range(images: ShardImages, row: int) -> Range:
    """Name of the object, offset in bytes and number of bytes of one image."""
    row_bytes = math.prod(images.shape[1:])
    return images.path.name, images.offset_bytes + row * row_bytes, row_bytes


def row_pixels(data: bytes) -> NDArray[np.uint8]:
    """Pixels of one image, (S * S * 3,) uint8, from the bytes of its range."""
    return np.frombuffer(data, np.uint8)
