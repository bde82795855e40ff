"""Scans: a source, its frames and the effect of a recipe on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.errors import AmbiguousSourceError
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.scanning.scan import Scan, scan
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions


@pytest.fixture
def source(tmp_path: Path, make_frame: Callable, write_image: Callable) -> Callable[..., Path]:
    """``source(blast=(64, "black"), normal=...)``: two cells a class, of a side and on a ground."""

    def write(**classes: tuple[int, str]) -> Path:
        rng = np.random.default_rng(3)
        for name, (side_px, ground) in classes.items():
            for number in range(2):
                # A large one is even, which takes less time to write.
                is_small = side_px < 1000
                frame = make_frame(rng, side_px, side_px) if is_small else np.zeros((side_px, side_px, 3), np.uint8)
                write_image(tmp_path / name / f"{number}.png", frame if ground == "black" else 255 - frame)
        return tmp_path

    return write


def look(root: Path, recipe: str = "report-a", **options) -> Scan:
    return scan([root], load_recipe(recipe), options=ReadingOptions.parse(**options))


@pytest.mark.parametrize(
    ("side_px", "ground", "preset"),
    [(450, "black", "report-a"), (224, "black", "fit"), (224, "bright", "photo"), (1900, "bright", "photo-cell")],
)
def test_the_preset_that_suits(source, side_px, ground, preset):
    found = look(source(blast=(side_px, ground), normal=(side_px, ground)))
    assert found.suggested == preset
    assert found.lines()[-1].startswith(f"suggested recipe: {preset} (")
    assert bool(found.cautions) == (preset != "report-a")
    assert look(source(blast=(side_px, ground), normal=(side_px, ground)), preset).cautions == ()


def test_classes_of_other_frames(source):
    found = look(source(Blast=(224, "black"), Healthy=(600, "bright")))
    assert [any(word in text for text in found.cautions) for word in ("padding", "cameras", "grounds")] == [True] * 3
    told = found.to_dict()
    effects = {one["class"]: (one["padding"], one["cut"]) for one in told["effects"]}
    assert effects["Blast"] == (pytest.approx(1 - (224 / 270) ** 2, abs=1e-4), 0)
    assert effects["Healthy"] == (0, pytest.approx(1 - (450 / 600) ** 2, abs=1e-4))


def test_everything_as_json(source):
    found = look(source(blast=(64, "black"), normal=(64, "black")), classes="normal,blast")
    told = json.loads(json.dumps(found.to_dict()))
    assert Reading.from_dict(told["reading"]) == found.reading
    assert (told["num_images"], told["recipe"], told["suggested_recipe"]) == (4, "report-a", "fit")
    assert told["cautions"] == list(found.cautions)
    assert [name for name, _ in told["reading"]["classes"]] == ["normal", "blast"]
    assert any(line.startswith("changes are told by: size") for line in found.lines())


def test_doubtful_subjects_are_a_caution(tmp_path, write_tree):
    write_tree(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = "0.png,x,p1\n1.png,y,p1\n2.png,x,p2\n3.png,y,p3\n"
    (tmp_path / "cells.csv").write_text(f"path,label,subject\n{rows}", encoding="utf-8")
    assert any("p1" in text and "--subject-column" in text for text in look(tmp_path / "cells.csv").cautions)
    confirmed = look(tmp_path / "cells.csv", subject_column="subject")
    assert not any("p1" in text for text in confirmed.cautions)


def test_subjects_written_in_two_ways_are_a_caution(tmp_path, write_tree):
    write_tree(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = "0.png,x,P1\n1.png,x,p1\n2.png,y,Patient 01\n3.png,y,patient_1\n"
    (tmp_path / "cells.csv").write_text(f"path,label,subject\n{rows}", encoding="utf-8")
    found = look(tmp_path / "cells.csv")
    assert any("P1 = p1, Patient 01 = patient_1" in text and text.startswith("WRONG") for text in found.cautions)
    assert any(line.startswith("subjects: 4") and "WRONG: 2 may be one" in line for line in found.reading.lines())
    assert Reading.from_dict(json.loads(json.dumps(found.reading.to_dict()))) == found.reading
    confirmed = look(tmp_path / "cells.csv", subject_column="subject")
    assert not any("p1" in text for text in confirmed.cautions)


def test_unreadable_images_are_ignored(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"x")
    found = look(tmp_path)
    assert (found.suggested, found.cautions) == ("", ())
    assert found.lines()[-1] == "suggested recipe: none: no frame could be looked at"


def test_ambiguous_sources_are_refused_before_any_image_is_read(tmp_path, write_tree):
    write_tree(tmp_path, "sick/X/1.png", "sick/Y/1.png", "well/Z/1.png")
    with pytest.raises(AmbiguousSourceError):
        look(tmp_path)
