"""Operations that make a square of a frame (canvas, fit, crop to cell), and finding the cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, get_args

from leukemia_data.errors import require
from leukemia_data.lazy_imports import cv2, np
from leukemia_data.operations.operation import OPERATIONS, Draw, Framing, Image, Window, require_side
from leukemia_data.operations.resizing import Resampling, require_method, resample

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_SEARCHED_PX = 512
BLACK_LEVEL = 10
"""Highest level of black background: exact zeros, and their JPEG artefacts."""
MIN_CONTRAST = 24
"""Least difference, in grey levels, between the means of cell and background."""
MIN_PART = 0.1
MAX_GAP = 0.15
MIN_SHARE = 0.002
_RED = 0


class Box(NamedTuple):
    """Half-open rectangle in pixels of a frame; it may extend beyond the frame."""

    top: int
    left: int
    bottom: int
    right: int

    def square(self, margin: float) -> Box:
        """Return the square around it, with a margin on each side as a fraction of its longer side.

        The side is rounded up; odd remainders go below and right.
        """
        height, width = self.bottom - self.top, self.right - self.left
        side = math.ceil(max(height, width) * (1 + 2 * margin))
        top, left = self.top - (side - height) // 2, self.left - (side - width) // 2
        return Box(top, left, top + side, left + side)


def border_colour(frame_HWC: Image) -> tuple[int, int, int]:
    """Return the median of each channel over the first and last row and column, each pixel counted once.

    For an even number of pixels it is the mean of the two middle values, rounded down.
    """
    height, width = frame_HWC.shape[:2]
    rows = frame_HWC[:: max(height - 1, 1)]
    columns = frame_HWC[1:-1, :: max(width - 1, 1)]
    pixels_NC = np.concatenate([rows.reshape(-1, 3), columns.reshape(-1, 3)])
    red, green, blue = (int(value) for value in np.median(pixels_NC, axis=0))
    return red, green, blue


def find_cell(frame_HWC: Image) -> Box | None:
    """Return the bounding box of the cell.

    Parameters
    ----------
    frame_HWC : ndarray of shape (height, width, 3), uint8
        One segmented cell on black background, or a photograph with a stained cell near its centre.

    Returns
    -------
    Box or None
        None if no cell is found. Exact to the pixel in frames of at most 512 px, else to one pixel of the frame reduced
        to 512 px.

    Notes
    -----
    The background is black if the median of the frame's border is at most ``BLACK_LEVEL`` in all channels. The cell is
    then lighter in any channel. Otherwise the difference from the border's median in the red channel, which the stain
    of nuclei absorbs and haemoglobin hardly, is thresholded by Otsu's method ("A threshold selection method from
    gray-level histograms", 1979); if the means of both sides differ by less than ``MIN_CONTRAST``, there is no cell.

    The cell is the connected part with the largest area, weighted by a Gaussian of the distance of its centre from the
    frame's (standard deviation: a quarter of the frame's diagonal). Other parts (lobes of a nucleus) join it if they
    have a tenth of its area and are within 0.15 of its box's longer side. A cell below 1/500 of the frame is ignored.
    """
    height, width = frame_HWC.shape[:2]
    searched = _reduced(frame_HWC)
    mask = _foreground(searched)
    box = None if mask is None else _main_box(mask)
    if box is None:
        return None
    down, across = height / searched.shape[0], width / searched.shape[1]
    bottom, right = min(math.ceil(box.bottom * down), height), min(math.ceil(box.right * across), width)
    return Box(math.floor(box.top * down), math.floor(box.left * across), bottom, right)


def _reduced(frame_HWC: Image) -> Image:
    longest = max(frame_HWC.shape[:2])
    if longest <= MAX_SEARCHED_PX:
        return frame_HWC
    height, width = (max(length * MAX_SEARCHED_PX // longest, 1) for length in frame_HWC.shape[:2])
    return np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _foreground(frame_HWC: Image) -> NDArray[np.uint8] | None:
    """255 where the frame is not background; None for a flat frame."""
    ground = border_colour(frame_HWC)
    if max(ground) <= BLACK_LEVEL:
        return np.asarray(cv2.bitwise_not(cv2.inRange(frame_HWC, (0, 0, 0), (BLACK_LEVEL,) * 3)), np.uint8)
    distance = np.abs(frame_HWC[..., _RED].astype(np.int16) - ground[_RED]).astype(np.uint8)
    _, mask = cv2.threshold(distance, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    inside, outside = cv2.mean(distance, mask)[0], cv2.mean(distance, cv2.bitwise_not(mask))[0]
    return np.asarray(mask, np.uint8) if inside - outside >= MIN_CONTRAST else None


def _main_box(mask: NDArray[np.uint8]) -> Box | None:
    """Box of the cell's main part and of those that join it."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, width, height, areas = stats[1:].T.astype(np.int64)
    if not areas.size or areas.max() < MIN_SHARE * mask.size:
        return None
    rows, columns = mask.shape
    offsets = centres[1:] - ((columns - 1) / 2, (rows - 1) / 2)
    distance = (offsets**2).sum(axis=1) / (rows**2 + columns**2)
    main = int(np.argmax(areas * np.exp(-8 * distance)))
    boxes = np.stack([top, left, top + height, left + width], axis=1)
    own = boxes[main]
    reach = MAX_GAP * max(own[2] - own[0], own[3] - own[1])
    near = (boxes[:, :2] - reach <= own[2:]).all(axis=1) & (boxes[:, 2:] + reach >= own[:2]).all(axis=1)
    parts = boxes[near & (areas >= MIN_PART * areas[main])]
    first, end = parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)
    return Box(int(first[0]), int(first[1]), int(end[0]), int(end[1]))


