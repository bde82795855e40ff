"""h5py in a DataLoader, by the usual recipe: one file, opened in each worker, one row an item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stream.peer import LoaderPeer, shuffled_loader

FILE_NAME = "images.h5"


class H5pyRows(Dataset[tuple[Tensor, int]]):
    """Rows of an HDF5 file; the file is opened at the first item, which is after the worker was started."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: h5py.File | None = None
        with h5py.File(path, "r") as file:
            self._labels = file["labels"][()]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if self._file is None:
            self._file = h5py.File(self._path, "r")
            self._images = self._file["images"]
        return torch.from_numpy(self._images[row]), int(self._labels[row])


class H5pyPeer(LoaderPeer):
    """One HDF5 file with one contiguous dataset, which is h5py's default and fastest layout for single rows."""

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the file."""
        with h5py.File(folder / FILE_NAME, "w") as file:
            file.create_dataset("images", data=images_NSSC)
            file.create_dataset("labels", data=labels_N)

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled rows."""
        return shuffled_loader(H5pyRows(folder / FILE_NAME), batch_size, self.setting.num_workers)
