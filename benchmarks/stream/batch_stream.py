"""Our stream: uint8 batches, and the same ones augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.caches.cache import open_cache
from leukemia_data.streams.loader import BatchStream
from stream.peer import AUGMENTED_IMAGES, Peer, Setting

SEED = 0


class StreamPeer(Peer):
    """Shuffled uint8 batches of the cache."""

    def __init__(self, setting: Setting, *, num_threads: int, residency: str) -> None:
        super().__init__(setting)
        self._stream = open_stream(setting, setting.num_images, num_threads, residency)

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield one epoch."""
        for batch in self._stream.epoch(epoch):
            yield batch.images_BHWC

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class AugmentedStreamPeer(Peer):
    """The stream's batches after the augmentation of the first report: flips, rotation, colour, normalisation."""

    delivers_the_set = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        torch.set_num_threads(setting.num_workers)
        self._stream = open_stream(setting, min(setting.num_images, AUGMENTED_IMAGES), 1)
        augmentation = load_augmentation("report-a")
        self._augment = Augmenter(augmentation, seed=SEED, mean=setting.mean, std=setting.std, device="cpu")

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield one epoch."""
        for batch in self._stream.epoch(epoch):
            yield self._augment(batch.images_BHWC, epoch, batch.indices_B, batch.occurrences_B)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def open_stream(setting: Setting, num_images: int, num_threads: int, residency: str = "auto") -> BatchStream:
    """Shuffled stream of the first samples of the cache, which lie in no order that matters."""
    cache = open_cache(setting.cache_dir)
    numbers = np.arange(num_images)
    return BatchStream(
        cache, numbers, batch_size=setting.batch_size, seed=SEED, num_threads=num_threads, residency=residency
    )
