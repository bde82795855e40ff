"""Exact mean and standard deviation from integer sums per image.

Each cached image has, per channel, the sum of its pixels and of their squares as integers. The statistics of any set of
images are exact sums of these rows: no pixel is read, and order and batch size do not matter.
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
    """Return the exact sum and sum of squares of each channel of one uint8 image (H, W, 3).

    OpenCV adds integers and returns mean and standard deviation in double precision. Undoing the division and the root
    has a relative error of a few 2**-52, so rounding is exact for images of up to 1e10 pixels.
    """
    height, width = image_HWC.shape[:2]
    count = height * width
    mean_C1, std_C1 = cv2.meanStdDev(image_HWC)
    mean, std = mean_C1[:, 0], std_C1[:, 0]
    sums = np.rint(mean * count).astype(np.int64)
    squares = np.rint((std * std + mean * mean) * count).astype(np.int64)
    return sums.tolist(), squares.tolist()


def channel_statistics(sums: Moments, square_sums: Moments, pixels_per_image: int) -> ChannelStatistics | None:
    """Return the statistics of all pixels of a set of images.

    Parameters
    ----------
    sums, square_sums : ndarray of shape (num_images, 3), uint64
        Rows of :func:`channel_moments`.
    pixels_per_image
        Height times width.

    Returns
    -------
    ChannelStatistics or None
        ``None`` for an empty set. Variances are computed in integers before a single division, without cancellation.

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
    """Sum of up to 2**32 uint64 numbers without overflow: their halves are added separately."""
    return (int((values >> np.uint64(32)).sum()) << 32) + int((values & np.uint64(0xFFFFFFFF)).sum())


def report_estimator(
    sums: Moments, square_sums: Moments, pixels_per_image: int, batch_size: int
) -> ChannelStatistics | None:
    """Return mean and std as the first report computed them, wrongly. For comparison only.

    Means and standard deviations of batches are summed and divided by the number of images instead of batches, so
    the results are about `batch_size` times too small, and depend on the batch size.
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
