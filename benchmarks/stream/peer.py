"""What every way to get batches offers, and the settings they all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

AUGMENTED_IMAGES = 1024
"""Images an epoch of the augmenting peers, which need seconds for them."""


@dataclass(frozen=True)
class Setting:
    """What a measurement is about; the same for all peers.

    Attributes
    ----------
    cache_dir
        Our cache of the images.
    source_dir
        Folder with the original image files, for the on-the-fly pipelines.
    images_path, labels_path
        The same images and labels as .npy files, from which every peer makes its own format.
    batch_size, num_workers
        Images a batch; processes or threads that a peer may use.
    num_images
        Images in the set.
    mean, std
        Of the pixels in [0, 1], for the peers that normalise.
    """

    cache_dir: Path
    source_dir: Path
    images_path: Path
    labels_path: Path
    batch_size: int
    num_workers: int
    num_images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Peer(ABC):
    """One way to get batches. It lives in a process of its own, so it may set threads, signals and globals."""

    delivers_the_set = True
    """Whether an epoch is exactly the set's uint8 images, which the check then compares."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def prepare(  # noqa: B027 - who reads our cache has nothing to prepare
        self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path
    ) -> None:
        """Write the peer's own format of the images below an existing, empty folder; not timed."""

    @abstractmethod
    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield one epoch of shuffled batches; workers and open files stay for the next one."""

    def run_epoch(self, folder: Path, batch_size: int, epoch: int) -> int:
        """Go through one epoch as a training loop would, dropping each batch; return the number of images."""
        num_images = 0
        for images in self.batches(folder, batch_size, epoch):
            num_images += len(images)
        return num_images

    def close(self) -> None:  # noqa: B027 - not everybody holds workers or files
        """Let go of workers and files."""


class LoaderPeer(Peer):
    """A peer that is a dataset in a ``DataLoader`` with persistent workers, whose samples start with the image."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loader: DataLoader[Any] | None = None

    @abstractmethod
    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Open the peer's format; called once."""

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield the first part of each batch of the loader."""
        if self._loader is None:
            self._loader = self.make_loader(folder, batch_size)
        for batch in self._loader:
            yield batch[0]

    def close(self) -> None:
        """Drop the loader, which ends its workers."""
        self._loader = None


def shuffled_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    **options: Any,  # noqa: ANN401 - DataLoader's own
) -> DataLoader[Any]:
    """The DataLoader of PyTorch's documentation for training: shuffled, workers kept between epochs."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        generator=generator,
        **options,
    )
