"""Linear filters, gray-world balance and grey: RGB uint8 (H, W, 3) in and out.

Sums are signed and unbounded until the one rounding at the end, which saturates to 0..255; nothing wraps round. Beyond
the image every filter sees it mirrored (without the edge pixel). No function changes its input.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.pixels.image_ops import Image

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
