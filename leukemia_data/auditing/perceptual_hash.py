"""A fingerprint of a cell's look: pixels in, 64-bit hashes and a thumbnail out.

The cell is cut out by its bounding box, centred in a square, scaled to 32x32 grey and standardised over its own pixels
(background 0), so place, scale and brightness do not count. The hash holds the signs of the 8x8 lowest frequencies
(1 ... 8 along both axes) of its cosine transform: the usual pHash, with texture instead of silhouette as its subject.
The *distance* of two hashes is the number of bits that differ: 0 for copies, 32 on average for unrelated pictures.

Cells have no up: the hashes of all eight flips and quarter turns come from one transform, because mirroring an axis
changes the sign of its odd frequencies and transposing a picture transposes them. One cell photographed twice, copied
at another quality, flipped or turned by quarters is found; one turned by another angle is not.

Zauner, C. (2010), "Implementation and Benchmarking of Perceptual Image Hash Functions" (the DCT hash).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.auditing.frame_check import FOREGROUND_LEVEL, brightest_channel, foreground_mask

THUMBNAIL_PX = 32
NUM_BITS = 64
VIEWS = tuple(product((False, True), repeat=3))
"""The eight views: whether to transpose, then to mirror the rows' order, then the columns'. View 0 changes nothing."""

_FREQUENCIES = slice(1, 9)
_ALTERNATING = np.where(np.arange(1, 9) % 2, -1.0, 1.0)
_BIT_VALUES = np.uint64(1) << np.arange(NUM_BITS, dtype=np.uint64)
_CELL_SHARE = 0.25
_MAX_DEVIATIONS = 2.0
_THUMBNAIL_SCALE = 60.0
_MIN_CELL_PX = 8
_MIN_DEVIATION = 1.0


@dataclass(frozen=True)
class CellPrint:
    """Look of one cell.

    Attributes
    ----------
    hashes : ndarray of shape (8,), uint64
        Hash of each view in :data:`VIEWS`.
    thumbnail : ndarray of shape (32, 32), int8
        Standardised grey values times 60, at most 120 away from 0; 0 outside the cell.
    """

    hashes: NDArray[np.uint64]
    thumbnail: NDArray[np.int8]


def cell_print(image_HWC: NDArray[np.uint8]) -> CellPrint | None:
    """Print of the cell in a frame; ``None`` where there is none to see (black, tiny or flat).

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB, a cell on black; on any other background the whole frame counts as the cell.
    """
    level_HW = brightest_channel(image_HWC)
    # A share of the brightest value, because JPEG's ripples around a cell would widen its bounding box.
    mask_HW = foreground_mask(level_HW, max(FOREGROUND_LEVEL, round(_CELL_SHARE * int(level_HW.max()))))
    left, top, width, height = cv2.boundingRect(mask_HW)
    if min(width, height) < _MIN_CELL_PX:
        return None
    box = slice(top, top + height), slice(left, left + width)
    grey = _thumbnail(cv2.cvtColor(image_HWC[box], cv2.COLOR_RGB2GRAY))
    inside = _thumbnail(mask_HW[box] * np.uint8(255)) > 127
    values = grey[inside]
    if len(values) == 0 or values.std() < _MIN_DEVIATION:
        return None
    standardised = ((grey - values.mean()) / values.std()).clip(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    standardised[~inside] = 0
    return CellPrint(_view_hashes(standardised), np.rint(standardised * _THUMBNAIL_SCALE).astype(np.int8))


def oriented(images_NPP: NDArray[np.generic], view: int) -> NDArray[np.generic]:
    """Square images (N, P, P) as they look in one of :data:`VIEWS`."""
    transpose, mirror_rows, mirror_columns = VIEWS[view]
    turned = images_NPP.swapaxes(1, 2) if transpose else images_NPP
    return turned[:, :: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]


def _thumbnail(pixels_HW: NDArray[np.generic]) -> NDArray[np.float32]:
    """Pixels centred in a black square and averaged down, shape (32, 32), float32."""
    height, width = pixels_HW.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels_HW
    scaled = cv2.resize(square, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.float32)


def _view_hashes(standardised_PP: NDArray[np.float32]) -> NDArray[np.uint64]:
    frequencies = np.asarray(cv2.dct(standardised_PP), np.float64)[_FREQUENCIES, _FREQUENCIES]
    hashes = np.empty(len(VIEWS), np.uint64)
    for view, (transpose, mirror_rows, mirror_columns) in enumerate(VIEWS):
        seen = frequencies.T if transpose else frequencies
        if mirror_rows:
            seen = seen * _ALTERNATING[:, None]
        if mirror_columns:
            seen = seen * _ALTERNATING
        hashes[view] = _BIT_VALUES[seen.ravel() > 0].sum(dtype=np.uint64)
    return hashes
