"""The part of ``ltrain preview-augment`` that needs torch and draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cli.output import print_json, print_note, print_text
from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.opening import LocalCopiesChoice, open_chosen_cache
from leukemia_data.errors import SourceError
from leukemia_data.operations.operation import Image
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.scanning.preview import SheetRow, draw_sheet, spread_evenly
from leukemia_data.stores.url import Location

_GREY_LEVELS = 255


def preview_augment(
    location: Location,
    *,
    size_px: int | None,
    augment: str,
    per_class: int,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Draw the grid into `out` and say what was drawn."""
    augmentation = load_augmentation(augment)
    if not out.resolve().parent.is_dir():
        raise SourceError(f"cannot write {out}: its folder does not exist")
    for warning in augmentation.warnings():
        print_note(f"warning: {warning}")
    cache = open_chosen_cache(location, LocalCopiesChoice(), size_px=size_px)
    numbers = _choose_samples(cache, per_class)
    if not len(numbers):
        raise SourceError(f"{cache.location} holds no image")
    # Mean 0 and std 1 leave the pixels on the scale from 0 to 1.
    augmenter = Augmenter(augmentation, seed=seed, mean=(0.0,) * 3, std=(1.0,) * 3, device=torch.device("cpu"))
    with cache:
        images = cache.reader.gather(numbers)
    columns = [("cached", images)]
    for epoch in range(1, epochs + 1):
        shown_BCHW = augmenter(torch.from_numpy(images), epoch, torch.from_numpy(numbers))
        columns.append((f"epoch {epoch}", _as_pixels(shown_BCHW)))
    rows = [_row(cache, number, columns, position) for position, number in enumerate(numbers.tolist())]
    draw_sheet(rows, f"augmentation {augmentation.name}, seed {seed}, {cache.size_px} px", out)
    if as_json:
        print_json({"out": str(out), "augmentation": augmentation.to_dict(), "images": [row.record_id for row in rows]})
    else:
        print_text(f"{len(rows)} images, augmentation {augmentation.name}, epochs 1 to {epochs}: {out}")


def _choose_samples(cache: Cache, per_class: int) -> NDArray[np.int64]:
    """A few samples of each class, spread evenly over the cache, unlabelled ones last."""
    labels = cache.table.labels
    chosen: list[int] = []
    for label in [*range(len(cache.manifest.classes)), UNKNOWN_LABEL]:
        chosen.extend(spread_evenly(np.flatnonzero(labels == label).tolist(), per_class))
    return np.array(chosen, np.int64)


def _as_pixels(images_BCHW: torch.Tensor) -> NDArray[np.uint8]:
    levels = (images_BCHW * _GREY_LEVELS).round().clamp(0, _GREY_LEVELS).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def _row(cache: Cache, number: int, columns: list[tuple[str, NDArray[np.uint8]]], position: int) -> SheetRow:
    label = int(cache.table.labels[number])
    class_name = cache.manifest.classes[label] if label != UNKNOWN_LABEL else "unlabelled"
    frames: tuple[tuple[str, Image], ...] = tuple((title, images[position]) for title, images in columns)
    return SheetRow(class_name, cache.table.take([number]).id_texts[0], frames)
