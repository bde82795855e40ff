"""Padding and cropping of frames by a recipe, compared with its pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from leukemia_data.operations.framing import Canvas, Fit
from leukemia_data.operations.operation import Framing
from leukemia_data.operations.recipe import Preprocessor, Recipe, load_recipe
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.scanning.frame_notes import (
    FrameEffect,
    cautions,
    effect_notes,
    frame_effects,
    size_notes,
    suggested_recipe,
    telling_notes,
)
from leukemia_data.sources.reading import FrameFinding, FramesFound, Reading

SIZE_PX = 224


def found(name: str, *sizes: tuple[int, int], ground: str = "black") -> FramesFound:
    return FramesFound(
        class_name=name,
        num_looked_at=len(sizes),
        sizes=tuple((height, width, 1) for height, width in sizes),
        modes=(("RGB", len(sizes)),),
        ground=ground,
    )


def effect(recipe: Recipe, *sizes: tuple[int, int]) -> FrameEffect:
    (only,) = frame_effects([found("x", *sizes)], recipe, SIZE_PX)
    return only


# Without anything that changes the level of an even frame or mixes it with what lies far beside it.
PLAIN = [
    load_recipe("raw"),
    load_recipe("crop"),
    load_recipe("report-b"),
    Recipe("fit", (Fit(pad="black"),)),
    Recipe("half", (Canvas(side_px=300), CenterCrop(side_px=200), Resize(), CenterCrop(side_px=SIZE_PX))),
]
SHAPES = [(450, 450), (224, 224), (100, 300), (300, 100), (600, 600), (451, 200), (269, 271), (1944, 2592)]


@pytest.mark.parametrize("recipe", PLAIN, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_padding_is_the_fraction_of_black_in_a_preprocessed_white_frame(recipe, shape):
    pixels = Preprocessor(recipe, [SIZE_PX])(np.full((*shape, 3), 255, np.uint8))[SIZE_PX]
    share = 1 - pixels.mean() / 255
    # Half a pixel on each side is the rounding of places.
    assert effect(recipe, shape).padding == pytest.approx(share, abs=2.5 / SIZE_PX)


@pytest.mark.parametrize("shape", SHAPES)
def test_cut_is_the_fraction_of_pixels_outside_the_canvas(shape):
    height, width = shape
    place = np.arange(height * width, dtype=np.uint32).reshape(shape)
    frame = np.stack([place & 255, place >> 8 & 255, place >> 16], axis=-1).astype(np.uint8)
    side = 300
    canvas = Preprocessor(Recipe("c", (Canvas(side_px=side), Resize())), [side])(frame)[side].astype(np.uint32)
    kept = np.unique(canvas[..., 0] | canvas[..., 1] << 8 | canvas[..., 2] << 16)
    # Place 0 looks like padding.
    num_kept = len(kept) - (kept[0] == 0 and min(shape) > side)
    share = 1 - num_kept / (height * width)
    assert effect(Recipe("c", (Canvas(side_px=side), Resize())), shape).cut == pytest.approx(share, abs=1e-4)
    assert effect(load_recipe("fit"), shape).cut == effect(load_recipe("photo-cell"), shape).cut == 0


def test_a_custom_framing_says_itself_what_it_pads_and_cuts():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Halved(Framing):
        op: ClassVar[str] = "halved"

        def padded_fraction(self, height_px: int, width_px: int, visible_px: int) -> float:
            return visible_px / 1000

        def cut_fraction(self, height_px: int, width_px: int) -> float:
            return 0.5

    assert effect(Recipe("h", (Halved(),)), (300, 300)) == FrameEffect("x", SIZE_PX / 1000, 0.5)
    cropped = Recipe("h", (Canvas(side_px=300), CenterCrop(side_px=100), Resize()))
    assert effect(cropped, (100, 100)).padding == 0


def test_effects_are_means_over_the_frames_looked_at():
    recipe = load_recipe("raw")
    one, other = effect(recipe, (450, 450)), effect(recipe, (100, 900))
    both = effect(recipe, (450, 450), (100, 900))
    assert both.padding == pytest.approx((one.padding + other.padding) / 2)
    assert both.cut == pytest.approx((one.cut + other.cut) / 2)
    weighted = FramesFound(class_name="x", num_looked_at=4, sizes=((450, 450, 3), (100, 900, 1)))
    assert frame_effects([weighted], recipe)[0].cut == pytest.approx(other.cut / 4)
    assert frame_effects([FramesFound(class_name="x", num_looked_at=1)], recipe) == []


def notes(recipe: Recipe, *frames: FramesFound) -> list[str]:
    effects = frame_effects(frames, recipe)
    return [*effect_notes(effects, recipe), *telling_notes(effects)]


def test_notes_about_frames():
    recipe = load_recipe("report-a")
    assert notes(recipe, found("a", (450, 450)), found("b", (450, 450))) == []
    (cut,) = notes(recipe, found("a", (600, 600)), found("b", (600, 600)))
    assert "44% of the frames is cut off" in cut
    (padded,) = notes(recipe, found("a", (224, 224)), found("b", (224, 224)))
    assert f"{1 - (224 / 270) ** 2:.0%} of the cached square is padding" in padded
    said, telling = notes(recipe, found("Blast", (224, 224)), found("Healthy", (600, 600)))
    assert "Blast: 31% of the cached square is padding" in said
    assert "Healthy: 0% of the cached square is padding, 44%" in said
    assert "by that alone" in telling
    assert notes(load_recipe("fit"), found("Blast", (224, 224)), found("Healthy", (600, 600))) == []


def test_classes_of_other_sizes_and_backgrounds_are_reported_for_any_recipe():
    alike = [found("a", (450, 450)), found("b", (450, 450)), found("", (20, 20), ground="bright")]
    assert list(size_notes(alike)) == []
    (sizes,) = size_notes([found("Blast", (224, 224)), found("Healthy", (600, 500))])
    assert "Blast 224x224, Healthy 600x500" in sizes
    (grounds,) = size_notes([found("Blast", (9, 9)), found("Healthy", (9, 9), ground="bright")])
    assert "Blast black, Healthy bright" in grounds


@pytest.mark.parametrize(
    ("frames", "preset"),
    [
        ([found("hem", (450, 450)), found("all", (450, 450))], "report-a"),
        ([found("hem", (450, 450)), found("all", (441, 450))], "report-a"),
        ([found("hem", (450, 450)), found("all", (200, 450))], "fit"),
        ([found("a", (224, 224)), found("b", (600, 600))], "fit"),
        ([found("a", (224, 224), ground="bright"), found("b", (224, 224), ground="bright")], "photo"),
        ([found("a", (1944, 2592), ground="bright")], "photo-cell"),
        ([found("a", (224, 224)), found("b", (224, 224), ground="bright")], "photo"),
        ([found("a", (224, 224), ground="grey")], "photo"),
    ],
)
def test_the_suggested_preset(frames, preset):
    for order in itertools.permutations(frames):
        suggested, why = suggested_recipe(order)
        assert suggested == preset
        assert "px" in why
    assert load_recipe(preset).name == preset


def test_nothing_is_suggested_where_nothing_is_known():
    assert suggested_recipe([]) is None
    assert suggested_recipe([FramesFound(class_name="a", num_looked_at=3)]) is None


def reading(low: float, accuracy: float = 0.9) -> Reading:
    finding = FrameFinding(
        balanced_accuracy=accuracy,
        low=low,
        high=1.0,
        num_images=24,
        folds_by="image, for no subject is known",
        features=("height",),
        classes=(("Blast", "224x224 px, 100% padded (31% of the square)"), ("Healthy", "600x600 px")),
    )
    return Reading(frames=(found("Blast", (224, 224)), found("Healthy", (600, 600))), frame_finding=finding)


def test_frames_that_predict_the_class_are_the_first_caution_and_appear_once():
    said = cautions(reading(low=0.8), load_recipe("report-a"))
    assert "balanced accuracy of 0.90 (99 % interval 0.80 to 1.00, chance 0.50; 24 images" in said[0]
    assert "Blast: 224x224 px, 100% padded" in said[0]
    assert "--recipe fit" in said[0]
    assert "does not suit" in said[1]
    assert len(said) == 2
    assert cautions(reading(low=0.8), load_recipe("report-a"), with_finding=False) == said[1:]
    # A recipe that pads and cuts nothing is no cure for itself.
    (fitted,) = cautions(reading(low=0.8), load_recipe("fit"))
    assert "--recipe" not in fitted


@pytest.mark.parametrize(("low", "accuracy"), [(0.49, 0.9), (0.51, 0.59)])
def test_chance_differences_are_not_reported(low, accuracy):
    assert cautions(reading(low=low, accuracy=accuracy), load_recipe("fit")) == []


def test_a_common_size_does_not_predict_the_class():
    frames = [found("a", (224, 224), (224, 224), (600, 600)), found("b", (600, 600), (600, 600), (224, 224))]
    mixed = [
        FramesFound(class_name=one.class_name, num_looked_at=3, sizes=((*one.sizes[0][:2], 2), (*one.sizes[2][:2], 1)))
        for one in frames
    ]
    assert list(size_notes(mixed)) == []
