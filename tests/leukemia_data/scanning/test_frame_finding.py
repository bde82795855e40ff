"""Findings about frames that predict the class."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from leukemia_data.operations.recipe import load_recipe
from leukemia_data.scanning.frame_finding import (
    MIN_IMAGES,
    FrameTraits,
    Ground,
    SeenFrame,
    find_telling_frames,
    frame_features,
)
from leukemia_data.scanning.frame_notes import SizedRecipe
from leukemia_data.sources.reading import Reading

BLACK, WHITE = Ground((0, 0, 0), 0, 1, "black"), Ground((231, 220, 235), 4, 0, "bright")
SIZED = SizedRecipe(load_recipe("report-a"), 224)


def traits(side: int = 450, ground: Ground | None = BLACK, file_format: str = "PNG", mode: str = "RGB") -> FrameTraits:
    return FrameTraits(side, side, mode, file_format, ground)


def seen(num: int = 12, subjects: bool = False, **classes: FrameTraits) -> list[SeenFrame]:
    return [
        SeenFrame(one, name, f"{name}{number % 4}" if subjects else "")
        for name, one in classes.items()
        for number in range(num)
    ]


def test_two_sizes_are_noted_with_what_the_recipe_pads_and_cuts():
    found = find_telling_frames(seen(Blast=traits(224), Healthy=traits(600)), SIZED)
    assert found.tells_class
    assert (found.balanced_accuracy, found.num_images, found.features) == (1.0, 24, ("height",))
    assert "no subject is known" in found.folds_by
    blast, healthy = dict(found.classes).values()
    assert blast == f"224x224 px, 100% padded ({1 - (224 / 270) ** 2:.0%} of the square)"
    assert healthy == f"600x600 px, 100% cropped ({1 - (450 / 600) ** 2:.0%} of the frame)"
    without = find_telling_frames(seen(Blast=traits(224), Healthy=traits(600)))
    assert dict(without.classes) == {"Blast": "224x224 px", "Healthy": "600x600 px"}


@pytest.mark.parametrize(
    ("healthy", "feature", "words"),
    [
        (traits(ground=WHITE), "ground", "ground 231/220/235"),
        (traits(file_format="JPEG"), "file format", "100% JPEG"),
        (traits(mode="L"), "mode", "100% L"),
        (FrameTraits(450, 600, "RGB", "PNG", BLACK), "width", "450x600 px"),
    ],
)
def test_every_single_trait_is_reported(healthy, feature, words):
    found = find_telling_frames(seen(Blast=traits(), Healthy=healthy), SIZED)
    assert found.tells_class
    assert found.features == (feature,)
    assert words in dict(found.classes)["Healthy"]


def test_a_file_format_is_named_rather_than_its_traces_in_the_background():
    """Compression changes the background around the cell, so the format is named first."""
    grounds = [Ground((0, 0, 0), 0, 1 if number == 0 else 0.4, "black") for number in range(12)]
    healthy = [SeenFrame(traits(file_format="JPEG", ground=ground), "Healthy", "") for ground in grounds]
    found = find_telling_frames([*seen(Blast=traits()), *healthy])
    assert (found.balanced_accuracy, found.features) == (1.0, ("file format",))
    alike = [SeenFrame(traits(file_format="JPEG", ground=grounds[1]), "Healthy", "")] * 12
    assert find_telling_frames([*seen(Blast=traits()), *alike]).features == ("file format",)


def test_equal_frames_predict_nothing_and_neither_do_few():
    alike = find_telling_frames(seen(a=traits(), b=traits()))
    assert (alike.balanced_accuracy, alike.tells_class) == (0.5, False)
    assert find_telling_frames(seen(MIN_IMAGES - 1, a=traits(224), b=traits(600))) is None
    assert find_telling_frames(seen(a=traits())) is None
    assert find_telling_frames([]) is None


def test_the_folds_are_by_subject_where_there_are_enough():
    by_subject = find_telling_frames(seen(subjects=True, a=traits(224), b=traits(600)))
    assert by_subject.folds_by == "subject, of 8"
    assert by_subject.tells_class
    frames = [*seen(subjects=True, a=traits(224)), *(SeenFrame(traits(600), "b", "only") for _ in range(12))]
    assert find_telling_frames(frames).folds_by == "image, for b has 1 subject"
    some = [*seen(subjects=True, a=traits(224), b=traits(600)), SeenFrame(traits(600), "b", "")]
    assert find_telling_frames(some).folds_by == "subject, of 8, and 1 images of unknown ones"


def test_classes_dealt_at_random_to_two_cameras_are_seldom_reported():
    rng = np.random.default_rng(2)
    cameras = [traits(224, BLACK), traits(600, WHITE, "JPEG")]
    frames = [
        [SeenFrame(cameras[int(rng.integers(2))], "ab"[number % 2], "") for number in range(24)] for _ in range(40)
    ]
    assert sum(find_telling_frames(one, SIZED).tells_class for one in frames) <= 3


def test_features_are_those_that_are_documented():
    named = frame_features([traits(224), traits(600, WHITE, "JPEG", "L")], SIZED)
    values = {}
    for name, column in named:
        values.setdefault(name, []).append(column.tolist())
    assert values == {
        "height": [[224, 600]],
        "width": [[224, 600]],
        "aspect": [[1, 1]],
        "padding": [[pytest.approx(1 - (224 / 270) ** 2), 0]],
        "crop": [[0, pytest.approx(1 - (450 / 600) ** 2)]],
        "ground": [[0, 231], [0, 220], [0, 235]],
        "spread of the ground": [[0, 4]],
        "exact black in the ground": [[1, 0]],
        "file format": [[0, 1], [1, 0]],
        "mode": [[0, 1], [1, 0]],
    }
    not_decoded = frame_features([traits(224), traits(600, None)])
    assert {"padding", "ground"}.isdisjoint(name for name, _ in not_decoded)


def test_where_some_are_decoded_those_count():
    frames = [*seen(a=traits(), b=traits(ground=WHITE)), *seen(30, a=traits(ground=None), b=traits(ground=None))]
    found = find_telling_frames(frames)
    assert (found.num_images, found.features) == (24, ("ground",))


def test_the_finding_is_kept_in_the_reading_and_readings_without_one_are_read():
    found = find_telling_frames(seen(a=traits(224), b=traits(600)), SIZED)
    reading = Reading(frame_finding=found)
    assert Reading.from_dict(reading.to_record()) == reading
    earlier = Reading().to_dict()
    del earlier["frame_finding"]
    assert Reading.from_dict(earlier) == Reading()
    assert dataclasses.replace(reading, frame_finding=None) == Reading()
