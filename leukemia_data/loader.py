"""The batch stream: shuffled or ordered batches of a cache, copied straight from the shards' memory maps.

The order of an epoch is a function of (seed, epoch); nothing is kept between epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.cache import Cache
from leukemia_data.errors import UsageError
from leukemia_data.ordering import epoch_order


class Batch(NamedTuple):
    """What one step consumes.

    Attributes
    ----------
    images_BHWC : Tensor of shape (B, S, S, 3), uint8, RGB, in pinned memory if the stream was told so
    labels_B : Tensor of shape (B,), int64, -1 where unknown
    indices_B : Tensor of shape (B,), int64
        Sample numbers in the cache.
    """

    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor


class BatchStream:
    """Batches of chosen samples.

    Parameters
    ----------
    cache
        An opened cache.
    numbers : ndarray of shape (n,), int64
        Sample numbers to serve.
    batch_size
        Samples a batch.
    seed
        Shuffles each epoch anew; ``None`` keeps the order of `numbers`, for evaluation.
    drop_last
        Leave out a last batch that is not full, unless it is the only one.
    pin_memory
        Put batches into page-locked memory, from which CUDA copies asynchronously.
    """

    def __init__(
        self,
        cache: Cache,
        numbers: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int | None = None,
        drop_last: bool = False,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch size must be at least 1, got {batch_size}")
        self._reader = cache.reader
        self._numbers = numbers
        self._labels = cache.table.labels.astype(np.int64)
        self._batch_size = batch_size
        self._seed = seed
        self._drop_last = drop_last and len(numbers) >= batch_size
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self._numbers), self._batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of one epoch."""
        numbers = self._numbers
        if self._seed is not None:
            numbers = numbers[epoch_order(len(numbers), self._seed, epoch)]
        for step in range(len(self)):
            yield self._batch(numbers[step * self._batch_size : (step + 1) * self._batch_size])

    def _batch(self, numbers_B: NDArray[np.int64]) -> Batch:
        size_px = self._reader.size_px
        images = torch.empty((len(numbers_B), size_px, size_px, 3), dtype=torch.uint8, pin_memory=self._pin_memory)
        self._reader.gather(numbers_B, out=images.numpy())
        return Batch(images, torch.from_numpy(self._labels[numbers_B]), torch.from_numpy(numbers_B.copy()))
