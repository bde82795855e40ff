"""Contrast-limited adaptive histogram equalisation (CLAHE): of the channels, or of the lightness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from leukemia_data.errors import require
from leukemia_data.lazy_imports import cv2, np
from leukemia_data.operations.colour import cell_mask
from leukemia_data.operations.operation import OPERATIONS, Extent, Image, Operation, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization(Operation):
    """Base class of the CLAHE operations, with OpenCV's parameters.

    ``clip_limit`` is a multiple of the mean bin height, ``tiles`` the number of tiles along each side.
    """

    label: ClassVar[str] = "CLAHE of L {clip_limit:g}, {tiles}x{tiles}"
    clip_limit: float = 3.0
    tiles: int = 9

    def __post_init__(self) -> None:
        require(0 < self.clip_limit <= 256, f"{self.op}: clip_limit must lie in (0, 256], got {self.clip_limit}")
        require(1 <= self.tiles <= 64, f"{self.op}: tiles must lie in 1..64, got {self.tiles}")

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        # Every tile has a side of more than one pixel.
        require(side_px >= 2 * self.tiles, f"{self.op}: {self.tiles} tiles need more than {side_px} px")
        return side_px

    def needed(self, produced: Window, side_px: int, next_side_px: int) -> Window:
        """See :meth:`Operation.needed`."""
        return _tiles_around(produced, side_px, self.tiles)

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """See :meth:`Operation.apply`."""
        grid = tile_grid(extent.needed, extent.side_px, self.tiles)
        return extent.produced.cut(self.equalize(image_HWC, grid), extent.needed)

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """Return the equalized image, which consists of `tiles` (vertically, horizontally)."""
        raise NotImplementedError

    def _clahe(self, tiles: tuple[int, int]) -> cv2.CLAHE:
        return cv2.createCLAHE(self.clip_limit, (tiles[1], tiles[0]))


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Clahe(Equalization):
    """CLAHE of each colour channel separately.

    Notes
    -----
    Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV (1994), OpenCV's implementation.
    Equalising channels separately, as the first report did, shifts hue and raises a black background by a few levels.
    """

    op: ClassVar[str] = "clahe"
    label: ClassVar[str] = "CLAHE {clip_limit:g}, {tiles}x{tiles}"

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        clahe = self._clahe(tiles)
        return np.asarray(cv2.merge([clahe.apply(cv2.extractChannel(image_HWC, c)) for c in range(3)]), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLightness(Equalization):
    """CLAHE of the lightness (L of CIE L*a*b*) of all pixels, black ones among them.

    Notes
    -----
    The round trip through OpenCV's 8-bit L*a*b* changes cells of C-NMC by 0.4 grey levels in the mean.
    """

    op: ClassVar[str] = "clahe_lightness"

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        lab_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2Lab)
        cv2.insertChannel(self._clahe(tiles).apply(cv2.extractChannel(lab_HWC, 0)), lab_HWC, 0)
        return np.asarray(cv2.cvtColor(lab_HWC, cv2.COLOR_Lab2RGB), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLab(ClaheLightness):
    """CLAHE of the lightness that leaves the black background, which counts in the histograms of its tiles."""

    op: ClassVar[str] = "clahe_lab"
    finds_the_cell: ClassVar[bool] = True
    keeps_the_background: ClassVar[bool] = True
    without_background: ClassVar[str | None] = "clahe_lightness"

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        equalized = ClaheLightness.equalize(self, image_HWC, tiles)
        return np.asarray(cv2.copyTo(equalized, cell_mask(image_HWC)), np.uint8)


def tile_grid(needed: Window, side_px: int, tiles: int) -> tuple[int, int]:
    """Return the number of tiles (vertically, horizontally) in the window, with the tile size of the whole frame."""
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
