"""Brightness, contrast, saturation and hue: one colour matrix per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from leukemia_data.augmenting.chance import AUGMENTATIONS, Chance, Range, require_range
from leukemia_data.augmenting.draws import Draw, Draws, FloatArray
from leukemia_data.libraries import torch

if TYPE_CHECKING:
    from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
WEAK_FACTOR = 0.3
# NTSC's Y, I and Q from R, G and B; the rows of I and Q sum to 0, so that greys have no colour.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB_OF_YIQ = np.linalg.inv(_YIQ)


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Color(Chance):
    """Change brightness, contrast, saturation and hue, in this order.

    The first three are factors uniform in (low, high), 1 for no change. ``hue`` is a rotation in turns, uniform in
    (low, high).
    """

    name: ClassVar[str] = "color"
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        require_range("brightness", self.brightness, 0, 10)
        require_range("contrast", self.contrast, 0, 10)
        require_range("saturation", self.saturation, 0, 10)
        require_range("hue", self.hue, -0.5, 0.5)

    def warnings(self) -> list[str]:
        """Return warnings about valid but probably unintended factors."""
        effects = {
            "brightness": "almost black",
            "contrast": "almost one flat grey",
            "saturation": "almost without colour",
        }
        ranges = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        return [
            f"{key} = [{low:g}, {high:g}] draws factors under {WEAK_FACTOR}, which leave images {effects[key]}"
            for key, (low, high) in ranges.items()
            if low < WEAK_FACTOR
        ]


def draw_color(color: Color, draws: Draws) -> tuple[FloatArray, FloatArray]:
    """Return brightness, contrast, saturation and hue as a matrix (B, 3, 3), and the value added per mean grey.

    Contrast blends with the image's mean grey level, which is known only on the device: that part stays a factor.
    """
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
    return mix_B33 * (brightness * contrast)[:, None, None], mix_B33.sum(axis=2) * (brightness * (1 - contrast))[
        :, None
    ]


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
    """Mean grey level of each image: (B,)."""
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
        The result is on the scale of the network, if matrix, added and offset lead to it.
    matrix_B33 : Tensor of shape (B, 3, 3)
    added_B3 : Tensor of shape (B, 3)
        None for nothing.
    where_B1HW : Tensor of shape (B, 1, S, S)
        Fraction of `added_B3` that each pixel gets; None for all of it.

    Notes
    -----
    Uses sums of products instead of a matrix product, whose order of summation may depend on the batch size: a sample's
    values must not depend on the rest of the batch.
    """
    if added_B3 is None:
        out_BCHW.copy_(offset_C[:, None, None].expand_as(out_BCHW))
    elif where_B1HW is None:
        out_BCHW.copy_((added_B3 + offset_C)[:, :, None, None].expand_as(out_BCHW))
    else:
        torch.addcmul(offset_C[:, None, None], where_B1HW, added_B3[:, :, None, None], out=out_BCHW)
    for row, out_BHW in enumerate(out_BCHW.unbind(1)):
        for column, channel_BHW in enumerate(images_BCHW.unbind(1)):
            out_BHW.addcmul_(channel_BHW, matrix_B33[:, row, column, None, None])
