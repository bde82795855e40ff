"""Our cache in somebody else's loop: CachedCells in a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from leukemia_data.caches.cache import open_cache
from leukemia_data.streams.dataset import CachedCells
from stream.peer import LoaderPeer, shuffled_loader


class CachedCellsPeer(LoaderPeer):
    """Reads the cache itself, so there is nothing to prepare."""

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled samples."""
        cells = CachedCells(open_cache(self.setting.cache_dir), np.arange(self.setting.num_images))
        return shuffled_loader(cells, batch_size, self.setting.num_workers)

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield the images as (B, S, S, 3); the dataset gives them as (B, 3, S, S)."""
        for images_BCHW in super().batches(folder, batch_size, epoch):
            yield images_BCHW.permute(0, 2, 3, 1)
