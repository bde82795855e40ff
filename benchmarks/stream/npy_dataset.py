"""A memory-mapped .npy file in a DataLoader, one row an item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stream.peer import LoaderPeer, shuffled_loader


class NpyRows(Dataset[tuple[Tensor, int]]):
    """Rows of a memory-mapped array."""

    def __init__(self, folder: Path) -> None:
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._labels = np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self._images[row])), int(self._labels[row])


class NpyPeer(LoaderPeer):
    """One .npy file of all images."""

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write images and labels."""
        np.save(folder / "images.npy", images_NSSC)
        np.save(folder / "labels.npy", labels_N)

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled rows."""
        return shuffled_loader(NpyRows(folder), batch_size, self.setting.num_workers)
