"""FFCV in raw mode: one file of uncompressed images in the page cache, threads and a compiled pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.decoders import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from numpy.typing import NDArray
from torch import Tensor

from stream.peer import Peer, Setting

FILE_NAME = "images.beton"


class FfcvPeer(Peer):
    """Full random order and ``os_cache``, the fast settings of FFCV's guide for a set that fits in memory."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loader: Any = None

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the file."""
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        writer = DatasetWriter(os.fspath(folder / FILE_NAME), fields, num_workers=self.setting.num_workers)
        writer.from_indexed_dataset(Rows(images_NSSC, labels_N))

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield batches; the loader counts epochs itself."""
        if self._loader is None:
            self._loader = Loader(
                os.fspath(folder / FILE_NAME),
                batch_size=batch_size,
                num_workers=self.setting.num_workers,
                order=OrderOption.RANDOM,
                os_cache=True,
                drop_last=False,
                seed=0,
                pipelines={"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]},
            )
        for images, _ in self._loader:
            yield images

    def close(self) -> None:
        """Drop the loader."""
        self._loader = None


class Rows:
    """The set as FFCV's writer wants it: samples by number."""

    def __init__(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> None:
        self._images = images_NSSC
        self._labels = labels_N

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.array(self._images[number]), int(self._labels[number])
