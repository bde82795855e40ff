"""Frames to predict compared with those of a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.record import Record
from leukemia_data.scanning.frame_notes import training_facts
from leukemia_data.scanning.scan import frame_difference
from leukemia_data.sources.reading import FramesFound, Reading

RECIPE = load_recipe("report-a")


def facts(*sizes: tuple[int, int], ground: str = "black") -> list[dict]:
    found = FramesFound("all", len(sizes), tuple((*size, 1) for size in sizes), (("RGB", len(sizes)),), ground)
    unlabelled = FramesFound("", 1, ((9, 9, 1),), (("RGB", 1),), "grey")
    return json.loads(json.dumps(training_facts(Reading(frames=(found, unlabelled)))))


@pytest.fixture
def files(tmp_path: Path, write_image):
    def write(*frames: tuple[int, int, int]) -> list[Record]:
        """Frames of height, width and level of the ground."""
        records = []
        for number, (height, width, level) in enumerate(frames):
            pixels = np.full((height, width, 3), level, np.uint8)
            pixels[height // 3 : height // 2, width // 3 : width // 2] = 90
            records.append(Record(record_id=f"{number}.png", path=write_image(tmp_path / f"{number}.png", pixels)))
        return records

    return write


def test_frames_like_those_of_training_are_not_spoken_of(files):
    assert frame_difference(facts((450, 450)), files(*[(450, 450, 0)] * 5), RECIPE, 224) is None
    assert frame_difference(facts((450, 450)), files((441, 450, 0), (450, 460, 3)), RECIPE, 224) is None
    assert frame_difference(facts((300, 300), (600, 600)), files((450, 500, 0)), RECIPE, 224) is None


def test_differences_are_given_with_counts(files):
    said = frame_difference(facts((450, 450)), files(*[(900, 1200, 240)] * 4), RECIPE, 224)
    assert "450x450 px on black ground" in said
    assert f"4 of 4 images are 900x1200 px, 100% cropped ({1 - 450 * 450 / (900 * 1200):.0%} of the frame)" in said
    assert "4 of 4 lie on bright ground" in said
    assert "\n" not in said


def test_one_kind_of_difference_alone(files):
    grounds = frame_difference(facts((64, 64)), files(*[(64, 64, 0)] * 3, (64, 64, 50)), RECIPE, 224)
    assert "1 of 4 lie on grey ground" in grounds
    assert "images are" not in grounds
    sizes = frame_difference(facts((450, 450)), files((450, 450, 0), (200, 200, 0)), RECIPE, 224)
    assert "1 of 2 images are 200x200 px, 100% padded" in sizes
    assert "lie on" not in sizes


def test_what_is_not_known_is_not_compared(files, tmp_path):
    records = files((90, 90, 0))
    assert frame_difference(None, records, RECIPE, 224) is None
    assert frame_difference([], records, RECIPE, 224) is None
    assert frame_difference([{"of": "a later version"}], records, RECIPE, 224) is None
    assert frame_difference(facts((450, 450)), [Record(record_id="x", path=tmp_path / "gone.png")], RECIPE, 224) is None
    assert training_facts(None) == []
    assert training_facts(Reading()) == []
    assert [found["class_name"] for found in facts((450, 450))] == ["all"]
