"""Augmentations of pixel values: colour, blur, noise, cutout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from leukemia_data.augmenting.operation import AUGMENTATIONS, Chance, Draw, Draws, FloatArray, Range
from leukemia_data.errors import require
from leukemia_data.lazy_imports import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


GREY_WEIGHTS = (0.2989, 0.587, 0.114)
WEAK_FACTOR = 0.3
NOISE_STEP = 16
MIN_NOISE_VALUES = 1 << 22
# NTSC's Y, I and Q from R, G and B; the rows of I and Q sum to 0, so that greys have no colour.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB_OF_YIQ = np.linalg.inv(_YIQ)


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Color(Chance):
    """Change brightness, contrast and saturation by factors, and the hue by turns, all uniform in (low, high)."""

    name: ClassVar[str] = "color"
    value_limits: ClassVar[Mapping[str, Range]] = {
        **dict.fromkeys(("brightness", "contrast", "saturation"), (0, 10)),
        "hue": (-0.5, 0.5),
    }
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)

    def warnings(self) -> list[str]:
        """Return warnings about valid but probably unintended factors."""
        effects = (
            ("brightness", self.brightness, "almost black"),
            ("contrast", self.contrast, "almost one flat grey"),
            ("saturation", self.saturation, "almost without colour"),
        )
        return [
            f"{key} = [{low:g}, {high:g}] draws factors under {WEAK_FACTOR}, which leave images {effect}"
            for key, (low, high), effect in effects
            if low < WEAK_FACTOR
        ]


def draw_color(color: Color, draws: Draws) -> tuple[FloatArray, FloatArray]:
    """Return the change of colour as a matrix (B, 3, 3), and what contrast adds per mean grey level, (B, 3)."""
    happens = draws.happens(color, Draw.COLOR)
    limits = (color.brightness, color.contrast, color.saturation)
    order = (Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION)
    brightness, contrast, saturation = (
        np.where(happens, draws.within(pair, draw), 1) for pair, draw in zip(limits, order, strict=True)
    )
    hue = np.where(happens, draws.within(color.hue, Draw.HUE), 0)
    grey_33 = np.broadcast_to(np.array(GREY_WEIGHTS), (3, 3))
    saturate_B33 = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey_33
    mix_B33 = _hue_matrices(hue) @ saturate_B33
    added_B3 = mix_B33.sum(axis=2) * (brightness * (1 - contrast))[:, None]
    return mix_B33 * (brightness * contrast)[:, None, None], added_B3


def _hue_matrices(turns_B: FloatArray) -> FloatArray:
    """Rotations of the (I, Q) plane of YIQ, which keep luminance and greys: (B, 3, 3); red turns towards yellow."""
    angles_B = 2 * np.pi * turns_B
    turn_B33 = np.zeros((len(turns_B), 3, 3))
    turn_B33[:, 0, 0] = 1
    turn_B33[:, 1, 1] = turn_B33[:, 2, 2] = np.cos(angles_B)
    turn_B33[:, 1, 2] = np.sin(angles_B)
    turn_B33[:, 2, 1] = -turn_B33[:, 1, 2]
    return np.asarray(_RGB_OF_YIQ @ turn_B33 @ _YIQ)


def mean_grey(images_BCHW: Tensor, weights_C: Tensor) -> Tensor:
    """Return the mean grey level of each image: (B,)."""
    # Rows first: a sum over a whole image is split among threads, so that its rounding depends on their number.
    means_BC = images_BCHW.mean(dim=3).mean(dim=2)
    return (means_BC * weights_C).sum(dim=1)


def recolor(
    images_BCHW: Tensor,
    matrix_B33: Tensor,
    added_B3: Tensor | None,
    where_B1HW: Tensor | None,
    offset_C: Tensor,
    out_BCHW: Tensor,
) -> None:
    """Write ``matrix @ pixel + added * where + offset`` into `out_BCHW`, one matrix and one added colour per sample.

    Parameters
    ----------
    images_BCHW, out_BCHW : Tensor of shape (B, 3, S, S), float
    matrix_B33 : Tensor of shape (B, 3, 3)
    added_B3 : Tensor of shape (B, 3)
        None for nothing.
    where_B1HW : Tensor of shape (B, 1, S, S)
        Fraction of `added_B3` that each pixel gets; None for all of it.
    """
    if added_B3 is None:
        out_BCHW.copy_(offset_C[:, None, None].expand_as(out_BCHW))
    elif where_B1HW is None:
        out_BCHW.copy_((added_B3 + offset_C)[:, :, None, None].expand_as(out_BCHW))
    else:
        torch.addcmul(offset_C[:, None, None], where_B1HW, added_B3[:, :, None, None], out=out_BCHW)
    # A matrix product's order of summation, and so a sample's values, may depend on the rest of the batch.
    for row, out_BHW in enumerate(out_BCHW.unbind(1)):
        for column, channel_BHW in enumerate(images_BCHW.unbind(1)):
            out_BHW.addcmul_(channel_BHW, matrix_B33[:, row, column, None, None])


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Blur(Chance):
    """Gaussian blur with an odd kernel and a sigma uniform in (low, high), both in pixels."""

    name: ClassVar[str] = "blur"
    value_limits: ClassVar[Mapping[str, Range]] = {"sigma_px": (0.05, 50)}
    kernel_px: int
    sigma_px: Range

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        is_odd = self.kernel_px % 2 == 1
        require(is_odd and 3 <= self.kernel_px <= 63, f"kernel_px must be odd and in 3..63, got {self.kernel_px}")


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Chance):
    """Add independent Gaussian noise to every value; ``variance`` is in grey levels squared."""

    name: ClassVar[str] = "noise"
    value_limits: ClassVar[Mapping[str, Range]] = {"variance": (0, 65025)}
    variance: float


def draw_blur_weights(blur: Blur, draws: Draws) -> FloatArray:
    """Return Gaussian weights (B, kernel_px) that sum to 1."""
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
    """Return standard normal numbers, of which every sample reads a window."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(num_noise_values(size_px), np.float32)


