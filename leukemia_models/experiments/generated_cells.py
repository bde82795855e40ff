"""Generated cells in memory, for experiments that need no data set: a seed and counts in, small images and labels out.

The cells are those of :mod:`leukemia_data.generated.synthetic`, cropped and shrunk. Subjects lie on one side of the
split each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.generated.synthetic import SampleCell, generate_cell, plan_sample
from leukemia_data.pixels.image_ops import resize_area
from leukemia_models.inference.normalization import GREY_LEVELS, Normalization

CROP_PX = 270
"""The first report's centre crop, which holds every cell."""
VALID_FOLD = 2


@dataclass(frozen=True)
class CellImages:
    """Images with their classes.

    Parameters
    ----------
    images_NHWC : uint8 array (N,S,S,3)
        RGB.
    labels_N : int64 array (N,)
        0 hem, 1 all.
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def normalization(self) -> Normalization:
        """Return mean and standard deviation of all pixels, per channel."""
        pixels = self.images_NHWC.reshape(-1, 3) / GREY_LEVELS
        return Normalization.of(pixels.mean(axis=0), pixels.std(axis=0))


def plan_cells(
    num_subjects: int, train_cells_per_subject: int, valid_cells_per_subject: int
) -> tuple[list[SampleCell], list[SampleCell]]:
    """List the cells for training and for validation: a third of the subjects is for validation.

    Raises
    ------
    UsageError
        If there are fewer than 2 subjects, or no cells. From 9 subjects on, both parts hold both classes.
    """
    train = [cell for cell in plan_sample(num_subjects, train_cells_per_subject) if cell.fold != VALID_FOLD]
    valid = [cell for cell in plan_sample(num_subjects, valid_cells_per_subject) if cell.fold == VALID_FOLD]
    return train, valid


def draw_cells(
    cells: list[SampleCell],
    *,
    seed: int,
    size_px: int,
    num_threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> CellImages:
    """Generate cells, crop them to the centre and shrink them.

    Parameters
    ----------
    cells : list of SampleCell
        Which ones, in the order of the result.
    seed : int
        Chooses the sample; not negative.
    size_px : int
        Side of the images.
    num_threads : int
        Images generated at a time; changes no pixel.
    progress : callable, optional
        Called with 1 after each image, in the calling thread.
    """

    def draw(cell: SampleCell) -> NDArray[np.uint8]:
        frame_HWC = generate_cell(seed, cell.subject_number, cell.cell_index, cell.label)
        margin_px = (len(frame_HWC) - CROP_PX) // 2
        inner = slice(margin_px, margin_px + CROP_PX)
        return resize_area(np.ascontiguousarray(frame_HWC[inner, inner]), size_px)

    images = []
    with ThreadPoolExecutor(num_threads) as pool:
        for image_HWC in pool.map(draw, cells):
            images.append(image_HWC)
            if progress is not None:
                progress(1)
    return CellImages(np.stack(images), np.array([cell.label for cell in cells], np.int64))
