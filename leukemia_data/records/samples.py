"""Protocols of samples for streams of batches."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import Indices
from leukemia_data.records.sample_table import SampleTable


class PixelReader(Protocol):
    """Copies samples' pixels by index. Can be pickled; thread-safe.

    See :class:`~leukemia_data.caches.cache.SampleReader` for the methods.
    """

    @property
    def size_px(self) -> int:
        """Side of the images."""
        ...

    @property
    def num_unmapped(self) -> int:
        """Number of shards that could not be mapped, and are read instead."""
        ...

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return one image, shape (S, S, 3), uint8."""
        ...

    def gather(self, indices_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return images in the order of the indices, (B, S, S, 3) uint8."""
        ...


class Samples(Protocol):
    """Square images of one size by index, with a table of their metadata: a cache."""

    @property
    def table(self) -> SampleTable:
        """Metadata of the samples."""
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
    """Raise UsageError unless `cache` is an opened cache."""
    # Does not access `reader`, which would open the shards.
    if not all(hasattr(type(cache), name) for name in ("reader", "size_px")) or not hasattr(cache, "table"):
        raise UsageError(f"cache must be an opened cache, as open_cache returns it; got {type(cache).__name__}")
