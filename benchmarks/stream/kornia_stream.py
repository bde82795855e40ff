"""Kornia's augmentation on the batches of our stream, with the same operations and ranges as ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kornia.augmentation
import torch
from torch import Tensor, nn

from stream.batch_stream import open_stream
from stream.peer import AUGMENTED_IMAGES, Peer, Setting


class KorniaPeer(Peer):
    """Independent parameters for each sample, which is Kornia's default."""

    delivers_the_set = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        torch.set_num_threads(setting.num_workers)
        self._stream = open_stream(setting, min(setting.num_images, AUGMENTED_IMAGES), 1)
        self._augment = nn.Sequential(
            kornia.augmentation.RandomHorizontalFlip(p=0.5),
            kornia.augmentation.RandomVerticalFlip(p=0.5),
            kornia.augmentation.RandomRotation(20.0, p=1.0),
            kornia.augmentation.ColorJiggle((0.8, 1.2), (0.0, 2.2), (0.0, 2.2), (-0.1, 0.1), p=1.0),
            kornia.augmentation.Normalize(torch.tensor(setting.mean), torch.tensor(setting.std)),
        )

    @torch.no_grad()
    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield one epoch."""
        for batch in self._stream.epoch(epoch):
            yield self._augment(batch.images_BHWC.permute(0, 3, 1, 2).float().div_(255))

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
