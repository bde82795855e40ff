"""Cutout: one black square in an image, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from leukemia_data.augmenting.chance import AUGMENTATIONS, Chance
from leukemia_data.augmenting.draws import Draw, Draws, FloatArray
from leukemia_data.errors import require
from leukemia_data.libraries import torch

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout(Chance):
    """Fill one square, anywhere inside the image, with black; its side is ``fraction`` of the image's."""

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
    """0 inside each sample's square of side `side_px` with the given top row and left column, 1 elsewhere.

    Returns
    -------
    Tensor of shape (B, 1, size_px, size_px), the dtype of `corners_B2`
    """
    places_S = torch.arange(size_px, device=corners_B2.device, dtype=corners_B2.dtype)
    distance_B2S = places_S - corners_B2[:, :, None]
    inside_B2S = ((distance_B2S >= 0) & (distance_B2S < side_px)).to(corners_B2.dtype)
    return 1 - inside_B2S[:, 0, None, :, None] * inside_B2S[:, 1, None, None, :]
