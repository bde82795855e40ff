"""Preview of the augmentation: a grid of cached cells and their augmented versions per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.caches.cache import Cache
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import SourceError
from leukemia_data.operations.operation import Image
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.scanning.preview import SheetRow, draw_sheet
from leukemia_data.scanning.scan import spread_evenly


@dataclass(frozen=True, kw_only=True)
class AugmentationPreview:
    """A drawn preview: the PNG, the augmentation, and the id of the image in each row."""

    out: Path
    augmentation: Augmentation
    image_ids: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {"out": str(self.out), "augmentation": self.augmentation.to_dict(), "images": list(self.image_ids)}


def preview_augmentation(
    cache: Cache,
    augment: str,
    out: Path,
    *,
    per_class: int = 3,
    epochs: int = 8,
    seed: int = 0,
    console: Console = NULL_CONSOLE,
) -> AugmentationPreview:
    """Draw a few cached samples of each class, and their augmented versions in the first epochs of a run.

    The pixels are those that the run's network gets, without the normalization.

    Parameters
    ----------
    augment
        As for :func:`~leukemia_data.augmenting.augmentation.load_augmentation`.
    out
        PNG to write.
    per_class, epochs
        Rows per class, and columns beside the cached images; at least 1.
    seed
        Seed of the run.
    console
        Receives the augmentation's warnings.

    Raises
    ------
    UsageError
        If the augmentation cannot be read.
    SourceError
        If the folder of `out` is missing, or the cache holds no image.
    """
    augmentation = load_augmentation(augment)
    if not out.resolve().parent.is_dir():
        raise SourceError(f"cannot write {out}: its folder does not exist")
    for warning in augmentation.warnings():
        console.warn(warning)
    indices_N = _chosen_indices(cache, per_class)
    if not len(indices_N):
        raise SourceError(f"{cache.location} holds no image")
    columns = _columns(cache.reader.gather(indices_N), indices_N, augmentation, epochs, seed)
    rows = [_row(cache, index, columns, position) for position, index in enumerate(indices_N.tolist())]
    draw_sheet(rows, f"augmentation {augmentation.name}, seed {seed}, {cache.size_px} px", out)
    return AugmentationPreview(out=out, augmentation=augmentation, image_ids=tuple(row.record_id for row in rows))


def _chosen_indices(cache: Cache, per_class: int) -> NDArray[np.int64]:
    """A few samples per class, evenly spaced over the cache, unlabelled ones last."""
    labels_N = cache.table.labels
    chosen: list[int] = []
    for label in [*range(len(cache.manifest.classes)), UNKNOWN_LABEL]:
        chosen.extend(spread_evenly(np.flatnonzero(labels_N == label).tolist(), per_class))
    return np.array(chosen, np.int64)


def _columns(
    images_NHWC: NDArray[np.uint8], indices_N: NDArray[np.int64], augmentation: Augmentation, epochs: int, seed: int
) -> list[tuple[str, NDArray[np.uint8]]]:
    # Mean 0 and std 1 keep the pixels in [0, 1].
    augmenter = Augmenter(augmentation, seed=seed, mean=(0.0,) * 3, std=(1.0,) * 3, device=torch.device("cpu"))
    columns = [("cached", images_NHWC)]
    for epoch in range(1, epochs + 1):
        shown_NCHW = augmenter(torch.from_numpy(images_NHWC), epoch, torch.from_numpy(indices_N))
        levels_NCHW = (shown_NCHW * 255).round().clamp(0, 255).to(torch.uint8)
        columns.append((f"epoch {epoch}", levels_NCHW.permute(0, 2, 3, 1).contiguous().numpy()))
    return columns


def _row(cache: Cache, index: int, columns: Sequence[tuple[str, NDArray[np.uint8]]], position: int) -> SheetRow:
    label = int(cache.table.labels[index])
    class_name = cache.manifest.classes[label] if label != UNKNOWN_LABEL else "unlabelled"
    frames: tuple[tuple[str, Image], ...] = tuple((title, images[position]) for title, images in columns)
    return SheetRow(class_name, cache.table.take([index]).id_texts[0], frames)