Pad = Literal["border", "black", "white"]
"""Padding colour; ``border`` is the median colour of the frame's outermost pixels."""
Colour = tuple[int, int, int]


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas(Framing):
    """Place a frame of any shape on a black square by centre crop or zero padding."""

    op: ClassVar[str] = "canvas"
    label: ClassVar[str] = "canvas {side_px} px"
    keeps_the_background: ClassVar[bool] = True
    side_px: int = 450

    def __post_init__(self) -> None:
        require_side("canvas: side_px", self.side_px)

    def padded_fraction(self, height_px: int, width_px: int, visible_px: int) -> float:
        """See :meth:`Framing.padded_fraction`."""
        return 1 - min(height_px, visible_px) * min(width_px, visible_px) / visible_px**2

    def cut_fraction(self, height_px: int, width_px: int) -> float:
        """See :meth:`Framing.cut_fraction`."""
        return 1 - min(height_px, self.side_px) * min(width_px, self.side_px) / (height_px * width_px)

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        return partial(place_on_canvas, frame_HWC)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Framing):
    """Scale the whole frame so that its longest side fills the square, keep the aspect ratio, and pad the rest.

    Parameters
    ----------
    side_px
        Side of the square.
    pad
        Padding colour, see :data:`Pad`.
    method
        As for :func:`~leukemia_data.operations.resizing.resample`.
    """

    op: ClassVar[str] = "fit"
    label: ClassVar[str] = "fit {side_px} px"
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        _require_drawing(self)

    def padded_fraction(self, height_px: int, width_px: int, visible_px: int) -> float:
        """See :meth:`Framing.padded_fraction`."""
        return 1 - min(height_px, width_px) / max(height_px, width_px)

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        return _drawing(self, frame_HWC)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class CropToCell(Framing):
    """Crop a square around the cell and scale it; without a cell, do as :class:`Fit`.

    Parameters
    ----------
    margin
        Margin on each side of the cell, as a fraction of the longer side of its bounding box.
    side_px, pad, method
        As in :class:`Fit`; padding is used where the square extends beyond the frame.
    """

    op: ClassVar[str] = "crop_to_cell"
    label: ClassVar[str] = "crop to cell {side_px} px"
    margin: float = 0.1
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        require(0 <= self.margin <= 2, f"crop_to_cell: margin must lie in [0, 2], got {self.margin}")
        _require_drawing(self)

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        box = find_cell(frame_HWC)
        return _drawing(self, frame_HWC, None if box is None else box.square(self.margin))


def _require_drawing(step: Fit | CropToCell) -> None:
    if step.side_px is not None:
        require_side(f"{step.op}: side_px", step.side_px)
    require(step.pad in get_args(Pad), f"{step.op}: pad must be border, black or white, got {step.pad!r}")
    require_method(step.op, step.method)


