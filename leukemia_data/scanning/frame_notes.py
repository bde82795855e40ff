"""What a recipe does to the frames of each class: padding, cutting, and which recipe suits them better."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from leukemia_data.errors import listed
from leukemia_data.recipes.operations import Canvas, CenterCrop, Fit
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.sources.reading import FramesFound, Reading

WORTH_SAYING = 0.05
"""Shares of padding or of cut area from here on are said."""
TELLING = 0.05
"""Classes whose shares differ by more can be told apart by their frames alone."""
_CANVAS_PX = 450


@dataclass(frozen=True, slots=True)
class FrameEffect:
    """What becomes of one class's frames.

    Attributes
    ----------
    class_name
        Empty for images without one.
    padding
        Share of the cached square that lies beyond the frame, mean over the frames looked at, 0 ... 1.
    cut
        Share of the frame that the recipe's first step cuts off, 0 ... 1.
    """

    class_name: str
    padding: float
    cut: float


def frame_effects(frames: Iterable[FramesFound], recipe: Recipe, size_px: int = 224) -> list[FrameEffect]:
    """What a recipe's framing does to each class's frames; classes of which nothing is known are left out.

    Parameters
    ----------
    frames
        What was seen of them.
    recipe, size_px
        The recipe, and the cache's size, which decides where the recipe leaves it open.
    """
    return [_effect(found, recipe, size_px) for found in frames if found.sizes]


def _effect(found: FramesFound, recipe: Recipe, size_px: int) -> FrameEffect:
    total = sum(count for _, _, count in found.sizes)
    padding = sum(count * _padding(height, width, recipe, size_px) for height, width, count in found.sizes)
    cut = sum(count * _cut(height, width, recipe) for height, width, count in found.sizes)
    return FrameEffect(found.class_name, padding / total, cut / total)


def _padding(height: int, width: int, recipe: Recipe, size_px: int) -> float:
    framing = recipe.framing
    if isinstance(framing, Fit):
        return 1 - min(height, width) / max(height, width)
    if not isinstance(framing, Canvas):
        return 0.0
    side = _visible_side(recipe, size_px)
    return 1 - min(height, side) * min(width, side) / side**2


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


def _cut(height: int, width: int, recipe: Recipe) -> float:
    framing = recipe.framing
    if not isinstance(framing, Canvas):
        return 0.0
    side = framing.side_px
    return 1 - min(height, side) * min(width, side) / (height * width)


def effect_notes(
    effects: Sequence[FrameEffect], recipe: Recipe, suggestion: tuple[str, str] | None = None
) -> Iterator[str]:
    """Say what is lost or added, which preset suits better, and where that alone tells the classes apart."""
    shown = [effect for effect in effects if max(effect.padding, effect.cut) >= WORTH_SAYING]
    if not shown:
        return
    classes_of: dict[str, list[str]] = {}
    for effect in shown:
        text = f"{effect.padding:.0%} of the cached square is padding, {effect.cut:.0%} of the frames is cut off"
        classes_of.setdefault(text, []).append(effect.class_name or "unlabelled")
    is_all = len(classes_of) == 1 and len(shown) == len(effects)
    texts = [text if is_all else f"{listed(names, most=4)}: {text}" for text, names in classes_of.items()]
    better = f"; --recipe {suggestion[0]} may" if suggestion and suggestion[0] != recipe.name else ""
    yield f"recipe {recipe.name} does not suit these frames ({'; '.join(texts)}){better}"
    labelled = [effect for effect in effects if effect.class_name]
    for name, shares in (("padding", [one.padding for one in labelled]), ("cut", [one.cut for one in labelled])):
        if len(labelled) > 1 and max(shares) - min(shares) >= TELLING:
            yield (
                f"the classes differ in how much of their frames is {name} ({min(shares):.0%} to {max(shares):.0%}): a "
                "network can tell them apart by that alone"
            )
            return


def size_notes(frames: Sequence[FramesFound]) -> Iterator[str]:
    """Say where the classes come in frames of different sizes, whatever the recipe."""
    usual = {found.class_name: found.sizes[0][:2] for found in frames if found.sizes and found.class_name}
    grounds = {found.class_name: found.ground for found in frames if found.ground and found.class_name}
    if len(set(usual.values())) > 1:
        sizes = ", ".join(f"{name} {height}x{width}" for name, (height, width) in usual.items())
        yield f"the classes come in frames of different sizes ({sizes}): do they come from different cameras?"
    if len(set(grounds.values())) > 1:
        shown = ", ".join(f"{name} {ground}" for name, ground in grounds.items())
        yield f"the classes lie on different grounds ({shown}): a network can tell them apart by that alone"


def suggested_recipe(frames: Sequence[FramesFound]) -> tuple[str, str] | None:
    """The preset that suits these frames, and why; None where nothing is known of them."""
    sizes = [(height, width) for found in frames for height, width, _ in found.sizes]
    grounds = {found.ground for found in frames if found.ground}
    if not sizes or not grounds:
        return None
    smallest, largest = min(map(min, sizes)), max(map(max, sizes))
    shown = f"{smallest} px" if smallest == largest else f"{smallest} to {largest} px"
    if grounds == {"black"}:
        if smallest == largest == _CANVAS_PX:
            return "report-a", f"cells on black ground in frames of {shown}, as C-NMC's"
        if largest <= _CANVAS_PX and smallest >= _CANVAS_PX * 0.95:
            return "report-a", f"cells on black ground in frames of {shown}, nearly C-NMC's {_CANVAS_PX}"
        return "fit", f"cells on black ground in frames of {shown}: fitted whole, nothing is cut or padded"
    if largest > 4 * _CANVAS_PX:
        return (
            "photo-cell",
            f"{'/'.join(sorted(grounds))} ground in frames of {shown}: the cell is a small part of them",
        )
    return "photo", f"{'/'.join(sorted(grounds))} ground in frames of {shown}: photographs, fitted whole"


def cautions(reading: Reading, recipe: Recipe, size_px: int = 224) -> list[str]:
    """What of a source should be looked at before it is built or trained on.

    Parameters
    ----------
    reading
        How it was understood, with its frames.
    recipe, size_px
        What is to be done to the frames, and the size of the cached squares.
    """
    found = reading.subjects
    effects = frame_effects(reading.frames, recipe, size_px)
    said = [*effect_notes(effects, recipe, suggested_recipe(reading.frames)), *size_notes(reading.frames)]
    if found.is_doubtful:
        said.append(
            f"{found.num_several:,} subjects have images of several classes ({', '.join(found.several_classes)}): are "
            "they people? Nothing that divides by them is called subject-disjoint; --subject-from, --subject-pattern "
            "or --subject-column confirms them"
        )
    if found.may_be_fewer:
        said.append(
            f"WRONG: {found.num_alike:,} subjects are written in several ways ({', '.join(found.alike)}): is each one "
            "person? Write one way everywhere. Nothing that divides by them is called subject-disjoint; "
            "--subject-from, --subject-pattern or --subject-column confirms that they are different people"
        )
    return said
