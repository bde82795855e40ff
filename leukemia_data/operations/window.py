"""Windows of a square: the part of the input that a step needs for a part of its output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from leukemia_data.operations.operation import (
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

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open rectangle [top, bottom) x [left, right) in pixels of the frame it lies in."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def full(cls, side_px: int) -> Window:
        """The whole of a square frame."""
        return cls(0, 0, side_px, side_px)

    @classmethod
    def central(cls, side_px: int, crop_px: int) -> Window:
        """The central square of `crop_px` in a frame of `side_px`; an odd remainder goes below and right."""
        offset = (side_px - crop_px) // 2
        return cls(offset, offset, offset + crop_px, offset + crop_px)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def grown(self, margin_px: int, side_px: int) -> Window:
        """Wider by a margin on each side, but not beyond a frame of `side_px`."""
        return Window(
            max(self.top - margin_px, 0),
            max(self.left - margin_px, 0),
            min(self.bottom + margin_px, side_px),
            min(self.right + margin_px, side_px),
        )

    def shifted(self, offset_px: int) -> Window:
        """Moved down and right by the same number of pixels."""
        return Window(self.top + offset_px, self.left + offset_px, self.bottom + offset_px, self.right + offset_px)

    def union(self, other: Window) -> Window:
        """Smallest window that holds both."""
        return Window(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def cut(self, pixels: NDArray[Scalar], held: Window) -> NDArray[Scalar]:
        """View of this window in `pixels`, which hold the window `held` of the same frame.

        Raises
        ------
        ValueError
            If `held` does not contain this window.
        """
        if held.union(self) != held:
            raise ValueError(f"{self} lies outside {held}")
        return pixels[self.top - held.top : self.bottom - held.top, self.left - held.left : self.right - held.left]


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
