"""Pixels of CLAHE, sharpening, filters and resizing: RGB uint8 (H, W, 3) in and out."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

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
    """Contrast-limited adaptive histogram equalisation of L in CIE L*a*b*, of all pixels.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    clip_limit, tiles
        As in :func:`equalize_channels`.

    Notes
    -----
    The one channel that is equalised carries no colour, so hue stays, but for what leaves the sRGB gamut. L, a and b
    are OpenCV's 8-bit ones: on cells of C-NMC the way there and back alone moves a pixel by 0.4 grey levels in the
    mean.
    """
    clahe = cv2.createCLAHE(clip_limit, (tiles[1], tiles[0]))
    lab_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2Lab)
    cv2.insertChannel(clahe.apply(cv2.extractChannel(lab_HWC, 0)), lab_HWC, 0)
    return np.asarray(cv2.cvtColor(lab_HWC, cv2.COLOR_Lab2RGB), np.uint8)


def equalize_cell_lightness(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """:func:`equalize_lightness` of a cell on an exactly black background; black pixels stay black.

    The background counts in the histograms of the tiles it lies in, as it does in the usual form.
    """
    equalized = equalize_lightness(image_HWC, clip_limit, tiles)
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
    return _weighted_by_triangles(image_HWC, size_px, size_px)


def resample(image_HWC: Image, height_px: int, width_px: int, method: Literal["area", "antialias"]) -> Image:
    """Scale an image to any height and width: (H, W, 3) -> (height_px, width_px, 3).

    Parameters
    ----------
    method
        ``area``: mean of the source pixels under each target pixel, parts of pixels weighted, where neither direction
        grows, and bilinear otherwise, because INTER_AREA repeats pixels where it enlarges. ``antialias``: as
        :func:`resize_antialiased`.
    """
    if image_HWC.shape[:2] == (height_px, width_px):
        return image_HWC
    if method == "antialias":
        return _weighted_by_triangles(image_HWC, height_px, width_px)
    is_smaller = height_px <= image_HWC.shape[0] and width_px <= image_HWC.shape[1]
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(image_HWC, (width_px, height_px), interpolation=interpolation), np.uint8)


def _weighted_by_triangles(image_HWC: Image, height_px: int, width_px: int) -> Image:
    height, width = image_HWC.shape[:2]
    rows = _triangle_weights(height, height_px)
    columns = _triangle_weights(width, width_px)
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


MIDDLE_GREY = 128


def mean_filter(image_HWC: Image, size_px: int) -> Image:
    """Mean of the `size_px` x `size_px` pixels around each, rounded."""
    return np.asarray(cv2.blur(image_HWC, (size_px, size_px)), np.uint8)


def high_pass(image_HWC: Image, size_px: int) -> Image:
    """Each pixel minus the mean of the `size_px` x `size_px` pixels around it, plus 128, saturated."""
    kernel = np.full((size_px, size_px), -1 / size_px**2)
    kernel[size_px // 2, size_px // 2] += 1
    return np.asarray(cv2.filter2D(image_HWC, cv2.CV_8U, kernel, delta=MIDDLE_GREY), np.uint8)


def add_response(image_HWC: Image, kernel_KK: NDArray[np.float64], onto_grey: bool) -> Image:
    """Response of each channel to a kernel, added to the pixel itself or to 128, saturated.

    Parameters
    ----------
    image_HWC : ndarray of shape (H, W, 3), uint8
    kernel_KK : ndarray of shape (K, K), float64
        Odd K; weights for correlation. With a sum of zero, flat parts keep their value (or become 128).
    onto_grey
        Add it to 128 instead of the image.
    """
    if onto_grey:
        return np.asarray(cv2.filter2D(image_HWC, cv2.CV_8U, kernel_KK, delta=MIDDLE_GREY), np.uint8)
    middle = len(kernel_KK) // 2
    with_image = kernel_KK.copy()
    with_image[middle, middle] += 1
    return np.asarray(cv2.filter2D(image_HWC, cv2.CV_8U, with_image), np.uint8)


def balance_gray_world(image_HWC: Image) -> Image:
    """Scale each channel to the mean of the three channels' means, rounded and saturated.

    The means are over the whole image. Black pixels add nothing to any of the three sums, so over the cell alone the
    factors would be the same. An image with an empty channel has no balance and is returned as it is.

    Notes
    -----
    Buchsbaum, "A spatial processor model for object colour perception", J. Franklin Institute 310 (1980).
    """
    sums_C = image_HWC.reshape(-1, 3).sum(axis=0, dtype=np.float64)
    if not sums_C.all():
        return image_HWC.copy()
    levels = np.arange(256)[:, None] * (sums_C.mean() / sums_C)
    table = np.rint(levels).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image_HWC, table[:, None]), np.uint8)


def to_gray(image_HWC: Image) -> Image:
    """Luma of Rec. 601 as OpenCV computes it, in three equal channels."""
    luma_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.merge([luma_HW] * 3), np.uint8)
