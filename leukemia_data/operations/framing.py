"""Operations that make a square of a frame of any height and width: canvas, fit, crop to the cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from leukemia_data.errors import require
from leukemia_data.libraries import np
from leukemia_data.operations.cell_box import Box, border_colour, find_cell
from leukemia_data.operations.operation import OPERATIONS, Draw, Framing, Image, require_side
from leukemia_data.operations.resizing import Resampling, resample
from leukemia_data.operations.window import Window

Pad = Literal["border", "black", "white"]
"""Colour beyond the frame; ``border`` is the median colour of the frame's outermost pixels."""
Colour = tuple[int, int, int]


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas(Framing):
    """Put a frame of any shape onto a black square by centre crop or zero padding."""

    op: ClassVar[str] = "canvas"
    version: ClassVar[int] = 1
    label: ClassVar[str] = "canvas {side_px} px"
    keeps_the_background: ClassVar[bool] = True
    side_px: int = 450

    def __post_init__(self) -> None:
        require_side("canvas: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        return self.side_px

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        return partial(place_on_canvas, frame_HWC)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Framing):
    """Scale the whole frame until its longest side fills the square, aspect kept, and pad the rest.

    Parameters
    ----------
    side_px
        Side of the square; None for the cache's own size, so that a photograph is resampled once.
    pad
        Colour of the rest: ``black``, ``white`` or ``border``.
    method
        ``area`` averages the source pixels under each target pixel where the frame shrinks, and is bilinear where it
        grows; ``antialias`` is bilinear, with the triangle widened by the scale where the frame shrinks.
    """

    op: ClassVar[str] = "fit"
    version: ClassVar[int] = 1
    label: ClassVar[str] = "fit {side_px} px"
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        _require_drawing(self)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        return size_px if self.side_px is None else self.side_px

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        return _fitting(self, frame_HWC)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class CropToCell(Framing):
    """Find the cell, cut a square around it and scale that; where no cell is found, do as :class:`Fit`.

    Parameters
    ----------
    margin
        Room on each side of the cell, as a share of the longer side of its bounding box.
    side_px, pad, method
        As in :class:`Fit`; the padding shows where the square reaches beyond the frame.
    """

    op: ClassVar[str] = "crop_to_cell"
    version: ClassVar[int] = 1
    label: ClassVar[str] = "crop to cell {side_px} px"
    margin: float = 0.1
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        require(0 <= self.margin <= 2, f"crop_to_cell: margin must lie in [0, 2], got {self.margin}")
        _require_drawing(self)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        return size_px if self.side_px is None else self.side_px

    def draw(self, frame_HWC: Image) -> Draw:
        """See :meth:`Framing.draw`."""
        box = find_cell(frame_HWC)
        return _fitting(self, frame_HWC) if box is None else _cropping(self, frame_HWC, box.square(self.margin))


def _require_drawing(step: Fit | CropToCell) -> None:
    if step.side_px is not None:
        require_side(f"{step.op}: side_px", step.side_px)
    require(
        step.pad in ("border", "black", "white"), f"{step.op}: pad must be border, black or white, got {step.pad!r}"
    )
    require(step.method in ("area", "antialias"), f"{step.op}: method must be area or antialias, got {step.method!r}")


def place_on_canvas(frame_HWC: Image, side_px: int, window: Window) -> Image:
    """The part `window` of a black square of `side_px` with the frame at its centre.

    A frame larger than the square is cropped, a smaller one padded with zeros; odd remainders fall below and right.
    """
    height, width = frame_HWC.shape[:2]
    return place(frame_HWC, _margin_px(side_px, height), _margin_px(side_px, width), window, (0, 0, 0))


def fit(frame_HWC: Image, side_px: int, pad_rgb: Colour, method: Resampling = "area") -> Image:
    """The whole frame in a square: longest side scaled to `side_px`, aspect kept, the rest `pad_rgb`.

    The shorter side is rounded to whole pixels, halves up, and has at least one; odd remainders of the padding fall
    below and right.

    Returns
    -------
    ndarray of shape (side_px, side_px, 3), uint8
    """
    height, width = frame_HWC.shape[:2]
    longest = max(height, width)
    target_height, target_width = (max(_scaled(length, side_px, longest), 1) for length in (height, width))
    scaled = resample(frame_HWC, target_height, target_width, method)
    top, left = (side_px - target_height) // 2, (side_px - target_width) // 2
    return place(scaled, top, left, Window.full(side_px), pad_rgb)


def crop(frame_HWC: Image, square: Box, side_px: int, pad_rgb: Colour, method: Resampling = "area") -> Image:
    """A square of the frame scaled to `side_px`; what of it lies beyond the frame is `pad_rgb`.

    The frame's edge inside the square is rounded to whole pixels of the result.

    Parameters
    ----------
    square
        Box of equal sides that shares at least one pixel with the frame.

    Returns
    -------
    ndarray of shape (side_px, side_px, 3), uint8
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
    """The part `window` of a plane of one colour with the image's first pixel at (top, left).

    Where the image covers the window, the result is a view of it.
    """
    held = Window(top, left, top + image_HWC.shape[0], left + image_HWC.shape[1])
    inner = Window(
        max(window.top, held.top),
        max(window.left, held.left),
        min(window.bottom, held.bottom),
        min(window.right, held.right),
    )
    if inner == window:
        return window.cut(image_HWC, held)
    plane = np.full((window.height, window.width, 3), pad_rgb, np.uint8)
    if inner.height > 0 and inner.width > 0:
        inner.cut(plane, window)[:] = inner.cut(image_HWC, held)
    return plane


def _fitting(step: Fit | CropToCell, frame_HWC: Image) -> Draw:
    pad_rgb = _pad_colour(step.pad, frame_HWC)
    return lambda side_px, window: window.cut(fit(frame_HWC, side_px, pad_rgb, step.method), Window.full(side_px))


def _cropping(step: CropToCell, frame_HWC: Image, square: Box) -> Draw:
    pad_rgb = _pad_colour(step.pad, frame_HWC)
    return lambda side_px, window: window.cut(
        crop(frame_HWC, square, side_px, pad_rgb, step.method), Window.full(side_px)
    )


def _pad_colour(pad: Pad, frame_HWC: Image) -> Colour:
    if pad == "border":
        return border_colour(frame_HWC)
    return (255, 255, 255) if pad == "white" else (0, 0, 0)


def _scaled(length_px: int, side_px: int, source_px: int) -> int:
    """Length of a source of `source_px` that becomes `side_px`, to the nearest whole number, halves up."""
    return (2 * length_px * side_px + source_px) // (2 * source_px)


def _target_span(span: tuple[int, int], first_px: int, side_px: int, source_px: int) -> tuple[int, int]:
    """Rows of the result that a span of rows of the frame becomes, at least one."""
    first, end = (_scaled(position - first_px, side_px, source_px) for position in span)
    first = min(first, side_px - 1)
    return first, max(end, first + 1)


def _margin_px(side_px: int, length_px: int) -> int:
    """Padding before a length centred in a side; negative where the length is cut."""
    if length_px <= side_px:
        return (side_px - length_px) // 2
    return -((length_px - side_px) // 2)
