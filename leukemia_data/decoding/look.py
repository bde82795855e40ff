"""The look of an image: 64 values that survive copying, resizing and turning. RGB pixels in, int8 values out.

Each pixel has a weight that rises smoothly with its brightest channel; the weights' centroid and root-mean-square
radius place a square window, of which 32x32 area averages are taken. A smooth surface (second order, and fourth in the
radius: shading, illumination) is subtracted from the grey values, since smooth discs such as red blood cells would
differ little otherwise; pixels near the cell's edge, which copies keep least, do not count. The cosine transform of the
remaining texture at the frequencies 1 ... 8 of both axes, scaled to length 127, is the look. Mirroring an axis changes
the sign of its odd frequencies, and transposing transposes them (:mod:`leukemia_data.records.near_looks`).

After Zauner, C. (2010), "Implementation and Benchmarking of Perceptual Image Hash Functions" (the DCT hash), with
moments (Hu, M.-K., 1962, "Visual pattern recognition by moment invariants") in place of a bounding box.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.records.near_looks import LOOK_LENGTH, LOOK_VALUES, NUM_FREQUENCIES

THUMBNAIL_PX = 32
_WORKING_PX = 200
_MIN_MEDIAN_PX = 150
_BLACK_LEVEL = 8
# Of the mean brightness of pixels that are not black: below the first a pixel is ground, above the second cell.
_GROUND_SHARE, _CELL_SHARE = 0.15, 0.80
_WINDOW_RADII = 1.75
_EDGE_PX = 5
_MIN_RADIUS_PX = 3.0
_MIN_PIXELS = 64
_MIN_DEVIATION = 0.5
_RIDGE = 1e-6

_BORDERS = np.linspace(-1, 1, THUMBNAIL_PX + 1)
_WAVES = np.cos(np.outer(np.arange(1, NUM_FREQUENCIES + 1), np.arange(THUMBNAIL_PX) + 0.5) * (np.pi / THUMBNAIL_PX))


def _smooth_surfaces() -> NDArray[np.float64]:
    """Polynomials over the thumbnail, shape (7, 32 * 32); a flip or turn only mixes them with each other."""
    centres = (_BORDERS[1:] + _BORDERS[:-1]) / 2
    y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, (x * x + y * y) ** 2])


_SURFACES = _smooth_surfaces()


def image_look(image_HWC: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the look of an image; zeros for a black, flat, smooth or tiny one.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB: a cell on black; any other picture counts as a whole.

    Returns
    -------
    ndarray of shape (64,), int8
        Row-major over the frequencies (vertical, horizontal) from 1 to 8.
    """
    nothing = np.zeros(LOOK_VALUES, np.int8)
    small_HWC = _shrunk(image_HWC)
    if min(small_HWC.shape[:2]) >= _MIN_MEDIAN_PX:
        # Without single odd pixels; smaller frames need every pixel.
        small_HWC = np.asarray(cv2.medianBlur(small_HWC, 3), np.uint8)
    averages = _averages(small_HWC, _weights(small_HWC))
    texture_PP = None if averages is None else _texture(*averages)
    if texture_PP is None:
        return nothing
    values = (_WAVES @ texture_PP @ _WAVES.T).ravel()
    length = float(np.linalg.norm(values))
    return np.rint(values * (LOOK_LENGTH / length)).astype(np.int8) if length > 0 else nothing


def _shrunk(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a large frame by a whole factor, which OpenCV averages fastest."""
    height, width = image_HWC.shape[:2]
    factor = min(height, width) // _WORKING_PX
    if factor < 2:
        return image_HWC
    rows, columns = height // factor, width // factor
    whole = image_HWC[: rows * factor, : columns * factor]
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _weights(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Weight of each pixel as part of the cell, 0 ... 255, shape (H, W)."""
    red, green, blue = planes = [np.empty(image_HWC.shape[:2], np.uint8) for _ in range(3)]
    cv2.split(image_HWC, planes)
    level = cv2.max(cv2.max(red, green, red), blue, red)
    bright = cv2.threshold(level, _BLACK_LEVEL, 0, cv2.THRESH_TOZERO)[1]
    mean = cv2.sumElems(bright)[0] / max(cv2.countNonZero(bright), 1)
    ground = round(_GROUND_SHARE * mean)
    slope = 255 / max(_CELL_SHARE * mean - ground, 1.0)
    ramp = ((np.arange(256) - ground) * slope).clip(0, 255)
    return np.asarray(cv2.LUT(level, np.rint(ramp).astype(np.uint8)), np.uint8)


def _averages(
    image_HWC: NDArray[np.uint8], weights_HW: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Grey values of the cell and weights (0 ... 1), averaged over the window's 32x32 parts; None without a cell."""
    rows = cv2.reduce(weights_HW, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.float64)
    columns = cv2.reduce(weights_HW, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.float64)
    total = float(rows.sum())
    if total < _MIN_PIXELS * 255:
        return None
    (y, spread_y), (x, spread_x) = _moments(rows, total), _moments(columns, total)
    radius = math.sqrt(spread_y + spread_x)
    if radius < _MIN_RADIUS_PX:
        return None
    window_y, share_y = _shares(y, _WINDOW_RADII * radius, len(rows))
    window_x, share_x = _shares(x, _WINDOW_RADII * radius, len(columns))
    weights_hw = weights_HW[window_y, window_x]
    grey_hw = cv2.copyTo(cv2.cvtColor(image_HWC[window_y, window_x], cv2.COLOR_RGB2GRAY), weights_hw)
    grey_PP = share_y @ grey_hw.astype(np.float32) @ share_x.T
    return grey_PP, share_y @ weights_hw.astype(np.float32) @ share_x.T * np.float32(1 / 255)


def _moments(sums: NDArray[np.float64], total: float) -> tuple[float, float]:
    """Centre of mass along an axis, in pixels from the frame's edge, and the variance around it."""
    places = np.arange(len(sums)) + 0.5
    centre = float(sums @ places) / total
    return centre, float(sums @ (places - centre) ** 2) / total


def _shares(centre: float, half: float, length: int) -> tuple[slice, NDArray[np.float32]]:
    """Pixels of an axis in a window, and the weight of each in the averages of its 32 parts, (32, w); black beyond."""
    start, stop = max(math.floor(centre - half), 0), min(math.ceil(centre + half), length)
    borders = centre + half * _BORDERS[:, None] - np.arange(start, stop)
    below = borders.clip(0, 1)
    shares = (below[1:] - below[:-1]) * (THUMBNAIL_PX / (2 * half))
    return slice(start, stop), shares.astype(np.float32)


def _texture(grey_PP: NDArray[np.float32], weights_PP: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Grey values minus the smooth surface that fits them best, 0 outside the cell; None if almost nothing remains.

    Pixels count less, the nearer they are to the cell's edge.
    """
    inside = cv2.blur(weights_PP, (_EDGE_PX, _EDGE_PX), borderType=cv2.BORDER_CONSTANT)
    inside = (2 * inside - 1).clip(0, 1).ravel()
    count = float(inside.sum())
    if count < 1:
        return None
    surfaces = _SURFACES * weights_PP.ravel()
    weighted = surfaces * inside
    normal = weighted @ surfaces.T + _RIDGE * np.eye(len(surfaces))
    rest = (grey_PP.ravel() - np.linalg.solve(normal, weighted @ grey_PP.ravel()) @ surfaces) * inside
    if float(rest @ rest) < count * _MIN_DEVIATION**2:
        return None
    return rest.reshape(grey_PP.shape)
