"""torchvision's v2 transforms, image by image in the workers of a DataLoader, on images read from our cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from leukemia_data.caches.cache import open_cache
from leukemia_data.streams.dataset import CachedCells
from stream.peer import AUGMENTED_IMAGES, LoaderPeer, Setting, shuffled_loader


def report_a_transform(setting: Setting) -> v2.Compose:
    """Flips, rotation, colour and normalisation of the first report; on uint8 as long as possible, which is fastest."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            v2.RandomRotation(20, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness=0.2, contrast=1.2, saturation=1.2, hue=0.1),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(setting.mean, setting.std),
        ]
    )


class TransformedCells(Dataset[tuple[Tensor, int]]):
    """Cached samples with a transform."""

    def __init__(self, cells: CachedCells, transform: v2.Compose) -> None:
        self._cells = cells
        self._transform = transform

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        sample = self._cells[position]
        return self._transform(sample.image_CHW.contiguous()), sample.label


class TorchvisionPeer(LoaderPeer):
    """Two workers, one thread each."""

    delivers_the_set = False

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled, transformed samples."""
        numbers = np.arange(min(self.setting.num_images, AUGMENTED_IMAGES))
        cells = CachedCells(open_cache(self.setting.cache_dir), numbers)
        dataset = TransformedCells(cells, report_a_transform(self.setting))
        return shuffled_loader(dataset, batch_size, self.setting.num_workers)