def place_on_canvas(frame_HWC: Image, side_px: int, window: Window) -> Image:
    """Return the part `window` of a black square of `side_px` with the frame at its centre.

    A larger frame is cropped, a smaller one padded with zeros; odd remainders go below and right.
    """
    height, width = frame_HWC.shape[:2]
    return place(frame_HWC, _margin_px(side_px, height), _margin_px(side_px, width), window, (0, 0, 0))


def fit(frame_HWC: Image, side_px: int, pad_rgb: Colour, method: Resampling = "area") -> Image:
    """Return the whole frame in a square: longest side scaled to `side_px`, aspect ratio kept, padded with `pad_rgb`.

    The shorter side is rounded to pixels, halves up, at least one; odd remainders of the padding go below and right.
    """
    height, width = frame_HWC.shape[:2]
    longest = max(height, width)
    target_height, target_width = (max(_scaled(length, side_px, longest), 1) for length in (height, width))
    scaled = resample(frame_HWC, target_height, target_width, method)
    top, left = (side_px - target_height) // 2, (side_px - target_width) // 2
    return place(scaled, top, left, Window.full(side_px), pad_rgb)


def crop(frame_HWC: Image, square: Box, side_px: int, pad_rgb: Colour, method: Resampling = "area") -> Image:
    """Return a square of the frame scaled to `side_px`, padded with `pad_rgb` beyond the frame.

    The square overlaps the frame, whose edge inside it is rounded to whole pixels of the result.
    """
    height, width = frame_HWC.shape[:2]
    rows = max(square.top, 0), min(square.bottom, height)
    columns = max(square.left, 0), min(square.right, width)
    source_px = square.bottom - square.top
    top, bottom = _target_span(rows, square.top, side_px, source_px)
    left, right = _target_span(columns, square.left, side_px, source_px)
    inside = frame_HWC[slice(*rows), slice(*columns)]
    scaled = resample(inside, bottom - top, right - left, method)
    return place(scaled, top, left, Window.full(side_px), pad_rgb)


def place(image_HWC: Image, top: int, left: int, window: Window, pad_rgb: Colour) -> Image:
    """Return the part `window` of a plane of one colour with the image's first pixel at (top, left).

    A view of the image if it covers the window.
    """
    held = Window(top, left, top + image_HWC.shape[0], left + image_HWC.shape[1])
    first, end = max(window.top, top), min(window.bottom, held.bottom)
    inner = Window(first, max(window.left, left), end, min(window.right, held.right))
    if inner == window:
        return window.cut(image_HWC, held)
    plane = np.full((window.height, window.width, 3), pad_rgb, np.uint8)
    if inner.height > 0 and inner.width > 0:
        inner.cut(plane, window)[:] = inner.cut(image_HWC, held)
    return plane


def _drawing(step: Fit | CropToCell, frame_HWC: Image, square: Box | None = None) -> Draw:
    """Draw the frame, or a square of it."""
    pad_rgb = _pad_colour(step.pad, frame_HWC)

    def draw(side_px: int, window: Window) -> Image:
        if square is None:
            drawn = fit(frame_HWC, side_px, pad_rgb, step.method)
        else:
            drawn = crop(frame_HWC, square, side_px, pad_rgb, step.method)
        return window.cut(drawn, Window.full(side_px))

    return draw


def _pad_colour(pad: Pad, frame_HWC: Image) -> Colour:
    if pad == "border":
        return border_colour(frame_HWC)
    return (255, 255, 255) if pad == "white" else (0, 0, 0)


def _scaled(length_px: int, side_px: int, source_px: int) -> int:
    """Scale a length by side_px / source_px, halves rounded up."""
    return (2 * length_px * side_px + source_px) // (2 * source_px)


def _target_span(span: tuple[int, int], first_px: int, side_px: int, source_px: int) -> tuple[int, int]:
    """Map a span of rows of the frame to rows of the result, at least one."""
    first, end = (_scaled(position - first_px, side_px, source_px) for position in span)
    first = min(first, side_px - 1)
    return first, max(end, first + 1)


def _margin_px(side_px: int, length_px: int) -> int:
    """Padding before a length centred in a side; negative if it is cropped."""
    if length_px <= side_px:
        return (side_px - length_px) // 2
    return -((length_px - side_px) // 2)
