"""Contrast-limited adaptive histogram equalisation (CLAHE): of the channels, or of the lightness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from leukemia_data.libraries import cv2, np
from leukemia_data.operations.checks import require_tile_room, require_tiles
from leukemia_data.operations.colour import cell_mask
from leukemia_data.operations.operation import OPERATIONS, Image, Operation
from leukemia_data.operations.window import Extent, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization(Operation):
    """What the forms of CLAHE have in common: tiles, and a limit of contrast (OpenCV's meaning of the numbers).

    ``clip_limit`` is a multiple of the mean bin height, ``tiles`` the number of tiles along each side.
    """

    op: ClassVar[str]
    clip_limit: float = 3.0
    tiles: int = 9

    def __post_init__(self) -> None:
        require_tiles(self.op, self.clip_limit, self.tiles)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        require_tile_room(self.op, self.tiles, side_px)
        return side_px

    def needed(self, produced: Window, side_px: int, next_side_px: int) -> Window:
        """See :meth:`Operation.needed`."""
        return _tiles_around(produced, side_px, self.tiles)

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """See :meth:`Operation.apply`."""
        grid = tile_grid(extent.needed, extent.side_px, self.tiles)
        return extent.produced.cut(self.equalize(image_HWC, grid), extent.needed)

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """CLAHE of whole tiles: how many the image holds (vertically, horizontally) is told by `tiles`."""
        raise NotImplementedError

    def title(self, side_px: int) -> str:
        """See :meth:`Operation.title`."""
        return f"CLAHE of L {self.clip_limit:g}, {self.tiles}x{self.tiles}"


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Clahe(Equalization):
    """Contrast-limited adaptive histogram equalisation of each colour channel."""

    op: ClassVar[str] = "clahe"
    version: ClassVar[int] = 1

    def title(self, side_px: int) -> str:
        """See :meth:`Operation.title`."""
        return f"CLAHE {self.clip_limit:g}, {self.tiles}x{self.tiles}"

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        return equalize_channels(image_HWC, self.clip_limit, tiles)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLab(Equalization):
    """CLAHE of the lightness alone (L of CIE L*a*b*); colour stays, and the black background stays black."""

    op: ClassVar[str] = "clahe_lab"
    version: ClassVar[int] = 1
    finds_the_cell: ClassVar[bool] = True
    keeps_the_background: ClassVar[bool] = True
    without_background: ClassVar[str | None] = "clahe_lightness"

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        return equalize_cell_lightness(image_HWC, self.clip_limit, tiles)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLightness(Equalization):
    """CLAHE of the lightness alone, of all pixels alike: no background is assumed, black is lifted like any level."""

    op: ClassVar[str] = "clahe_lightness"
    version: ClassVar[int] = 1

    def equalize(self, image_HWC: Image, tiles: tuple[int, int]) -> Image:
        """See :meth:`Equalization.equalize`."""
        return equalize_lightness(image_HWC, self.clip_limit, tiles)


def equalize_channels(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """Contrast-limited adaptive histogram equalisation of each channel on its own.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    clip_limit
        Multiple of the mean bin height at which a tile's histogram is cut (OpenCV's meaning).
    tiles
        Number of tiles (vertically, horizontally).

    Notes
    -----
    Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV (1994), as OpenCV does it.
    Equalising the three channels apart shifts hue and lifts an exact-zero background by a few grey levels; the
    first report did so, and the recipe keeps it.
    """
    clahe = cv2.createCLAHE(clip_limit, (tiles[1], tiles[0]))
    return np.asarray(cv2.merge([clahe.apply(cv2.extractChannel(image_HWC, c)) for c in range(3)]), np.uint8)


def equalize_lightness(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """Contrast-limited adaptive histogram equalisation of L in CIE L*a*b*, of all pixels.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    clip_limit, tiles
        As in :func:`equalize_channels`.

    Notes
    -----
    The one channel that is equalised carries no colour, so hue stays, but for what leaves the sRGB gamut. L, a and b
    are OpenCV's 8-bit ones: on cells of C-NMC the way there and back alone moves a pixel by 0.4 grey levels in the
    mean.
    """
    clahe = cv2.createCLAHE(clip_limit, (tiles[1], tiles[0]))
    lab_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2Lab)
    cv2.insertChannel(clahe.apply(cv2.extractChannel(lab_HWC, 0)), lab_HWC, 0)
    return np.asarray(cv2.cvtColor(lab_HWC, cv2.COLOR_Lab2RGB), np.uint8)


def equalize_cell_lightness(image_HWC: Image, clip_limit: float, tiles: tuple[int, int]) -> Image:
    """:func:`equalize_lightness` of a cell on an exactly black background; black pixels stay black.

    The background counts in the histograms of the tiles it lies in, as it does in the usual form.
    """
    equalized = equalize_lightness(image_HWC, clip_limit, tiles)
    return np.asarray(cv2.copyTo(equalized, cell_mask(image_HWC)), np.uint8)


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
