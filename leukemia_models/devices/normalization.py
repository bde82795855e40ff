"""Batches of images, and what makes them a network's input on the device: normalisation, reduction to smaller sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_numbers
from leukemia_data.streams.batch import Batch as SampleBatch
from leukemia_data.streams.batch import to_device

Floats = npt.NDArray[np.float64]
GREY_LEVELS = 255.0
MIN_STD = 0.02
MAX_ABS_MEAN_AFTER = 0.5
STD_RANGE_AFTER = (0.5, 2.0)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per colour channel.

    Parameters
    ----------
    mean, std : tuple of three floats
        R, G, B, for pixel values on the scale [0, 1].

    Raises
    ------
    UsageError
        Unless each is three finite numbers, and each std above 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise UsageError(f"{name} must be three finite numbers (R, G, B), got {values}")
        if min(self.std) <= 0:
            raise UsageError(f"std must be above 0 in every channel, got {self.std}")

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float]) -> Normalization:
        """Return the normalisation for sequences of numbers, such as lists or arrays."""
        return cls(_triple("mean", mean), _triple("std", std))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the fields as JSON values."""
        return {"mean": list(self.mean), "std": list(self.std)}


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""With which torchvision's and most of timm's weights were trained."""


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    numbers = as_numbers(values, name)
    if numbers.shape != (3,):
        raise UsageError(f"{name} must be three numbers (R, G, B), got {numbers.size}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


class Normalizer:
    """Computes `(x / 255 - mean) / std` on one device, as one multiplication and addition per value.

    Parameters
    ----------
    normalization : Normalization
    device : torch.device
        Device of the batches.
    channels_last : bool
        Memory format of the result. True keeps the memory order of the input, False makes a copy.
    """

    def __init__(self, normalization: Normalization, device: torch.device, *, channels_last: bool = True) -> None:
        self._channels_last = channels_last
        mean = torch.tensor(normalization.mean, dtype=torch.float64)
        std = torch.tensor(normalization.std, dtype=torch.float64)
        self._scale_C = (1 / (GREY_LEVELS * std)).to(device, torch.float32)
        self._offset_C = (-mean / std).to(device, torch.float32)

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        """Return float32 (B,3,H,W) from uint8 or float (B,H,W,3) in [0, 255], which is not modified."""
        batch, height_px, width_px, channels = images_BHWC.shape
        # Whole pixel rows as the inner axis: vector loops run over 192 and more values instead of 3.
        rows = images_BHWC.reshape(batch * height_px, width_px * channels).to(torch.float32, copy=True)
        torch.addcmul(self._offset_C.repeat(width_px), rows, self._scale_C.repeat(width_px), out=rows)
        images_BCHW = rows.view(batch, height_px, width_px, channels).permute(0, 3, 1, 2)
        return images_BCHW if self._channels_last else images_BCHW.contiguous()


def check_normalization(normalization: Normalization, sample_images_NHWC: npt.NDArray[np.uint8]) -> None:
    """Check that a normalisation brings every channel near mean 0 and std 1.

    Parameters
    ----------
    normalization : Normalization
    sample_images_NHWC : uint8 array (N,H,W,3)
        A few hundred images of the training split, before augmentation.

    Raises
    ------
    UsageError
        If a std is below 0.02, or a channel's mean after it is 0.5 or more from 0, or its std outside (0.5, 2); with
        the likely cause.
    """
    if sample_images_NHWC.dtype != np.uint8:
        raise UsageError(f"normalisation needs sample images of uint8, got {sample_images_NHWC.dtype}")
    if sample_images_NHWC.ndim != 4 or sample_images_NHWC.shape[-1] != 3 or not sample_images_NHWC.size:
        raise UsageError(f"normalisation needs sample images (N,H,W,3), got shape {sample_images_NHWC.shape}")
    true_mean, true_std = _moments(sample_images_NHWC)
    finding = _finding(np.asarray(normalization.mean), np.asarray(normalization.std), true_mean, true_std)
    if finding:
        cause = f"{_likely_cause(normalization, true_mean, true_std)}; `ldata stats` prints the true ones"
        raise UsageError(f"normalisation does not fit the training images: {finding}; {cause}")


def _moments(images_NHWC: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return mean and std per channel on the scale [0, 1], from histograms: no float copy of the images."""
    levels = np.arange(256, dtype=np.float64) / GREY_LEVELS
    counts = np.stack([np.bincount(images_NHWC[..., c].ravel(), minlength=256) for c in range(3)])
    fractions = counts / counts.sum(axis=1, keepdims=True)
    mean = fractions @ levels
    return mean, np.sqrt(np.maximum(fractions @ levels**2 - mean**2, 0))