def draw_noise(noise: Noise, draws: Draws, size_px: int) -> tuple[FloatArray, FloatArray]:
    """Return the signed level, and the offset in the noise bank, a multiple of NOISE_STEP."""
    sign = 1 - 2 * draws.below(2, Draw.NOISE_SIGN)
    level = np.where(draws.happens(noise, Draw.NOISE), noise.variance**0.5 * sign, 0)
    num_starts = (num_noise_values(size_px) - 3 * size_px**2) // NOISE_STEP + 1
    return level, NOISE_STEP * draws.below(num_starts, Draw.NOISE_START)


def noise_windows(bank: Tensor, starts_B: Tensor, size_px: int) -> Tensor:
    """Return each sample's window of the noise bank, (B, 3, size_px, size_px); offsets are multiples of NOISE_STEP."""
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
        """Return the side of the square in an image of side `size_px`: rounded, at least one pixel."""
        return max(1, round(self.fraction * size_px))


def draw_cutout(cutout: Cutout, draws: Draws, size_px: int) -> FloatArray:
    """Return top row and left column of the square, (B, 2); outside the image for none."""
    num_places = size_px - cutout.side_px(size_px) + 1
    places = [draws.below(num_places, draw) for draw in (Draw.CUTOUT_TOP, Draw.CUTOUT_LEFT)]
    return np.where(draws.happens(cutout, Draw.CUTOUT)[:, None], np.stack(places, axis=1), size_px)


def outside_squares(corners_B2: Tensor, side_px: int, size_px: int) -> Tensor:
    """Return 0 inside each sample's square at the given top row and left column, else 1: (B, 1, size_px, size_px)."""
    places_S = torch.arange(size_px, device=corners_B2.device, dtype=corners_B2.dtype)
    distance_B2S = places_S - corners_B2[:, :, None]
    inside_B2S = ((distance_B2S >= 0) & (distance_B2S < side_px)).to(corners_B2.dtype)
    return 1 - inside_B2S[:, 0, None, :, None] * inside_B2S[:, 1, None, None, :]
