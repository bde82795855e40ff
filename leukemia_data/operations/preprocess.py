"""Preprocess a decoded frame into one square per cache size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from leukemia_data.operations.operation import Draw, Extent, Image, Operation, Window
from leukemia_data.operations.recipe import Recipe


@dataclass(frozen=True, slots=True)
class _CompiledStep:
    """One step with its place in the recipe."""

    operation: Operation
    extent: Extent


@dataclass(frozen=True, slots=True)
class _Tail:
    """The steps of one size after the shared ones."""

    size_px: int
    start: Window
    compiled: tuple[_CompiledStep, ...]


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """Shared steps, and a tail for each size."""

    framed_side_px: int
    framed_window: Window
    shared: tuple[_CompiledStep, ...]
    shared_window: Window
    tails: tuple[_Tail, ...]

    def run(self, draw: Draw) -> dict[int, Image]:
        framed_pixels = draw(self.framed_side_px, self.framed_window)
        shared = _run(self.shared, framed_pixels, self.framed_window)
        return {
            tail.size_px: np.ascontiguousarray(
                _run(tail.compiled, tail.start.cut(shared, self.shared_window), tail.start)
            )
            for tail in self.tails
        }


class Preprocessor:
    """A recipe compiled for a set of sizes.

    Parameters
    ----------
    recipe
        Ordered operations; the first makes a square of any frame.
    sizes_px
        Sides of the squares to make.
    limit_region
        ``False`` computes every step on the whole frame: the reference for tests of the windows.

    Raises
    ------
    UsageError
        If the recipe cannot end in a square of one of the sizes.
    """

    def __init__(self, recipe: Recipe, sizes_px: Sequence[int], *, limit_region: bool = True) -> None:
        for size_px in sizes_px:
            recipe.check_size(size_px)
        self._framing = recipe.framing
        groups = [[size_px] for size_px in sizes_px] if recipe.num_shared_steps == 0 else [sizes_px]
        self._pipelines = tuple(_compile_pipeline(recipe, group, limit_region) for group in groups)

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
        draw = self._framing.draw(frame_HWC)
        return {size_px: image for pipeline in self._pipelines for size_px, image in pipeline.run(draw).items()}


def trace_steps(recipe: Recipe, size_px: int, frame_HWC: Image) -> list[tuple[Operation, Image]]:
    """Return every step of a recipe with its whole-frame output, for display.

    Raises
    ------
    UsageError
        If the recipe cannot end in a square of `size_px`.
    """
    recipe.check_size(size_px)
    side = recipe.framed_side_px(size_px)
    pixels = recipe.framing.draw(frame_HWC)(side, Window.full(side))
    traced: list[tuple[Operation, Image]] = [(recipe.steps[0], pixels)]
    for step in recipe.steps[1:]:
        next_side = step.output_side(side, size_px)
        pixels = step.apply(pixels, Extent(side, next_side, Window.full(side), Window.full(next_side)))
        traced.append((step, pixels))
        side = next_side
    return traced


def _compile_pipeline(recipe: Recipe, sizes_px: Sequence[int], limit_region: bool) -> _Pipeline:
    """Compile the steps shared by all sizes, and each size's tail."""
    num_shared = max(recipe.num_shared_steps, 1)
    shared, rest = recipe.steps[1:num_shared], recipe.steps[num_shared:]
    framed_side = recipe.framed_side_px(sizes_px[0])
    shared_side = framed_side
    for step in shared:
        shared_side = step.output_side(shared_side, 0)
    tails = tuple(_compile_tail(rest, shared_side, size_px, limit_region) for size_px in sizes_px)
    wanted = reduce(Window.union, (tail.start for tail in tails))
    compiled = _compile(shared, framed_side, 0, wanted, limit_region)
    return _Pipeline(framed_side, compiled[0].extent.needed if compiled else wanted, compiled, wanted, tails)


def _compile_tail(steps: Sequence[Operation], side_px: int, size_px: int, limit_region: bool) -> _Tail:
    compiled = _compile(steps, side_px, size_px, Window.full(size_px), limit_region)
    return _Tail(size_px, compiled[0].extent.needed if compiled else Window.full(size_px), compiled)


def _compile(
    steps: Sequence[Operation], side_px: int, size_px: int, wanted: Window, limit_region: bool
) -> tuple[_CompiledStep, ...]:
    """Compute the windows of the steps backwards from the wanted window of the last output."""
    sides = [side_px]
    for step in steps:
        sides.append(step.output_side(sides[-1], size_px))
    compiled: list[_CompiledStep] = []
    for step, side, next_side in zip(reversed(steps), sides[-2::-1], sides[:0:-1], strict=True):
        produced = wanted if limit_region else Window.full(next_side)
        wanted = step.needed(produced, side, next_side) if limit_region else Window.full(side)
        compiled.append(_CompiledStep(step, Extent(side, next_side, wanted, produced)))
    return tuple(reversed(compiled))


def _run(compiled: Sequence[_CompiledStep], pixels: Image, held: Window) -> Image:
    for step in compiled:
        pixels = step.operation.apply(step.extent.needed.cut(pixels, held), step.extent)
        held = step.extent.produced
    return pixels
