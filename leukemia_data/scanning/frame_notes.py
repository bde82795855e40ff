"""Notes on a recipe's padding and cropping of each class's frames, from facts in a manifest; no image is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leukemia_data.errors import listed
from leukemia_data.operations.recipe import Recipe
from leukemia_data.sources.reading import FrameFinding, FramesFound, Reading

WORTH_SAYING = 0.05
"""Fractions of padding or cropped area from which a note is written."""
SIZE_FEATURES = frozenset({"height", "width", "aspect", "padding", "crop"})
FRAMES_DETAIL = "frames"
"""Name under which a checkpoint's details keep :func:`training_facts`."""
TELLING = 0.05
"""Classes whose fractions differ by more can be distinguished by their frames alone."""
_CANVAS_PX = 450
DEFAULT_SIZE_PX = 224
"""Default size of the cached squares."""


@dataclass(frozen=True, slots=True)
class SizedRecipe:
    """A recipe and the size of the cached squares in pixels, which determine padding and cropping."""

    recipe: Recipe
    size_px: int

    def padding(self, height_px: int, width_px: int) -> float:
        """Return the fraction of the cached square beyond a frame of this size, 0 ... 1."""
        visible_px = self.recipe.visible_side_px(self.size_px)
        return self.recipe.framing.padded_fraction(height_px, width_px, visible_px)

    def cut(self, height_px: int, width_px: int) -> float:
        """Return the fraction of a frame of this size that the first step crops, 0 ... 1."""
        return self.recipe.framing.cut_fraction(height_px, width_px)


@dataclass(frozen=True, slots=True)
class FrameEffect:
    """Padding and cropping of one class's frames.

    Attributes
    ----------
    class_name
        Empty for unlabelled images.
    padding
        Mean fraction of the cached square beyond the frame, 0 ... 1.
    cut
        Mean fraction of the frame that is cropped, 0 ... 1.
    """

    class_name: str
    padding: float
    cut: float


def frame_effects(frames: Iterable[FramesFound], recipe: Recipe, size_px: int = DEFAULT_SIZE_PX) -> list[FrameEffect]:
    """Return the effect of a recipe's framing on each class's frames, unless their sizes are unknown."""
    sized = SizedRecipe(recipe, size_px)
    effects = []
    for found in frames:
        if total := sum(count for _, _, count in found.sizes):
            padding = sum(count * sized.padding(height, width) for height, width, count in found.sizes)
            cut = sum(count * sized.cut(height, width) for height, width, count in found.sizes)
            effects.append(FrameEffect(found.class_name, padding / total, cut / total))
    return effects


def effect_notes(
    effects: Sequence[FrameEffect], recipe: Recipe, suggestion: tuple[str, str] | None = None
) -> Iterator[str]:
    """Yield notes on padding and cropping, and the better preset."""
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


def telling_notes(effects: Sequence[FrameEffect]) -> Iterator[str]:
    """Yield notes if padding or cropping alone separates the classes."""
    labelled = [effect for effect in effects if effect.class_name]
    for name, shares in (("padding", [one.padding for one in labelled]), ("cut", [one.cut for one in labelled])):
        if len(labelled) > 1 and max(shares) - min(shares) >= TELLING:
            yield (
                f"the classes differ in how much of their frames is {name} ({min(shares):.0%} to {max(shares):.0%}): a "
                "network can tell them apart by that alone"
            )
            return


def finding_note(finding: FrameFinding, recipe: Recipe | None = None, suggestion: tuple[str, str] | None = None) -> str:
    """Return a note on how well frames alone predict the class, with advice.

    Parameters
    ----------
    finding
        With :attr:`~leukemia_data.sources.reading.FrameFinding.tells_class`.
    recipe, suggestion
        The recipe, and the result of :func:`suggested_recipe`, if known.
    """
    classes = "; ".join(f"{name}: {text}" if text else name for name, text in finding.classes)
    cure = ""
    is_of_size = bool(SIZE_FEATURES.intersection(finding.features))
    if is_of_size and suggestion is not None and (recipe is None or suggestion[0] != recipe.name):
        cure = f"; --recipe {suggestion[0]} makes squares of them alike, though not their cameras"
    return (
        f"the frames alone tell the classes apart (by {listed(finding.features, most=3)}): without any cell, a shallow "
        f"model has a balanced accuracy of {finding.balanced_accuracy:.2f} (99 % interval {finding.low:.2f} to "
        f"{min(finding.high, 1.0):.2f}, chance {finding.chance:.2f}; {finding.num_images:,} images, folds by "
        f"{finding.folds_by}). {classes}. A network can learn that instead of the cells{cure}"
    )


def finding_caution(finding: FrameFinding) -> str:
    """Return a caution for the results of a network trained on these frames."""
    return (
        f"The frames alone tell the classes apart (by {listed(finding.features, most=3)}, with a balanced accuracy of "
        f"{finding.balanced_accuracy:.2f} and no cell): the network can have learnt that instead of the cells."
    )


def size_notes(frames: Sequence[FramesFound]) -> Iterator[str]:
    """Yield notes if frame sizes or grounds differ between classes."""
    usual = {found.class_name: found.sizes[0][:2] for found in frames if found.sizes and found.class_name}
    grounds = {found.class_name: found.ground for found in frames if found.ground and found.class_name}
    seen = [{size[:2] for size in found.sizes} for found in frames if found.sizes and found.class_name]
    if len(set(usual.values())) > 1 and not set.intersection(*seen):
        sizes = ", ".join(f"{name} {height}x{width}" for name, (height, width) in usual.items())
        yield f"the classes come in frames of different sizes ({sizes}): do they come from different cameras?"
    if len(set(grounds.values())) > 1:
        shown = ", ".join(f"{name} {ground}" for name, ground in grounds.items())
        yield f"the classes lie on different grounds ({shown}): a network can tell them apart by that alone"


def suggested_recipe(frames: Sequence[FramesFound]) -> tuple[str, str] | None:
    """Return the preset that suits these frames, with the reason; None without facts."""
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


def frame_caution(reading: Reading, recipe: Recipe | None = None) -> str | None:
    """Return a caution if frames alone predict the class; None if they do not, or were not tested."""
    finding = reading.frame_finding
    if finding is None or not finding.tells_class:
        return None
    return finding_note(finding, recipe, suggested_recipe(reading.frames))


def cautions(
    reading: Reading, recipe: Recipe, size_px: int = DEFAULT_SIZE_PX, *, with_finding: bool = True
) -> list[str]:
    """Return warnings to check before building or training on a source.

    Parameters
    ----------
    reading
        With frames.
    recipe, size_px
        Of the cache.
    with_finding
        False leaves out :func:`frame_caution`, for callers that show it elsewhere.

    Returns
    -------
    list of str
        Most important first.
    """
    found, finding = reading.subjects, reading.frame_finding
    effects = frame_effects(reading.frames, recipe, size_px)
    suggestion = suggested_recipe(reading.frames)
    said = list(effect_notes(effects, recipe, suggestion))
    if finding is None:
        # Too few to test, or a cache of an earlier version: report any difference.
        said += [*telling_notes(effects), *size_notes(reading.frames)]
    elif with_finding and (telling := frame_caution(reading, recipe)):
        said = [telling, *said]
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


def training_facts(reading: Reading | None) -> list[dict[str, Any]]:
    """Return a checkpoint's facts about the frames of its cache, as JSON values; empty if unknown."""
    frames = [] if reading is None else reading.to_dict()["frames"]
    return [found for found in frames if found["class_name"] and found["sizes"]]