def _finding(mean: Floats, std: Floats, true_mean: Floats, true_std: Floats) -> str:
    """Return what is wrong, or an empty string."""
    if std.min() < MIN_STD:
        return f"a std of {std.min():.5f} is below {MIN_STD}, which no image set on the scale [0, 1] has"
    mean_after, std_after = (true_mean - mean) / std, true_std / std
    low, high = STD_RANGE_AFTER
    for channel, left, spread in zip("RGB", mean_after, std_after, strict=True):
        if abs(left) >= MAX_ABS_MEAN_AFTER or not low < spread < high:
            return f"channel {channel} has mean {left:.2f} and std {spread:.2f} after it (expected about 0 and 1)"
    return ""


def _likely_cause(normalization: Normalization, true_mean: Floats, true_std: Floats) -> str:
    given = np.asarray(normalization.mean + normalization.std)
    if np.allclose(given, (0.485, 0.456, 0.406, 0.229, 0.224, 0.225), atol=5e-3):
        return "these are ImageNet's numbers, and these cells are on a black background"
    true = np.concatenate([true_mean, true_std])
    factor = float(np.nanmedian(true / np.where(given > 0, given, np.nan)))
    if factor >= 8:
        # The sum of the means of batches, divided by the number of images, is too small by the batch size.
        return f"these look like per-batch sums divided by the image count: about {factor:.0f} times too small"
    if 0 < factor < 1 / 100:
        return "these look like grey levels from 0 to 255, and must be on the scale from 0 to 1"
    return "these look like the numbers of other images or of another recipe"


class Batch(Protocol):
    """A micro-batch of one rank."""

    @property
    def images_BHWC(self) -> Tensor:
        """Grey levels, uint8 (B,S,S,3), RGB; on any device."""

    @property
    def labels_B(self) -> Tensor:
        """Class indices, int64 (B,); -1 where unknown; on any device."""

    @property
    def indices_B(self) -> Tensor:
        """Indices of the samples in their cache, int64 (B,), on the CPU."""

    @property
    def mask_B(self) -> Tensor:
        """False for padding rows; bool (B,), on the CPU."""

    @property
    def occurrences_B(self) -> Tensor:
        """Numbers that differ between the draws of a sample in an epoch, int64 (B,), on the CPU."""

    @property
    def host_labels_B(self) -> Tensor:
        """`labels_B` on the CPU, where they are read without waiting for a device."""


class BatchSource(Protocol):
    """A split as batches, ``TrainSettings.accumulate`` of them for each step; of the same length on every rank."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterable[Batch]:
        """Return the batches of an epoch, counted from 1, after its first `first_step` steps.

        The order depends on the epoch alone.
        """

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""


def unmasked(values: Tensor, mask_B: Tensor) -> Tensor:
    """Return the rows of a batch's tensor, on any device, for which its mask is True, without waiting for the device.

    Which rows these are is computed on the CPU. Padding at the end, as streams have it, costs no copy.
    """
    rows_N = np.flatnonzero(mask_B.numpy())
    if not len(rows_N) or rows_N[-1] == len(rows_N) - 1:
        return values[: len(rows_N)]
    index_N = torch.from_numpy(rows_N)
    # A copy from other memory would wait.
    index_N = index_N.pin_memory() if values.device.type == "cuda" else index_N
    return values.index_select(0, to_device(index_N, values.device))


def close_batches(batches: Iterator[Batch]) -> None:
    """Close an iterator over batches, such as a generator, if it can be closed."""
    close = getattr(batches, "close", None)
    if close is not None:
        close()


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


def reduced_batches(batches: Iterable[Batch], size_px: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches with their images on the device, reduced to a side; closing it closes `batches`."""
    iterator = iter(batches)
    try:
        for batch in iterator:
            images_BHWC = area_reduced(to_device(batch.images_BHWC, device), size_px)
            yield SampleBatch(
                images_BHWC,
                batch.labels_B,
                batch.indices_B,
                batch.mask_B,
                batch.occurrences_B,
                batch.host_labels_B,
            )
    finally:
        close_batches(iterator)
