"""How much of a cached square a recipe's framing pads, and how much of a frame it cuts off."""

from __future__ import annotations

from leukemia_data.recipes.operations import Canvas, CenterCrop, Fit
from leukemia_data.recipes.recipe import Recipe


def padding_share(height: int, width: int, recipe: Recipe, size_px: int) -> float:
    """Share of the cached square that lies beyond the frame, 0 ... 1; sizes in pixels."""
    framing = recipe.framing
    if isinstance(framing, Fit):
        return 1 - min(height, width) / max(height, width)
    if not isinstance(framing, Canvas):
        return 0.0
    side = _visible_side(recipe, size_px)
    return 1 - min(height, side) * min(width, side) / side**2


def cut_share(height: int, width: int, recipe: Recipe) -> float:
    """Share of the frame that the recipe's first step cuts off, 0 ... 1; sizes in pixels."""
    framing = recipe.framing
    if not isinstance(framing, Canvas):
        return 0.0
    side = framing.side_px
    return 1 - min(height, side) * min(width, side) / (height * width)


def _visible_side(recipe: Recipe, size_px: int) -> int:
    """Side of the middle of the canvas that reaches the cache."""
    side = recipe.framing.output_side(0, size_px)
    for step in recipe.steps[1:]:
        if not isinstance(step, CenterCrop):
            if step.output_side(side, size_px) != side:
                break
            continue
        side = step.output_side(side, size_px)
    return side
