"""Hugging Face datasets: a memory-mapped Arrow table in a DataLoader.

Pixels are stored as bytes and decoded by ``with_transform``: the array column with ``with_format("torch")`` turns uint8
into int64 unless told otherwise, and is slower even then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_collate

from stream.peer import LoaderPeer, shuffled_loader

FILE_NAME = "data.arrow"
ROWS_A_WRITE = 128


class HuggingFacePeer(LoaderPeer):
    """One Arrow file; the DataLoader fetches a batch of rows at a time."""

    def prepare(self, images_NSSC: NDArray[np.uint8], labels_N: NDArray[np.int64], folder: Path) -> None:
        """Write the table."""
        features = datasets.Features({"pixels": datasets.Value("binary"), "label": datasets.Value("int64")})
        path = os.fspath(folder / FILE_NAME)
        with datasets.arrow_writer.ArrowWriter(features=features, path=path, writer_batch_size=ROWS_A_WRITE) as writer:
            for image, label in zip(images_NSSC, labels_N, strict=True):
                writer.write({"pixels": image.tobytes(), "label": int(label)})
            writer.finalize()

    def make_loader(self, folder: Path, batch_size: int) -> DataLoader[Any]:
        """Shuffled rows."""
        dataset = datasets.Dataset.from_file(os.fspath(folder / FILE_NAME)).with_transform(to_images)
        return shuffled_loader(dataset, batch_size, self.setting.num_workers, collate_fn=to_tuple)


def to_images(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Pixels of a batch of rows."""
    flat = [np.frombuffer(pixels, np.uint8) for pixels in rows["pixels"]]
    side = int(np.sqrt(flat[0].size // 3))
    return {"image": [pixels.reshape(side, side, 3) for pixels in flat], "label": rows["label"]}


def to_tuple(samples: list[dict[str, Any]]) -> tuple[Any, Any]:
    """One batch, image first."""
    batch = default_collate(samples)
    return batch["image"], batch["label"]
