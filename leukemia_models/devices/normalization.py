"""What a network is given: sources of batches, normalised on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_numbers

GREY_LEVELS = 255.0
MIN_STD = 0.02
MAX_ABS_MEAN_AFTER = 0.5
STD_RANGE_AFTER = (0.5, 2.0)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per colour channel.

    Parameters
    ----------
    mean, std : tuple of three floats
        R, G, B, for pixel values on the scale [0, 1]; finite, std above 0.

    Raises
    ------
    UsageError
        If there are not three numbers, or one is not finite, or a std is not above 0.
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
        """Return the normalisation for any two sequences of numbers, as JSON or NumPy give them."""
        return cls(_triple("mean", mean), _triple("std", std))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the numbers as JSON can hold them."""
        return {"mean": list(self.mean), "std": list(self.std)}


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    numbers = as_numbers(values, name)
    if numbers.shape != (3,):
        raise UsageError(f"{name} must be three numbers (R, G, B), got {numbers.size}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


class Normalizer:
    """`(x / 255 - mean) / std` on one device, as one multiplication and addition per value.

    Parameters
    ----------
    normalization : Normalization
        Mean and std on the scale [0, 1].
    device : torch.device
        Where the batches are.
    channels_last : bool
        Memory format of the result. True costs nothing: the values lie in memory as they did in the input, only
        the axes are named in another order. False makes a copy.
    """

    def __init__(self, normalization: Normalization, device: torch.device, *, channels_last: bool = True) -> None:
        self._channels_last = channels_last
        mean = torch.tensor(normalization.mean, dtype=torch.float64)
        std = torch.tensor(normalization.std, dtype=torch.float64)
        self._scale_C = (1 / (GREY_LEVELS * std)).to(device, torch.float32)
        self._offset_C = (-mean / std).to(device, torch.float32)

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        """Return normalised images as the network takes them.

        Parameters
        ----------
        images_BHWC : tensor (B,H,W,3), uint8 or float
            Grey levels in [0, 255]; not modified.

        Returns
        -------
        tensor (B,3,H,W), float32
        """
        batch, height_px, width_px, channels = images_BHWC.shape
        # Whole pixel rows as the inner axis: 192 and more values a vector loop can run over, instead of 3.
        rows = images_BHWC.reshape(batch * height_px, width_px * channels).to(torch.float32, copy=True)
        torch.addcmul(self._offset_C.repeat(width_px), rows, self._scale_C.repeat(width_px), out=rows)
        images_BCHW = rows.view(batch, height_px, width_px, channels).permute(0, 3, 1, 2)
        return images_BCHW if self._channels_last else images_BCHW.contiguous()


def check_normalization(normalization: Normalization, sample_images_NHWC: npt.NDArray[np.uint8]) -> None:
    """Refuse normalisation numbers that do not normalise the training images.

    A right mean and std leave every channel of a sample of the training split near mean 0 and std 1. Refused are a
    std below 0.02, and numbers that leave a channel's mean at 0.5 or more from 0, or its std outside (0.5, 2).

    Parameters
    ----------
    normalization : Normalization
        The numbers to check.
    sample_images_NHWC : uint8 array (N,H,W,3)
        A few hundred images of the training split, before augmentation.

    Raises
    ------
    UsageError
        With what was found, and the likely cause.
    """
    if sample_images_NHWC.dtype != np.uint8:
        raise UsageError(f"normalisation needs sample images of uint8, got {sample_images_NHWC.dtype}")
    if sample_images_NHWC.ndim != 4 or sample_images_NHWC.shape[-1] != 3 or not sample_images_NHWC.size:
        raise UsageError(f"normalisation needs sample images (N,H,W,3), got shape {sample_images_NHWC.shape}")
    true_mean, true_std = _moments(sample_images_NHWC)
    finding = _finding(np.asarray(normalization.mean), np.asarray(normalization.std), true_mean, true_std)
    if finding:
        cause = _likely_cause(normalization, true_mean, true_std)
        raise UsageError(f"normalisation does not fit the training images: {finding}; {cause}")


def _moments(images_NHWC: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and std per channel on the scale [0, 1], from integer sums (no float copy of the images)."""
    levels = np.arange(256, dtype=np.float64) / GREY_LEVELS
    counts = np.stack([np.bincount(images_NHWC[..., c].ravel(), minlength=256) for c in range(3)])
    fractions = counts / counts.sum(axis=1, keepdims=True)
    mean = fractions @ levels
    return mean, np.sqrt(np.maximum(fractions @ levels**2 - mean**2, 0))


def _finding(
    mean: npt.NDArray[np.float64],
    std: npt.NDArray[np.float64],
    true_mean: npt.NDArray[np.float64],
    true_std: npt.NDArray[np.float64],
) -> str:
    """Return what is wrong with `mean` and `std`, or an empty string."""
    if std.min() < MIN_STD:
        return f"a std of {std.min():.5f} is below {MIN_STD}, which no image set on the scale [0, 1] has"
    mean_after, std_after = (true_mean - mean) / std, true_std / std
    low, high = STD_RANGE_AFTER
    for channel, name in enumerate("RGB"):
        left = f"channel {name} has mean {mean_after[channel]:.2f} and std {std_after[channel]:.2f} after it"
        if abs(mean_after[channel]) >= MAX_ABS_MEAN_AFTER or not low < std_after[channel] < high:
            return f"{left} (expected about 0 and 1)"
    return ""


def _likely_cause(
    normalization: Normalization, true_mean: npt.NDArray[np.float64], true_std: npt.NDArray[np.float64]
) -> str:
    cure = "`ldata stats` prints the true ones"
    given = np.asarray(normalization.mean + normalization.std)
    if np.allclose(given, IMAGENET_MEAN + IMAGENET_STD, atol=5e-3):
        return f"these are ImageNet's numbers, and these cells lie on black; {cure}"
    true = np.concatenate([true_mean, true_std])
    factor = float(np.nanmedian(true / np.where(given > 0, given, np.nan)))
    if factor >= 8:
        # A mean per batch, summed, divided by the number of images: too small by the batch size.
        return f"these look like per-batch sums divided by the image count: about {factor:.0f} times too small; {cure}"
    if 0 < factor < 1 / 100:
        return f"these look like grey levels from 0 to 255, and must be on the scale from 0 to 1; {cure}"
    return f"these look like the numbers of other images or of another recipe; {cure}"


class Batch(Protocol):
    """A micro-batch: with several ranks, this rank's rows of a batch, or a part of them."""

    @property
    def images_BHWC(self) -> Tensor:
        """Grey levels, uint8 (B,S,S,3), RGB; on any device."""
        ...

    @property
    def labels_B(self) -> Tensor:
        """Classes, int64 (B,); -1 where unknown; on any device."""
        ...

    @property
    def indices_B(self) -> Tensor:
        """Indices of the samples in their cache, int64 (B,), on the CPU."""
        ...

    @property
    def mask_B(self) -> Tensor:
        """False for padding rows, which count for nothing; bool (B,), on the CPU."""
        ...


class BatchSource(Protocol):
    """A split as a stream of batches. With several ranks, every rank's has the same length.

    Each step has ``TrainSettings.accumulate`` batches: the micro-batches of this rank.
    """

    def epoch(self, epoch: int, first_step: int = 0) -> Iterable[Batch]:
        """Return the batches of one epoch without those of its first `first_step` steps.

        Epochs count from 1; the order may depend on the epoch and nothing else.
        """
        ...

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        ...
