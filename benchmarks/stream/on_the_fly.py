"""The reports' pipeline: every image read and preprocessed anew in every epoch, in the workers of a DataLoader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from leukemia_data.sources.source import list_source
from stream.peer import LoaderPeer, Setting, shuffled_loader
from stream.torchvision_samples import report_a_transform

CROP_PX = 270
SOURCE_IMAGES = 512
"""Images an epoch: eight batches take seconds already."""


class SourceImages(Dataset[tuple[Tensor, int]]):
    """Original image files, preprocessed as report A does: CLAHE of each channel, unsharp mask, crop, resize.

    Parameters
    ----------
    paths
        The files.
    size_px
        Side of the finished images.
    transform
        Applied to the finished image (3, S, S) where given.
    """

    def __init__(self, paths: list[Path], size_px: int, transform: Callable[[Tensor], Tensor] | None) -> None:
        self._paths = [os.fspath(path) for path in paths]
        self._size_px = size_px
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(preprocess(read_image(self._paths[number]), self._size_px))
        if self._transform is None:
            return image, 0
        return self._transform(image.permute(2, 0, 1).contiguous()), 0


def read_image(path: str) -> NDArray[np.uint8]:
    """Decode one file, in OpenCV's channel order."""
    return np.asarray(cv2.imread(path), np.uint8)


def preprocess(image_bgr: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """CLAHE 3.0 on 9x9 tiles, unsharp mask with sigma 3 and strength 1.5, crop 270, resize; returns RGB."""
    clahe = cv2.createCLAHE(3.0, (9, 9))
    image = cv2.merge([clahe.apply(channel) for channel in cv2.split(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))])
    image = cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), 3), -1.5, 0)
    top, left = (image.shape[0] - CROP_PX) // 2, (image.shape[1] - CROP_PX) // 2
    image = image[top : top + CROP_PX, left : left + CROP_PX]
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def use_one_thread(worker: int) -> None:
    """Start a worker: the workers share the cores, so OpenCV may not take all of them in each."""
    cv2.setNumThreads(0)


class OnTheFlyPeer(LoaderPeer):
    """Uint8 images, or augmented and normalised floats by torchvision in the same workers."""

    delivers_the_set = False

    def __init__(self, setting: Setting, *, augmented: bool) -> None:
        super().__init__(setting)
        self._transform = report_a_transform(setting) if augmented else None

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled source images."""
        paths = [record.path for record in list_source([self.setting.source_dir]).records]
        size_px = np.load(self.setting.images_path, mmap_mode="r").shape[1]
        step = max(len(paths) // SOURCE_IMAGES, 1)
        dataset = SourceImages(paths[::step][:SOURCE_IMAGES], size_px, self._transform)
        return shuffled_loader(dataset, batch_size, self.setting.num_workers, worker_init_fn=use_one_thread)
