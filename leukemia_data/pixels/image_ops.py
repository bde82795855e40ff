"""Pixels in, pixels out: each operation of a recipe on a whole image.

All images are RGB uint8 of shape (height, width, 3). No function changes its input.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def equalize_channels(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """Contrast-limited adaptive histogram equalisation of each channel on its own.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    clip_limit
        Multiple of the mean bin height at which a tile's histogram is cut (OpenCV's meaning).
    tiles
        Number of tiles (vertically, horizontally).

    Notes
    -----
    Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV (1994), as OpenCV does it.
    Equalising the three channels apart shifts hue and lifts an exact-zero background by a few grey levels; the
    first report did so, and the recipe keeps it.
    """
    clahe = cv2.createCLAHE(clip_limit, (tiles[1], tiles[0]))
    return np.asarray(cv2.merge([clahe.apply(cv2.extractChannel(image_HWC, c)) for c in range(3)]), np.uint8)


def equalize_lightness(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """Contrast-limited adaptive histogram equalisation of L in CIE L*a*b*; black pixels stay black.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        Cell on an exactly black background.
    clip_limit, tiles
        As in :func:`equalize_channels`.

    Notes
    -----
    The one channel that is equalised carries no colour, so hue stays, but for what leaves the sRGB gamut. L, a and b
    are OpenCV's 8-bit ones: on cells of C-NMC the way there and back alone moves a pixel by 0.4 grey levels in the
    mean. The background counts in the histograms of the tiles it lies in, as it does in the usual form.
    """
    clahe = cv2.createCLAHE(clip_limit, (tiles[1], tiles[0]))
    lab_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2Lab)
    cv2.insertChannel(clahe.apply(cv2.extractChannel(lab_HWC, 0)), lab_HWC, 0)
    equalized = cv2.cvtColor(lab_HWC, cv2.COLOR_Lab2RGB)
    return np.asarray(cv2.copyTo(equalized, cell_mask(image_HWC)), np.uint8)


def cell_mask(image_HWC: Image) -> NDArray[np.uint8]:
    """255 where any channel is above zero, 0 where a pixel is exactly black: (H, W, 3) -> (H, W), uint8."""
    return np.asarray(cv2.bitwise_not(cv2.inRange(image_HWC, (0, 0, 0), (0, 0, 0))), np.uint8)


def unsharp_mask(image_HWC: Image, sigma_px: float, strength: float, radius_px: int) -> Image:
    """Image * (1 + strength) - Gaussian(image) * strength, rounded and saturated to 0..255.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    sigma_px, radius_px
        Width and reach of the Gaussian; beyond the image it sees the image mirrored (without the edge pixel).
    strength
        Gain of the difference between the image and its blurred self.
    """
    side = 2 * radius_px + 1
    blurred = cv2.GaussianBlur(image_HWC, (side, side), sigma_px)
    return np.asarray(cv2.addWeighted(image_HWC, 1 + strength, blurred, -strength, 0), np.uint8)


def resize_area(image_HWC: Image, size_px: int) -> Image:
    """Mean of the source pixels under each target pixel: (H, W, 3) -> (size_px, size_px, 3)."""
    return np.asarray(cv2.resize(image_HWC, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def resize_antialiased(image_HWC: Image, size_px: int) -> Image:
    """Bilinear with the triangle filter widened by the scale: (H, W, 3) -> (size_px, size_px, 3).

    What Pillow's BILINEAR and torchvision's ``antialias=True`` compute, here in single precision with one rounding
    at the end, so within one grey level of both.
    """
    height, width = image_HWC.shape[:2]
    rows = _triangle_weights(height, size_px)
    columns = _triangle_weights(width, size_px)
    planes_CHW = np.ascontiguousarray(image_HWC.transpose(2, 0, 1), np.float32)
    resized_CSS = rows @ planes_CHW @ columns.T
    return np.ascontiguousarray(np.rint(resized_CSS).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=16)
def _triangle_weights(source_px: int, target_px: int) -> NDArray[np.float32]:
    """Matrix (target_px, source_px) whose rows weight the source pixels of each target pixel and sum to one."""
    scale = source_px / target_px
    support = max(scale, 1.0)
    centres = (np.arange(target_px) + 0.5) * scale
    distances = np.arange(source_px) + 0.5 - centres[:, None]
    weights = np.clip(1 - np.abs(distances) / support, 0, None)
    normalized: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized
