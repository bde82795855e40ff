"""WebDataset: tar shards read in sequence, shuffled by shard and in a buffer, batched in the workers.

Pixels are stored as raw bytes, which spares WebDataset the decoding of a file format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor

from stream.peer import LoaderPeer

IMAGES_A_SHARD = 256
SHUFFLE_BUFFER = 1000


class WebdatasetPeer(LoaderPeer):
    """Tar shards of 256 images."""

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the shards."""
        pattern = os.fspath(folder / "shard-%05d.tar")
        with webdataset.ShardWriter(pattern, maxcount=IMAGES_A_SHARD, verbose=0) as writer:
            for number, (image, label) in enumerate(zip(images_NSSC, labels_N, strict=True)):
                key = f"{number:08d}"
                writer.write({"__key__": key, "image.bin": image.tobytes(), "cls.txt": str(int(label)).encode()})

    def make_loader(self, folder: Path, batch_size: int) -> Any:  # noqa: ANN401 - webdataset's own loader
        """Shuffle shards and samples, batch in the worker."""
        shards = sorted(os.fspath(path) for path in folder.glob("shard-*.tar"))
        dataset = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        dataset = dataset.shuffle(SHUFFLE_BUFFER).map(to_sample).batched(batch_size, collation_fn=stack)
        workers = self.setting.num_workers
        return webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)


def to_sample(parts: dict[str, bytes]) -> tuple[NDArray[np.uint8], int]:
    """Image and label from the bytes in the tar file."""
    pixels = np.frombuffer(parts["image.bin"], np.uint8)
    side = int(np.sqrt(pixels.size // 3))
    return pixels.reshape(side, side, 3), int(parts["cls.txt"])


def stack(samples: list[tuple[NDArray[np.uint8], int]]) -> tuple[Tensor, Tensor]:
    """One batch."""
    images, labels = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)
