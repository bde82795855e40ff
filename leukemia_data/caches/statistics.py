"""Exact mean and standard deviation from integer sums per image.

Each cached image carries, per channel, the sum of its pixels and the sum of their squares as whole numbers. Any
set of images has its exact statistics by adding rows; no pixel is read again, no order or batch size matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import CacheError

Moments = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Per-channel mean and standard deviation (population, ddof 0) of pixels scaled to [0, 1], in RGB order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_images: int


def channel_moments(image_HWC: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Sum and sum of squares of each channel of one uint8 image (H, W, 3), exact.

    OpenCV adds whole numbers and returns mean and standard deviation in double precision. Undoing the division and
    the root is off by a few parts in 2**52 of the sum, so rounding to the nearest whole number is exact for images of
    up to 1e10 pixels.
    """
    height, width = image_HWC.shape[:2]
    count = height * width
    mean_C1, std_C1 = cv2.meanStdDev(image_HWC)
    mean, std = mean_C1[:, 0], std_C1[:, 0]
    sums = np.rint(mean * count).astype(np.int64)
    squares = np.rint((std * std + mean * mean) * count).astype(np.int64)
    return sums.tolist(), squares.tolist()


def channel_statistics(sums: Moments, square_sums: Moments, pixels_per_image: int) -> ChannelStatistics | None:
    """Statistics of all pixels of a set of images.

    Parameters
    ----------
    sums, square_sums : ndarray of shape (num_images, 3), uint64
        Rows of :func:`channel_moments`.
    pixels_per_image
        Height times width.

    Returns
    -------
    ChannelStatistics or None
        ``None`` for an empty set. Variances are computed as integers before the one division, so nothing cancels.

    Raises
    ------
    CacheError
        If no pixels have these sums.
    """
    num_images = len(sums)
    if num_images == 0:
        return None
    count = num_images * pixels_per_image
    totals = [_exact_sum(sums[:, c]) for c in range(3)]
    square_totals = [_exact_sum(square_sums[:, c]) for c in range(3)]
    variances = [count * square - total * total for total, square in zip(totals, square_totals, strict=True)]
    if min(variances) < 0 or max(totals) > 255 * count:
        raise CacheError("the cache's channel sums are those of no image: its index is forged; build the cache anew")
    mean = [total / (255 * count) for total in totals]
    std = [math.sqrt(variance) / (255 * count) for variance in variances]
    return ChannelStatistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), num_images)


def _exact_sum(values: NDArray[np.uint64]) -> int:
    """Sum of up to 2**32 numbers of 64 bits, which 64 bits may not hold: their halves are added up apart."""
    return (int((values >> np.uint64(32)).sum()) << 32) + int((values & np.uint64(0xFFFFFFFF)).sum())


def report_estimator(
    sums: Moments, square_sums: Moments, pixels_per_image: int, batch_size: int
) -> ChannelStatistics | None:
    """The first report's way to mean and std, for comparison only: it is wrong.

    It adds one mean and one standard deviation per batch and divides by the number of images instead of batches, so
    its numbers are about `batch_size` times too small, and change with the batch size.
    """
    num_images = len(sums)
    if num_images == 0:
        return None
    added_mean, added_std = np.zeros(3), np.zeros(3)
    for start in range(0, num_images, batch_size):
        batch = slice(start, start + batch_size)
        statistics = channel_statistics(sums[batch], square_sums[batch], pixels_per_image)
        if statistics is not None:
            added_mean += statistics.mean
            added_std += statistics.std
    mean, std = (added_mean / num_images).tolist(), (added_std / num_images).tolist()
    return ChannelStatistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), num_images)
