from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cli.ldata.source import repeat_option


def columns_of(sheet: np.ndarray) -> int:
    """Number of pictures beside each other: runs of columns that are dark somewhere down the middle of the sheet."""
    dark = (sheet.min(axis=2)[sheet.shape[0] // 4 : -sheet.shape[0] // 4] < 60).mean(axis=0) > 0.3
    return int((np.diff(dark.astype(int)) == 1).sum())


def test_sheet_shows_both_classes_step_by_step(scratch: Path, cells: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("preview", cells, "--images", 2, "--out", "sheet.png", "--json"))
    assert told["out"] == "sheet.png"
    assert [name.rsplit("_", 1)[1] for name in told["images"]] == ["hem.bmp", "hem.bmp", "all.bmp", "all.bmp"]
    sheet = cv2.imread("sheet.png")
    height, width = sheet.shape[:2]
    assert 600 < height < 1400
    assert 1200 < width < 2400
    # raw, canvas, CLAHE, unsharp, crop, 128 px, 224 px
    assert columns_of(sheet) == 7


def test_sizes_and_recipe_decide_the_columns(scratch: Path, cells: Path, ldata: Callable) -> None:
    result = ldata("preview", cells, "--recipe", "raw", "--size", 64, "--images", 1)
    assert result.exit_code == 0
    assert "2 images, recipe raw: preview.png" in result.stdout
    assert columns_of(cv2.imread("preview.png")) == 3


def test_steps_after_the_first_that_knows_the_size_are_shown_for_each(
    scratch: Path, cells: Path, ldata: Callable
) -> None:
    assert ldata("preview", cells, "--recipe", "photo-cell", "--images", 1).exit_code == 0
    # raw, then crop to the cell and CLAHE at 128 and at 224 px
    assert columns_of(cv2.imread("preview.png")) == 1 + 2 * 2


def test_comparison_has_a_column_for_each_recipe(
    scratch: Path, cells: Path, ldata: Callable, json_of: Callable
) -> None:
    Path("mine.toml").write_text('[[step]]\nop = "canvas"\n[[step]]\nop = "resize"\n', encoding="utf-8")
    told = json_of(ldata("preview", cells, "--compare", "crop", "lab-clahe", "mine.toml", "--images", 1, "--json"))
    assert told["recipes"] == ["crop", "lab-clahe", "mine"]
    assert [name.rsplit("_", 1)[1] for name in told["images"]] == ["hem.bmp", "all.bmp"]
    assert columns_of(cv2.imread("preview.png")) == 1 + 3


def test_comparison_may_come_before_the_source(scratch: Path, cells: Path, ldata: Callable) -> None:
    result = ldata("preview", "--size", 48, "--compare", "raw", "crop", cells, "--images", 1, "--out", "sheet.png")
    assert result.exit_code == 0, result.output
    assert "2 images, recipes raw, crop: sheet.png" in result.stdout


def test_the_words_of_compare_are_spread(scratch: Path) -> None:
    Path("cells").mkdir()

    def spread(line: str) -> str:
        return " ".join(repeat_option(line.split(), "--compare"))

    both = "--compare raw --compare crop"
    assert spread("cells --compare raw crop") == f"cells {both}"
    assert spread("--compare raw crop cells --images 2") == f"{both} cells --images 2"
    assert spread("--compare=raw crop -h") == "--compare=raw --compare crop -h"
    assert spread("--compare raw --images 2 cells") == "--compare raw --images 2 cells"
    assert spread(both) == both
    assert spread("--compare raw -- crop") == "--compare raw -- crop"
    # A word that is neither a recipe nor there is taken for a recipe, so that the message lists those there are.
    assert spread("--compare raw corp cells") == "--compare raw --compare corp cells"
    assert spread("cells --images 2") == "cells --images 2"


def test_compare_without_a_recipe_is_refused(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    assert "--compare names no recipe" in error_of(ldata("preview", "cells", "--compare", "--out", "x.png"), 2)
    assert not (scratch / "x.png").exists()


def test_source_is_noted_and_chosen_as_by_build(
    scratch: Path, ldata: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_SUBJECTS", 3)
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_CELLS", 2)
    result = ldata("preview", "--images", 1)
    assert result.exit_code == 0
    assert "built-in sample" in result.stderr
    assert Path("preview.png").is_file()


def test_unusable_image_is_left_out_with_a_note(
    scratch: Path, write_image: Callable, ldata: Callable, json_of: Callable
) -> None:
    write_image(scratch / "in" / "a" / "1.png", np.full((30, 30, 3), 90, np.uint8))
    write_image(scratch / "in" / "b" / "1.png", np.full((30, 30, 3), 90, np.uint8))
    (scratch / "in" / "b" / "2.png").write_bytes(b"rubbish")
    result = ldata("preview", "in", "--recipe", "raw", "--json")
    assert json_of(result)["images"] == ["a/1.png", "b/1.png"]
    assert "b/2.png" in result.stderr.replace("\\", "/")


@pytest.mark.parametrize(
    ("options", "exit_code", "word"),
    [
        (["nowhere"], 2, "nowhere"),
        (["in", "--out", "no/sheet.png"], 1, "no/sheet.png"),
        (["in", "--images", 0], 2, "--images"),
        (["in", "--size", 0], 2, "--size"),
        (["in", "--recipe", "nope"], 2, "nope"),
        (["in"], 1, "none of the chosen images"),
        (["in", "--compare", "raw", "crop"], 1, "none of the chosen images"),
        (["in", "--compare", "raw", "corp"], 2, "no recipe 'corp': presets are"),
        (["in", "--compare"], 2, "--compare"),
        (["in", "--compare", "raw", "--recipe", "report-a"], 2, "exclude each other"),
        (["in", "--compare", "raw", "--size", 64, "--size", 128], 2, "give --size once"),
        (["in", "--compare", "report-b", "--size", 451], 2, "cannot cut 451 px"),
    ],
)
def test_wrong_request_leaves_the_earlier_sheet(
    options: list[object], exit_code: int, word: str, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    for class_name in "ab":
        (scratch / "in" / class_name).mkdir(parents=True)
        (scratch / "in" / class_name / "1.png").write_bytes(b"rubbish")
    Path("preview.png").write_bytes(b"earlier")
    assert word in error_of(ldata("preview", *options), exit_code).replace("\\", "/")
    assert Path("preview.png").read_bytes() == b"earlier"
