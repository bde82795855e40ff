"""Blur, noise and cutout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from leukemia_data.augmenting.chance import AUGMENTATIONS, Chance, Range, require_range
from leukemia_data.augmenting.draws import Draw, Draws, FloatArray
from leukemia_data.errors import require
from leukemia_data.libraries import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


NOISE_STEP = 16
MIN_NOISE_VALUES = 1 << 22


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Blur(Chance):
    """Gaussian blur with an odd kernel and a sigma uniform in (low, high), both in pixels."""

    name: ClassVar[str] = "blur"
    kernel_px: int
    sigma_px: Range

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        is_odd = self.kernel_px % 2 == 1
        require(is_odd and 3 <= self.kernel_px <= 63, f"kernel_px must be odd and in 3..63, got {self.kernel_px}")
        require_range("sigma_px", self.sigma_px, 0.05, 50)


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Chance):
    """Add independent Gaussian noise to every value; ``variance`` is that of grey levels 0..255."""

    name: ClassVar[str] = "noise"
    variance: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        require(
            0 <= self.variance <= 65025, f"variance must lie in 0..65025 (grey levels squared), got {self.variance}"
        )


def draw_blur_weights(blur: Blur, draws: Draws) -> FloatArray:
    """Gaussian weights (B, kernel_px) that sum to 1."""
    happens = draws.happens(blur, Draw.BLUR)[:, None]
    offsets = np.arange(blur.kernel_px) - blur.kernel_px // 2
    weights = np.exp(-0.5 * (offsets / draws.within(blur.sigma_px, Draw.SIGMA)[:, None]) ** 2)
    return np.asarray(np.where(happens, weights / weights.sum(axis=1, keepdims=True), offsets == 0))


def blur(images_BCHW: Tensor, weights_BK: Tensor) -> Tensor:
    """Filter rows and columns with one symmetric kernel per sample; borders are reflected, as in torchvision.

    Parameters
    ----------
    images_BCHW : Tensor of shape (B, C, S, S), float
        S must be more than half of K.
    weights_BK : Tensor of shape (B, K), K odd
    """
    num_weights = weights_BK.shape[1]
    radius = num_weights // 2
    weights_KB111 = weights_BK.T[:, :, None, None, None].unbind(0)
    for axis, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        length = images_BCHW.shape[axis]
        padded = torch.nn.functional.pad(images_BCHW, padding, mode="reflect")
        images_BCHW = padded.narrow(axis, 0, length) * weights_KB111[0]
        for place in range(1, num_weights):
            images_BCHW.addcmul_(padded.narrow(axis, place, length), weights_KB111[place])
    return images_BCHW


def num_noise_values(size_px: int) -> int:
    """Return the size of the noise bank for images of this side."""
    return max(MIN_NOISE_VALUES, -(-2 * 3 * size_px**2 // NOISE_STEP) * NOISE_STEP)


def make_noise_bank(seed: int, size_px: int) -> NDArray[np.float32]:
    """Return standard normal numbers, of which every sample reads a window; a function of the arguments."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(num_noise_values(size_px), np.float32)


def draw_noise(noise: Noise, draws: Draws, size_px: int) -> tuple[FloatArray, FloatArray]:
    """Return the signed level, and the offset in the noise bank, a multiple of NOISE_STEP."""
    sign = 1 - 2 * draws.below(2, Draw.NOISE_SIGN)
    level = np.where(draws.happens(noise, Draw.NOISE), noise.variance**0.5 * sign, 0)
    num_starts = (num_noise_values(size_px) - 3 * size_px**2) // NOISE_STEP + 1
    return level, NOISE_STEP * draws.below(num_starts, Draw.NOISE_START)


def noise_windows(bank: Tensor, starts_B: Tensor, size_px: int) -> Tensor:
    """Return each sample's window of the noise bank; offsets are multiples of NOISE_STEP.

    Returns
    -------
    Tensor of shape (B, 3, size_px, size_px)
    """
    num_values = 3 * size_px**2
    num_rows = -(-num_values // NOISE_STEP)
    first_rows_B = (starts_B / NOISE_STEP).to(torch.int64)
    rows_BR = first_rows_B[:, None] + torch.arange(num_rows, device=bank.device)
    values = bank.view(-1, NOISE_STEP).index_select(0, rows_BR.flatten())
    return values.view(len(starts_B), -1)[:, :num_values].view(-1, 3, size_px, size_px)


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout(Chance):
    """Fill one square inside the image with black; its side is ``fraction`` of the image's."""

    name: ClassVar[str] = "cutout"
    fraction: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        require(0 < self.fraction <= 1, f"fraction must lie in (0, 1], got {self.fraction}")

    def side_px(self, size_px: int) -> int:
        """Side of the square in an image of side `size_px`: rounded, at least one pixel."""
        return max(1, round(self.fraction * size_px))


def draw_cutout(cutout: Cutout, draws: Draws, size_px: int) -> FloatArray:
    """Top and left of the square (B, 2)."""
    num_places = size_px - cutout.side_px(size_px) + 1
    places = [draws.below(num_places, draw) for draw in (Draw.CUTOUT_TOP, Draw.CUTOUT_LEFT)]
    return np.where(draws.happens(cutout, Draw.CUTOUT)[:, None], np.stack(places, axis=1), size_px)


def outside_squares(corners_B2: Tensor, side_px: int, size_px: int) -> Tensor:
    """Return 0 inside each sample's square of side `side_px` at the given top row and left column, 1 elsewhere.

    Returns
    -------
    Tensor of shape (B, 1, size_px, size_px), the dtype of `corners_B2`
    """
    places_S = torch.arange(size_px, device=corners_B2.device, dtype=corners_B2.dtype)
    distance_B2S = places_S - corners_B2[:, :, None]
    inside_B2S = ((distance_B2S >= 0) & (distance_B2S < side_px)).to(corners_B2.dtype)
    return 1 - inside_B2S[:, 0, None, :, None] * inside_B2S[:, 1, None, None, :]
