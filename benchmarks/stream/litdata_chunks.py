"""LitData: chunks written by ``optimize``, read by its StreamingDataset and StreamingDataLoader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream.peer import Peer, Setting


class LitdataPeer(Peer):
    """Chunks of 64 MB of image tensors, read where they lie."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loader: Any = None

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the chunks; LitData's workers read the images from the .npy files."""
        litdata.optimize(
            fn=partial(read_sample, self.setting.images_path, self.setting.labels_path),
            inputs=list(range(len(images_NSSC))),
            output_dir=os.fspath(folder / "chunks"),
            chunk_bytes="64MB",
            num_workers=1,
            verbose=False,
        )

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield batches; the loader counts epochs itself."""
        if self._loader is None:
            dataset = litdata.StreamingDataset(os.fspath(folder / "chunks"), shuffle=True, drop_last=False)
            workers = self.setting.num_workers
            self._loader = litdata.StreamingDataLoader(
                dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0
            )
        for batch in self._loader:
            yield batch["image"]

    def close(self) -> None:
        """Drop the loader, which ends its workers."""
        self._loader = None


def read_sample(images_path: Path, labels_path: Path, number: int) -> dict[str, Any]:
    """One sample as LitData stores it."""
    image = np.load(images_path, mmap_mode="r")[number]
    return {"image": torch.from_numpy(np.array(image)), "label": int(np.load(labels_path, mmap_mode="r")[number])}
