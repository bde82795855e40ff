"""Random access to a cache for ``torch.utils.data.DataLoader`` and everything that feeds on it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from leukemia_data.caches.cache import Cache, require_cache
from leukemia_data.samples.indices import Indices, own_indices
from leukemia_data.samples.sample_table import decode_texts


class Sample(NamedTuple):
    """What indexing the dataset gives.

    ``image_CHW`` is a uint8 tensor of shape (3, S, S), RGB; ``label`` is -1 where unknown; ``record_id`` travels
    with the image to the predictions.
    """

    image_CHW: Tensor
    label: int
    record_id: str


class CachedCells(Dataset[Sample]):
    """Chosen samples of a cache, in the order of `numbers`.

    Works with any number of DataLoader workers under fork, spawn and forkserver: it holds paths and offsets, no open
    file.

    Parameters
    ----------
    cache
        An opened cache.
    numbers : ndarray of shape (n,), int64
        Sample numbers, for instance from :func:`leukemia_data.splitting.splits.split_numbers`; or a list, a range, a
        mask or a column of a table, see :func:`leukemia_data.samples.indices.as_indices`.

    Attributes
    ----------
    numbers : ndarray of shape (n,), int64, read-only
    labels : ndarray of shape (n,), int64
        -1 where unknown.

    Raises
    ------
    UsageError
        If `numbers` names no samples of the cache, or `cache` is none.
    """

    def __init__(self, cache: Cache, numbers: Indices) -> None:
        require_cache(cache)
        self._reader = cache.reader
        # A copy: labels and ids are taken now, pixels later.
        self.numbers = own_indices(numbers, len(cache), "numbers")
        self.labels = cache.table.labels[self.numbers].astype(np.int64)
        self._ids = cache.table.ids[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Sample:
        image = np.array(self._reader.image(int(self.numbers[index(position)])))
        return self._sample(position, torch.from_numpy(image))

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Fetch several samples with one gather; DataLoader calls this for each batch."""
        images_BHWC = torch.from_numpy(self._reader.gather(self.numbers[np.asarray(positions, np.intp)]))
        return [self._sample(position, image) for position, image in zip(positions, images_BHWC, strict=True)]

    @property
    def record_ids(self) -> list[str]:
        """Ids in the dataset's order."""
        return decode_texts(self._ids)

    def _sample(self, position: int, image_HWC: Tensor) -> Sample:
        (record_id,) = decode_texts(self._ids[[position]])
        return Sample(image_HWC.permute(2, 0, 1), int(self.labels[position]), record_id)
