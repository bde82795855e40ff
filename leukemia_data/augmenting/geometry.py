"""Flips, rotation, scale and shift: one affine map per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from leukemia_data.augmenting.operation import AUGMENTATIONS, Chance, Draw, Draws, FloatArray, Range
from leukemia_data.lazy_imports import cv2, torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FLIP_X, _FLIP_Y, _SWAP = np.diag([-1.0, 1.0]), np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
# OpenCV's, by the signs of x and y.
_FLIP_CODES = {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}
_QUARTERS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.float64)


for _name in ("flip_horizontal", "flip_vertical", "transpose", "quarter_turns"):
    AUGMENTATIONS.register(Chance, name=_name)


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate(Chance):
    """Rotate about the centre by an angle uniform in -degrees..degrees, positive counter-clockwise, black border."""

    name: ClassVar[str] = "rotate"
    value_limits: ClassVar[Mapping[str, Range]] = {"degrees": (0, 180)}
    degrees: float


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Chance):
    """Scale about the centre by a factor uniform in (low, high); factors below 1 leave a black border."""

    name: ClassVar[str] = "scale"
    value_limits: ClassVar[Mapping[str, Range]] = {"factor": (0.1, 10)}
    factor: Range


@AUGMENTATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Translate(Chance):
    """Shift along each axis by a distance uniform in -fraction..fraction of the side, black border."""

    name: ClassVar[str] = "translate"
    value_limits: ClassVar[Mapping[str, Range]] = {"fraction": (0, 1)}
    fraction: float


def _draw_moves(moving: Sequence[Chance | None], draws: Draws) -> FloatArray:
    """Flips, transpose and quarter turns in this order, from output to input coordinates: (B, 2, 2)."""
    identity = np.eye(2)
    order = (Draw.FLIP_HORIZONTAL, Draw.FLIP_VERTICAL, Draw.TRANSPOSE, Draw.QUARTER_TURNS)
    flips_x, flips_y, swaps, turns = (draws.happens(move, draw) for move, draw in zip(moving, order, strict=True))
    num_quarters = np.where(turns, 1 + draws.below(3, Draw.NUM_QUARTERS), 0).astype(np.int64)
    moves_B22 = np.where(flips_x[:, None, None], _FLIP_X, identity)
    for happens, matrix_22 in ((flips_y, _FLIP_Y), (swaps, _SWAP)):
        moves_B22 = moves_B22 @ np.where(happens[:, None, None], matrix_22, identity)
    return moves_B22 @ _QUARTERS[num_quarters]


def draw_affine(
    moving: Sequence[Chance | None],
    rotate: Rotate | None,
    scale: Scale | None,
    translate: Translate | None,
    draws: Draws,
) -> FloatArray:
    """Return moves, rotation, scale and shift in this order as one matrix (B, 2, 3) from output to input coordinates.

    The moves are horizontal flip, vertical flip, transpose and quarter turns.
    """
    moves_B22 = _draw_moves(moving, draws)
    angles_B, factors_B, shifts_B2 = np.zeros(len(draws)), np.ones(len(draws)), np.zeros((len(draws), 2))
    if rotate is not None:
        limit = rotate.degrees
        happens = draws.happens(rotate, Draw.ROTATE)
        angles_B = np.where(happens, np.radians(draws.within((-limit, limit), Draw.ANGLE)), 0)
    if scale is not None:
        happens = draws.happens(scale, Draw.SCALE)
        factors_B = np.where(happens, draws.within(scale.factor, Draw.FACTOR), 1)
    if translate is not None:
        # A side is two half sides.
        limit = 2 * translate.fraction
        shifts = [draws.within((-limit, limit), draw) for draw in (Draw.SHIFT_X, Draw.SHIFT_Y)]
        shifts_B2 = np.stack(shifts, axis=1) * draws.happens(translate, Draw.TRANSLATE)[:, None]
    cosines, sines = np.cos(angles_B) / factors_B, np.sin(angles_B) / factors_B
    linear_B22 = moves_B22 @ np.array([[cosines, -sines], [sines, cosines]]).transpose(2, 0, 1)
    return np.concatenate([linear_B22, -linear_B22 @ shifts_B2[:, :, None]], axis=2)


def warp(images_BCHW: Tensor, affine_B23: Tensor, mode: str = "bilinear") -> Tensor:
    """Warp images by one affine map per sample, with black outside the image.

    Parameters
    ----------
    images_BCHW : Tensor of shape (B, C, S, S), float
    affine_B23 : Tensor of shape (B, 2, 3)
        From output to input coordinates, as (x, y) from the centre in half sides.
    mode
        "bilinear", or "nearest", which is exact for flips, transposes and quarter turns.

    Returns
    -------
    Tensor of shape (B, C, S, S)

    Notes
    -----
    ``grid_sample`` with ``align_corners=False``, as in torchvision's ``affine`` and ``rotate``.
    """
    size_px = images_BCHW.shape[-1]
    centres_S = torch.arange(size_px, device=images_BCHW.device, dtype=images_BCHW.dtype)
    centres_S = (2 * centres_S + (1 - size_px)) / size_px
    along_x = affine_B23[:, :, 0, None, None] * centres_S
    # The sum of a row and a column is fifty times cheaper than affine_grid.
    along_y = affine_B23[:, :, 1, None] * centres_S + affine_B23[:, :, 2, None]
    grid_BHW2 = (along_x + along_y[..., None]).permute(0, 2, 3, 1)
    return torch.nn.functional.grid_sample(images_BCHW, grid_BHW2, mode=mode, padding_mode="zeros", align_corners=False)


def move_pixels(images_BHWC: NDArray[np.uint8], moves_B22: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return images flipped, transposed and turned by quarters: :func:`warp` for whole pixels, on the CPU.

    Parameters
    ----------
    images_BHWC : ndarray of shape (B, S, S, 3), uint8
    moves_B22 : ndarray of shape (B, 2, 2)
        From output to input coordinates (x, y): one entry of 1 or -1 in every row and column, else 0.
    """
    moved_BHWC = np.empty(images_BHWC.shape, np.uint8)
    is_swapped_B, signs_B2 = moves_B22[:, 0, 0] == 0, moves_B22.sum(axis=1).astype(np.int64)
    for image, moved, is_swapped, signs in zip(
        images_BHWC, moved_BHWC, is_swapped_B.tolist(), map(tuple, signs_B2.tolist()), strict=True
    ):
        if is_swapped:
            image = cv2.transpose(image, dst=moved)
        if signs != (1, 1):
            cv2.flip(image, _FLIP_CODES[signs], dst=moved)
        elif not is_swapped:
            np.copyto(moved, image)
    return moved_BHWC
