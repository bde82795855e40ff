"""Which part of its input each step of a recipe needs for a part of its output."""

from __future__ import annotations

import math

from leukemia_data.pixels.window import Window
from leukemia_data.recipes.operations import (
    CenterCrop,
    Equalization,
    Framing,
    Gabor,
    Gray,
    GrayWorld,
    HighPass,
    MeanFilter,
    Operation,
    Resize,
    StainMacenko,
    StainReinhard,
    Unsharp,
)


def needed_window(step: Operation, produced: Window, side_px: int, next_side_px: int) -> Window:
    """Which part of a step's input decides the part `produced` of its output.

    Parameters
    ----------
    produced
        Window in the square that the step leaves.
    side_px, next_side_px
        Sides of the squares before and after the step.
    """
    if isinstance(step, Framing):
        return Window.full(side_px)
    match step:
        case Equalization(tiles=tiles):
            return _tiles_around(produced, side_px, tiles)
        case Unsharp(radius_px=radius_px):
            return produced.grown(radius_px, side_px)
        case MeanFilter(size_px=size_px) | HighPass(size_px=size_px) | Gabor(size_px=size_px):
            return produced.grown(size_px // 2, side_px)
        case Gray():
            return produced
        case CenterCrop():
            return produced.shifted((side_px - next_side_px) // 2)
        case GrayWorld() | StainMacenko() | StainReinhard() | Resize():
            return Window.full(side_px)


def tile_grid(needed: Window, side_px: int, tiles: int) -> tuple[int, int]:
    """Number of tiles (vertically, horizontally) in the window; the tile's size stays that of the whole frame."""
    if needed == Window.full(side_px):
        return tiles, tiles
    tile_px = side_px // tiles
    return needed.height // tile_px, needed.width // tile_px


def _tiles_around(produced: Window, side_px: int, tiles: int) -> Window:
    """Whole tiles whose look-up tables are blended into `produced`.

    OpenCV blends, for row y, the tables of tiles floor(y / tile - 0.5) and the one after it.
    """
    if side_px % tiles != 0:
        return Window.full(side_px)
    tile_px = side_px // tiles

    def span(first: int, end: int) -> tuple[int, int]:
        first_tile = max(math.floor(first / tile_px - 0.5), 0)
        last_tile = min(math.floor((end - 1) / tile_px - 0.5) + 1, tiles - 1)
        return first_tile * tile_px, (last_tile + 1) * tile_px

    top, bottom = span(produced.top, produced.bottom)
    left, right = span(produced.left, produced.right)
    return Window(top, left, bottom, right)
