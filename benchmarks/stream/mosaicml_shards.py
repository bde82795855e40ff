"""MosaicML Streaming: MDS shards on the local disk, fixed-shape arrays, its default shuffle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from torch import Tensor

from stream.peer import Peer, Setting


class MosaicmlPeer(Peer):
    """MDS shards of 64 MB, which is the writer's default."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loader: Any = None

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the shards."""
        shape = ",".join(map(str, images_NSSC.shape[1:]))
        columns = {"image": f"ndarray:uint8:{shape}", "label": "int"}
        with MDSWriter(out=os.fspath(folder / "mds"), columns=columns) as writer:
            for image, label in zip(images_NSSC, labels_N, strict=True):
                writer.write({"image": image, "label": int(label)})

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Yield batches; the dataset counts epochs itself."""
        if self._loader is None:
            dataset = StreamingDataset(local=os.fspath(folder / "mds"), shuffle=True, batch_size=batch_size)
            workers = self.setting.num_workers
            self._loader = StreamingDataLoader(
                dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0
            )
        for batch in self._loader:
            yield batch["image"]

    def close(self) -> None:
        """Drop the loader, which ends its workers."""
        self._loader = None
