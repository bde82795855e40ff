"""A decoded frame in, one finished square per cache size out.

The recipe's steps are compiled once. Steps before the first that depends on the size are shared between all sizes.
Going backwards from the result, each step says which window of its input it needs (a crop needs a part, a blur a
margin, CLAHE whole tiles), so that no pixel is equalised or sharpened that a later crop throws away. The result is
that of the whole-frame computation within rounding: tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leukemia_data.pixels.image_ops import Image, resize_antialiased, resize_area
from leukemia_data.pixels.step_pixels import change_pixels, equalize
from leukemia_data.pixels.step_windows import needed_window, tile_grid
from leukemia_data.pixels.window import Window
from leukemia_data.recipes.operations import Canvas, CenterCrop, Clahe, ClaheLab, Operation, Resize, depends_on_size
from leukemia_data.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class _Stage:
    """One step with the windows it reads and writes, in the frames before and after it."""

    step: Operation
    side_px: int
    needed: Window
    produced: Window


@dataclass(frozen=True, slots=True)
class _Tail:
    """What one size does after the shared stages."""

    size_px: int
    start: Window
    stages: tuple[_Stage, ...]


class Preprocessor:
    """A recipe compiled for a set of sizes.

    Parameters
    ----------
    recipe
        Ordered operations, the first a canvas.
    sizes_px
        Sides of the squares to make.
    limit_region
        ``False`` computes every step on the whole frame: the reference that the windows are tested against.

    Raises
    ------
    UsageError
        If the recipe cannot end in a square of one of the sizes.
    """

    def __init__(self, recipe: Recipe, sizes_px: Sequence[int], *, limit_region: bool = True) -> None:
        for size_px in sizes_px:
            recipe.check_size(size_px)
        steps = recipe.steps[1:]
        num_shared = next((n for n, step in enumerate(steps) if depends_on_size(step)), len(steps))
        shared, rest = steps[:num_shared], steps[num_shared:]
        shared_side = recipe.canvas_side_px
        for step in shared:
            shared_side = step.output_side(shared_side, 0)
        self._tails = tuple(_compile_tail(rest, shared_side, size_px, limit_region) for size_px in sizes_px)
        wanted = self._tails[0].start
        for tail in self._tails[1:]:
            wanted = wanted.union(tail.start)
        self._shared = _compile(shared, recipe.canvas_side_px, 0, wanted, limit_region)
        self._canvas_side_px = recipe.canvas_side_px
        self._canvas_window = self._shared[0].needed if self._shared else wanted
        self._shared_window = wanted

    def __call__(self, frame_HWC: Image) -> dict[int, Image]:
        """Preprocess one frame.

        Parameters
        ----------
        frame_HWC : ndarray of shape (height, width, 3), uint8
            Decoded RGB frame of any height and width.

        Returns
        -------
        dict of int to ndarray of shape (size, size, 3), uint8
            One finished image per size, C-contiguous.
        """
        canvas = place_on_canvas(frame_HWC, self._canvas_side_px, self._canvas_window)
        shared = _run(self._shared, canvas, self._canvas_window)
        return {
            tail.size_px: np.ascontiguousarray(
                _run(tail.stages, tail.start.cut(shared, self._shared_window), tail.start)
            )
            for tail in self._tails
        }


def trace_steps(recipe: Recipe, size_px: int, frame_HWC: Image) -> list[tuple[Operation, Image]]:
    """Every step of a recipe with the whole-frame image it leaves, for looking at.

    Raises
    ------
    UsageError
        If the recipe cannot end in a square of `size_px`.
    """
    recipe.check_size(size_px)
    side = recipe.canvas_side_px
    pixels = place_on_canvas(frame_HWC, side, Window.full(side))
    traced: list[tuple[Operation, Image]] = [(recipe.steps[0], pixels)]
    for step in recipe.steps[1:]:
        next_side = step.output_side(side, size_px)
        pixels = _apply(_Stage(step, side, Window.full(side), Window.full(next_side)), pixels)
        traced.append((step, pixels))
        side = next_side
    return traced


def place_on_canvas(frame_HWC: Image, side_px: int, window: Window) -> Image:
    """The part `window` of a black square of `side_px` with the frame at its centre.

    A frame larger than the square is cropped, a smaller one padded with zeros; odd remainders fall below and right.
    """
    height, width = frame_HWC.shape[:2]
    top, left = _margin_px(side_px, height), _margin_px(side_px, width)
    inner = Window(
        max(window.top, top),
        max(window.left, left),
        min(window.bottom, top + height),
        min(window.right, left + width),
    )
    held = Window(top, left, top + height, left + width)
    if inner == window:
        return window.cut(frame_HWC, held)
    canvas = np.zeros((window.height, window.width, 3), np.uint8)
    if inner.height > 0 and inner.width > 0:
        inner.cut(canvas, window)[:] = inner.cut(frame_HWC, held)
    return canvas


def _margin_px(side_px: int, length_px: int) -> int:
    """Zeros before a length centred in a side; negative where the length is cut."""
    if length_px <= side_px:
        return (side_px - length_px) // 2
    return -((length_px - side_px) // 2)


def _compile_tail(steps: Sequence[Operation], side_px: int, size_px: int, limit_region: bool) -> _Tail:
    stages = _compile(steps, side_px, size_px, Window.full(size_px), limit_region)
    return _Tail(size_px, stages[0].needed if stages else Window.full(size_px), stages)


def _compile(
    steps: Sequence[Operation], side_px: int, size_px: int, wanted: Window, limit_region: bool
) -> tuple[_Stage, ...]:
    """Walk the steps backwards from the wanted window of the last one's result."""
    sides = [side_px]
    for step in steps:
        sides.append(step.output_side(sides[-1], size_px))
    stages: list[_Stage] = []
    for step, side, next_side in zip(reversed(steps), sides[-2::-1], sides[:0:-1], strict=True):
        produced = wanted if limit_region else Window.full(next_side)
        wanted = needed_window(step, produced, side, next_side) if limit_region else Window.full(side)
        stages.append(_Stage(step, side, wanted, produced))
    return tuple(reversed(stages))


def _run(stages: Sequence[_Stage], pixels: Image, held: Window) -> Image:
    for stage in stages:
        pixels = _apply(stage, stage.needed.cut(pixels, held))
        held = stage.produced
    return pixels


def _apply(stage: _Stage, pixels: Image) -> Image:
    """Run one step on the window it needs and cut what it promised."""
    match stage.step:
        case CenterCrop():
            # Held is the whole frame or the crop alone: either way the crop lies in the middle.
            held_px = stage.needed.height
            return Window.central(held_px, stage.produced.height).cut(pixels, Window.full(held_px))
        case Resize(method="antialias"):
            return resize_antialiased(pixels, stage.produced.height)
        case Resize():
            return resize_area(pixels, stage.produced.height)
        case Canvas(side_px=side_px):
            return place_on_canvas(pixels, side_px, stage.produced)
        case Clahe(tiles=tiles) | ClaheLab(tiles=tiles):
            grid = tile_grid(stage.needed, stage.side_px, tiles)
            return stage.produced.cut(equalize(stage.step, pixels, grid), stage.needed)
        case _:
            return stage.produced.cut(change_pixels(stage.step, pixels), stage.needed)
