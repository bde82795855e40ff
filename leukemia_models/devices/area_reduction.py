"""Smaller images by the area of their pixels, on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.streams.batch import to_device
from leukemia_models.devices.normalization import Batch, close_batches


def area_reduced(images_BHWC: Tensor, size_px: int) -> Tensor:
    """Reduce square images: each pixel of the result is the mean of the area that it covers, rounded to nearest.

    Equal to OpenCV's ``INTER_AREA`` but for the direction in which halves are rounded: here up.

    Parameters
    ----------
    images_BHWC : tensor (B,S,S,C), uint8
        On any device; not modified.
    size_px : int
        Side of the result, at most S; images of this side are returned as they are.

    Raises
    ------
    UsageError
        If `size_px` is not in 1..S.
    """
    batch, side_px, _, channels = images_BHWC.shape
    if size_px == side_px:
        return images_BHWC
    if not 1 <= size_px < side_px:
        raise UsageError(f"images of {side_px} px cannot be reduced to {size_px} px")
    # The weights repeat: 3 pixels from every 4 in the reduction from 128 to 96 px. They are whole numbers, whose sums
    # are exact in float32, so that the result for an image does not depend on its batch.
    repeats = math.gcd(side_px, size_px)
    weights_QP = _overlaps(side_px // repeats, size_px // repeats, images_BHWC.device)
    new, old = weights_QP.shape
    # (Q*C, P*C): a pixel's channels stay apart.
    unit_CC = torch.eye(channels, device=images_BHWC.device)
    column_weights = (weights_QP[:, None, :, None] * unit_CC[None, :, None, :]).reshape(new * channels, old * channels)
    rows = images_BHWC.reshape(batch * repeats, old, side_px * channels).float()
    rows = torch.matmul(weights_QP, rows)
    sums = torch.matmul(rows.view(-1, old * channels), column_weights.T)
    means = sums.add_(old * old / 2).div_(old * old)
    # The conversion cuts the fraction off.
    return means.view(batch, size_px, size_px, channels).to(torch.uint8)


def _overlaps(old: int, new: int, device: torch.device) -> Tensor:
    """Return the lengths (new, old) that each new pixel has of each old one, where a row is old * new long."""
    old_start_P = torch.arange(old, device=device) * new
    new_start_Q1 = torch.arange(new, device=device)[:, None] * old
    end_QP = torch.minimum(old_start_P + new, new_start_Q1 + old)
    return (end_QP - torch.maximum(old_start_P, new_start_Q1)).clamp_(min=0).float()


@dataclass(frozen=True)
class _ReducedBatch:
    """A batch with smaller images."""

    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    mask_B: Tensor
    occurrences_B: Tensor
    host_labels_B: Tensor


def reduced_batches(batches: Iterable[Batch], size_px: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches with their images on the device, reduced to a side; closing it closes `batches`."""
    iterator = iter(batches)
    try:
        for batch in iterator:
            images_BHWC = area_reduced(to_device(batch.images_BHWC, device), size_px)
            yield _ReducedBatch(
                images_BHWC,
                batch.labels_B,
                batch.indices_B,
                batch.mask_B,
                batch.occurrences_B,
                batch.host_labels_B,
            )
    finally:
        close_batches(iterator)
