"""Squares of frames of any height and width: onto a canvas, fitted, or cut around the cell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from leukemia_data.operations.cell_box import Box, border_colour, find_cell
from leukemia_data.operations.filter_pixels import Image, resample
from leukemia_data.operations.framing import Canvas, CropToCell, Fit, Framing, Pad, Resampling
from leukemia_data.operations.window import Window

Colour = tuple[int, int, int]
Draw = Callable[[int, Window], Image]
"""The part (window) of a frame's square of a side in pixels, as (H, W, 3) uint8."""


def framed(step: Framing, frame_HWC: Image) -> Draw:
    """How a framing step draws squares of one frame; what does not depend on their side is computed here, once.

    Parameters
    ----------
    frame_HWC : ndarray of shape (height, width, 3), uint8
        Frame of any height and width.

    Returns
    -------
    callable
        Takes the side of the square and the window of it that is wanted.
    """
    match step:
        case Canvas():
            return partial(place_on_canvas, frame_HWC)
        case Fit():
            return _fitting(step, frame_HWC)
        case CropToCell():
            box = find_cell(frame_HWC)
            return _fitting(step, frame_HWC) if box is None else _cropping(step, frame_HWC, box.square(step.margin))


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
