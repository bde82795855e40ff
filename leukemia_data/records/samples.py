"""What a stream of batches needs of samples, wherever their pixels lie."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import Indices
from leukemia_data.records.sample_table import SampleTable


class PixelReader(Protocol):
    """Copies samples' pixels, by sample number; pickles, and is safe to use from several threads.

    What the methods do, :class:`~leukemia_data.caches.cache.SampleReader` tells; others read pixels that are not on
    this machine.
    """

    @property
    def size_px(self) -> int:
        """Side of the images."""
        ...

    @property
    def num_unmapped(self) -> int:
        """Shards that could not be mapped, whose rows are read instead."""
        ...

    def image(self, number: int) -> NDArray[np.uint8]:
        """One image, shape (S, S, 3), uint8."""
        ...

    def gather(self, indices_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Several images in the order asked for, (B, S, S, 3) uint8."""
        ...


class Samples(Protocol):
    """Square images of one size by sample number, and a table with a row each: a cache."""

    @property
    def table(self) -> SampleTable:
        """What is known of the samples apart from their pixels."""
        ...

    @property
    def size_px(self) -> int:
        """Side of the images."""
        ...

    @property
    def pixels_per_image(self) -> int:
        """Height times width of the images."""
        ...

    @property
    def reader(self) -> PixelReader:
        """The pixels."""
        ...

    def __len__(self) -> int: ...


def require_samples(cache: object) -> None:
    """Raise UsageError unless `cache` holds samples as an opened cache does; a folder's name does not."""
    # Whether there is a reader is not asked: that would open the shards.
    if not all(hasattr(type(cache), name) for name in ("reader", "size_px")) or not hasattr(cache, "table"):
        raise UsageError(f"cache must be an opened cache, as open_cache returns it; got {type(cache).__name__}")
