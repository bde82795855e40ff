from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_data.operations.clahe import Clahe, ClaheLab, ClaheLightness
from leukemia_data.operations.colour import Gray, GrayWorld, StainMacenko, StainReinhard
from leukemia_data.operations.filters import Gabor, HighPass, MeanFilter, Unsharp
from leukemia_data.operations.framing import Canvas, CropToCell, Fit
from leukemia_data.operations.operation import OPERATIONS, Operation
from leukemia_data.operations.recipe import Preprocessor, Recipe, load_recipe, preset_names
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.records.fingerprint import canonical_json

CANVAS = '[[step]]\nop = "canvas"\n'
PRESETS = [
    "crop",
    "fit",
    "gabor",
    "gray",
    "gray-world",
    "high-pass",
    "lab-clahe",
    "macenko",
    "mean-filter",
    "photo",
    "photo-cell",
    "raw",
    "reinhard",
    "report-a",
    "report-a-strong",
    "report-b",
]

FRAMED = {name: [128, 224] for name in ("fit", "photo", "photo-cell")}


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --- presets --------------------------------------------------------------------------------------------------


def test_the_shipped_presets():
    assert preset_names() == PRESETS


def test_report_a_is_what_the_first_report_did():
    assert load_recipe("report-a").steps == (
        Canvas(side_px=450),
        Clahe(clip_limit=3.0, tiles=9),
        Unsharp(sigma_px=3.0, strength=1.5),
        CenterCrop(side_px=270),
        Resize(method="area"),
    )


def test_report_b_is_a_centre_crop_to_the_size():
    assert load_recipe("report-b").steps == (Canvas(side_px=450), CenterCrop(side_px=None))


def test_raw_is_the_resized_frame():
    assert load_recipe("raw").steps == (Canvas(side_px=450), Resize(method="area"))


def test_lab_clahe_differs_from_report_a_in_the_equalization_only():
    steps = list(load_recipe("report-a").steps)
    steps[1] = ClaheLab(clip_limit=3.0, tiles=9)
    assert load_recipe("lab-clahe").steps == tuple(steps)


def test_the_stronger_trial_of_the_first_report():
    steps = list(load_recipe("report-a").steps)
    steps[1:3] = Clahe(clip_limit=4.0, tiles=9), Unsharp(sigma_px=12.0, strength=5.0)
    assert load_recipe("report-a-strong").steps == tuple(steps)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("gray", Gray()),
        ("gray-world", GrayWorld()),
        ("mean-filter", MeanFilter(size_px=3)),
        ("high-pass", HighPass(size_px=3)),
        ("gabor", Gabor(size_px=5, sigma_px=1.0, theta_deg=0.0, lambda_px=4.0, gamma=0.5, psi_deg=0.0)),
        ("macenko", StainMacenko()),
        ("reinhard", StainReinhard()),
    ],
)
def test_presets_of_one_step_differ_from_crop_in_it_only(name, step):
    canvas, *rest = load_recipe("crop").steps
    assert [canvas, *rest] == [Canvas(side_px=450), CenterCrop(side_px=270), Resize(method="area")]
    assert load_recipe(name).steps == (canvas, step, *rest)


def test_presets_for_photographs():
    equalization = ClaheLightness(clip_limit=1.5, tiles=4)
    assert load_recipe("fit").steps == (Fit(side_px=None, pad="border", method="area"),)
    assert load_recipe("photo").steps == (Fit(pad="white"), equalization)
    assert load_recipe("photo-cell").steps == (CropToCell(margin=0.2, pad="white"), equalization)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_described_and_reach_both_usual_sizes(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert [recipe.framed_side_px(size_px) for size_px in (128, 224)] == FRAMED.get(name, [450, 450])
    recipe.check_size(128)
    recipe.check_size(224)


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_with_every_operation(tmp_path):
    text = (
        'name = "everything"\ndescription = "Zellen größer"\n'
        '[[step]]\nop = "canvas"\nside_px = 300\n'
        '[[step]]\nop = "clahe"\nclip_limit = 4\ntiles = 6\n'
        '[[step]]\nop = "unsharp"\nsigma_px = 12\nstrength = 5\n'
        '[[step]]\nop = "center_crop"\nside_px = 200\n'
        '[[step]]\nop = "resize"\nmethod = "antialias"\n'
    )
    recipe = load_recipe(str(write_recipe(tmp_path, text)))
    assert recipe.name == "everything"
    assert recipe.description == "Zellen größer"
    assert recipe.steps == (
        Canvas(side_px=300),
        Clahe(clip_limit=4.0, tiles=6),
        Unsharp(sigma_px=12.0, strength=5.0),
        CenterCrop(side_px=200),
        Resize(method="antialias"),
    )
    assert [type(value) for value in (recipe.steps[1].clip_limit, recipe.steps[2].sigma_px)] == [float, float]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_any_editor_are_read(tmp_path, start, line_end):
    path = tmp_path / "mine.toml"
    path.write_bytes(start + f"{CANVAS}side_px = 300\n".replace("\n", line_end).encode())
    assert load_recipe(str(path)) == Recipe("mine", (Canvas(side_px=300),))


def test_a_file_without_a_name_is_named_after_the_file(tmp_path):
    assert load_recipe(str(write_recipe(tmp_path, CANVAS))).name == "mine"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (CANVAS + '[[step]]\nop = "sharpen"\n', ["step 2", "sharpen", "unsharp"]),
        (CANVAS + "[[step]]\nsigma_px = 3.0\n", ["step 2", "op"]),
        (CANVAS + "[[step]]\nop = 3\n", ["step 2", "3"]),
        (CANVAS + "[[step]]\nop = []\n", ["step 2", "[]"]),
        (CANVAS + '[[step]]\nop = "unsharp"\nsigma = 3.0\n', ["step 2", "sigma", "sigma_px"]),
        (CANVAS + '[[step]]\nop = "resize"\nversion = 1\n', ["step 2", "version"]),
        ('[[step]]\nop = "canvas"\nside_px = "450"\n', ["step 1", "side_px", "whole number"]),
        ('[[step]]\nop = "canvas"\nside_px = 450.0\n', ["step 1", "side_px", "whole number"]),
        ('[[step]]\nop = "canvas"\nside_px = true\n', ["step 1", "side_px", "whole number"]),
        ('[[step]]\nop = "canvas"\nside_px = 0\n', ["step 1", "side_px", "1..4096"]),
        ('[[step]]\nop = "canvas"\nside_px = 4097\n', ["step 1", "side_px", "1..4096"]),
        (CANVAS + '[[step]]\nop = "clahe"\nclip_limit = true\n', ["step 2", "clip_limit", "number"]),
        (CANVAS + '[[step]]\nop = "clahe"\nclip_limit = nan\n', ["step 2", "clip_limit", "nan"]),
        (CANVAS + '[[step]]\nop = "clahe"\nclip_limit = inf\n', ["step 2", "clip_limit", "inf"]),
        (CANVAS + f'[[step]]\nop = "clahe"\nclip_limit = 1{"0" * 400}\n', ["step 2", "clip_limit"]),
        (CANVAS + '[[step]]\nop = "clahe"\nclip_limit = 0\n', ["step 2", "clip_limit"]),
        (CANVAS + '[[step]]\nop = "clahe"\nclip_limit = 257\n', ["step 2", "clip_limit"]),
        (CANVAS + '[[step]]\nop = "clahe"\ntiles = 0\n', ["step 2", "tiles"]),
        (CANVAS + '[[step]]\nop = "clahe"\ntiles = 65\n', ["step 2", "tiles"]),
        (CANVAS + '[[step]]\nop = "unsharp"\nsigma_px = 0.05\n', ["step 2", "sigma_px"]),
        (CANVAS + '[[step]]\nop = "unsharp"\nsigma_px = 51\n', ["step 2", "sigma_px"]),
        (CANVAS + '[[step]]\nop = "unsharp"\nstrength = 0\n', ["step 2", "strength"]),
        (CANVAS + '[[step]]\nop = "unsharp"\nstrength = "1.5"\n', ["step 2", "strength", "number"]),
        (CANVAS + '[[step]]\nop = "center_crop"\nside_px = -1\n', ["step 2", "side_px"]),
        (CANVAS + '[[step]]\nop = "gabor"\nlambda_px = 1\n', ["step 2", "lambda_px", "at least 2", "Nyquist"]),
        (CANVAS + '[[step]]\nop = "stain_reinhard"\nmean_lab = [1, 2]\n', ["step 2", "mean_lab", "3 numbers"]),
        (CANVAS + '[[step]]\nop = "stain_reinhard"\nmean_lab = 5\n', ["step 2", "mean_lab", "3 numbers"]),
        (CANVAS + '[[step]]\nop = "stain_reinhard"\nmean_lab = [1, true, 2]\n', ["step 2", "mean_lab", "number"]),
        (CANVAS + '[[step]]\nop = "stain_reinhard"\nstd_lab = [1, nan, 2]\n', ["step 2", "std_lab", "nan"]),
        (
            CANVAS + '[[step]]\nop = "clahe"\n[[step]]\nop = "clahe_lab"\n',
            ["step 3, clahe_lab", "step 2, clahe", "black background", "before it"],
        ),
        (CANVAS + '[[step]]\nop = "resize"\nmethod = "bicubic"\n', ["step 2", "bicubic", "antialias"]),
        (CANVAS + '[[step]]\nop = "resize"\nmethod = 1\n', ["step 2", "method", "text"]),
        ('[[step]]\nop = "resize"\n', ["first step", "canvas, fit, crop_to_cell", "resize"]),
        ('[[step]]\nop = "fit"\npad = "grey"\n', ["step 1", "fit: pad", "border, black or white", "grey"]),
        ('[[step]]\nop = "fit"\npad = [0, 0, 0]\n', ["step 1", "pad", "text"]),
        ('[[step]]\nop = "fit"\nmethod = "nearest"\n', ["step 1", "fit: method", "nearest"]),
        ('[[step]]\nop = "fit"\nside_px = 0\n', ["step 1", "fit: side_px", "1..4096"]),
        ('[[step]]\nop = "fit"\nmargin = 0.1\n', ["step 1", "margin", "side_px, pad, method"]),
        ('[[step]]\nop = "crop_to_cell"\nmargin = -0.1\n', ["step 1", "crop_to_cell: margin", "[0, 2]"]),
        ('[[step]]\nop = "crop_to_cell"\nmargin = nan\n', ["step 1", "margin", "nan"]),
        ('[[step]]\nop = "crop_to_cell"\npad = "mirror"\n', ["step 1", "crop_to_cell: pad", "mirror"]),
        (
            '[[step]]\nop = "fit"\n[[step]]\nop = "clahe_lab"\n',
            ["step 2, clahe_lab", "step 1, fit, changes", "clahe_lightness"],
        ),
        ('name = "empty"\n', ["empty", "no [[step]]"]),
        ("steps = 5\n", ["steps"]),
        (f"name = 3\n{CANVAS}", ["name must be a text, got 3"]),
        (f"description = [1]\n{CANVAS}", ["description must be a text, got [1]"]),
        ('[step]\nop = "canvas"\n', ["[[step]]"]),
        ("step = [1, 2]\n", ["step 1", "table"]),
        ('[[step]]\nop = "canvas\n', ["not valid TOML"]),
    ],
)
def test_an_error_names_the_file_and_the_step(tmp_path, text, fragments):
    path = write_recipe(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    for fragment in (str(path), *fragments):
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_not_toml(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "größe"\n'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.toml"):
        load_recipe(str(path))


def test_a_missing_file_and_an_unknown_preset(tmp_path):
    with pytest.raises(UsageError, match=r"not found.*absent\.toml"):
        load_recipe(str(tmp_path / "absent.toml"))
    with pytest.raises(UsageError, match=r"report-c.*raw, reinhard, report-a, report-a-strong, report-b"):
        load_recipe("report-c")
    with pytest.raises(UsageError, match="presets are"):
        load_recipe("../recipe")


# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_px", [1, 224, 450, 451, 4096])
def test_a_resize_reaches_every_size(size_px):
    assert_makes(load_recipe("raw"), size_px)


def assert_makes(recipe: Recipe, size_px: int) -> None:
    """The size is accepted, and images are then of that size."""
    recipe.check_size(size_px)
    frame = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    assert Preprocessor(recipe, [size_px])(frame)[size_px].shape == (size_px, size_px, 3)


@pytest.mark.parametrize(
    ("steps", "size_px", "message"),
    [
        ((Canvas(),), 224, "ends at 450 px, not at 224 px"),
        ((Canvas(), CenterCrop(side_px=200)), 224, "ends at 200 px, not at 224 px"),
        ((Canvas(), Resize(), CenterCrop(side_px=100)), 224, "ends at 100 px"),
        ((Canvas(), CenterCrop()), 451, "cannot cut 451 px out of 450 px"),
        ((Canvas(side_px=17), Clahe(tiles=9), Resize()), 224, "9 tiles need more than 17 px"),
        ((Canvas(side_px=9), Unsharp(sigma_px=3.0), Resize()), 224, "too wide for 9 px"),
        ((Fit(side_px=450),), 224, "ends at 450 px, not at 224 px"),
        ((CropToCell(side_px=450), CenterCrop(side_px=200)), 224, "ends at 200 px"),
        ((Fit(), ClaheLightness(tiles=9)), 16, "9 tiles need more than 16 px"),
        ((Canvas(), Resize()), 0, "1..4096"),
        ((Canvas(), Resize()), 4097, "1..4096"),
    ],
)
def test_a_recipe_that_misses_the_size_is_refused(steps, size_px, message):
    with pytest.raises(UsageError, match=message):
        Recipe("mine", steps).check_size(size_px)


def test_sizes_that_just_fit():
    assert_makes(Recipe("mine", (Canvas(side_px=18), Clahe(tiles=9), Resize())), 5)
    assert_makes(Recipe("mine", (Canvas(side_px=10), Unsharp(sigma_px=3.0), Resize())), 5)
    assert_makes(Recipe("mine", (Canvas(side_px=450),)), 450)
    assert_makes(Recipe("mine", (Fit(side_px=450),)), 450)
    assert_makes(Recipe("mine", (Fit(), CenterCrop(side_px=100), Resize())), 224)


@pytest.mark.parametrize(
    ("steps", "count"),
    [
        ((Canvas(), Clahe(), CenterCrop(side_px=270), Resize()), 3),
        ((Canvas(), CenterCrop(), Unsharp()), 1),
        ((Canvas(side_px=224),), 1),
        ((Fit(), ClaheLightness()), 0),
        ((CropToCell(side_px=300), Unsharp(), Resize()), 2),
    ],
)
def test_steps_before_the_first_that_depends_on_the_size_are_shared(steps, count):
    assert Recipe("mine", steps).num_shared_steps == count


@pytest.mark.parametrize("cell_step", [ClaheLab(tiles=4), StainMacenko(), StainReinhard()])
@pytest.mark.parametrize("lifting", [Clahe(tiles=4), Unsharp(), MeanFilter(), HighPass(), Gabor(), Resize()])
def test_steps_on_the_cell_alone_come_before_those_that_change_the_background(cell_step, lifting):
    Recipe("mine", (Canvas(), cell_step, lifting, Resize()))
    with pytest.raises(UsageError, match=f"step 4, {cell_step.op},.*step 3, {lifting.op}, changes"):
        Recipe("mine", (Canvas(), CenterCrop(side_px=270), lifting, cell_step, Unsharp(), Resize()))


@pytest.mark.parametrize("kept", [Canvas(side_px=460), CenterCrop(), GrayWorld(), Gray(), ClaheLab(), StainMacenko()])
def test_other_steps_may_come_before_those_on_the_cell_alone(kept: Operation):
    recipe = Recipe("mine", (Canvas(), kept, StainReinhard(), ClaheLab(), Resize()))
    assert recipe.steps[1] == kept


def test_nan_is_refused_from_python_too():
    with pytest.raises(UsageError):
        Clahe(clip_limit=float("nan"))
    with pytest.raises(UsageError):
        Unsharp(strength=float("nan"))


# --- as a dictionary ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name):
    recipe = load_recipe(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("op", OPERATIONS)
def test_round_trip_of_every_operation_through_json(op):
    recipe = Recipe("mine", (Canvas(), OPERATIONS.get(op)()))
    stored = json.loads(canonical_json(recipe.to_dict()))
    assert Recipe.from_dict(stored) == recipe


def test_the_dictionary_names_every_operation_with_its_version():
    assert load_recipe("report-b").to_dict() == {
        "name": "report-b",
        "description": "The second report's centre crop to the cache's size, nothing else.",
        "steps": [
            {"op": "canvas", "version": 1, "side_px": 450},
            {"op": "center_crop", "version": 1, "side_px": None},
        ],
    }


def stored_with(**change: Any) -> dict[str, Any]:
    stored = load_recipe("report-a").to_dict()
    stored["steps"][1] |= change
    return stored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"report-a.*clahe version 2.*has version 1"),
        ({"version": 0}, r"report-a.*clahe version 0"),
        ({"op": "sharpen"}, r"report-a.*sharpen"),
        ({"lambda_px": 2.0}, r"report-a.*lambda_px"),
        ({"tiles": 9.5}, r"report-a.*tiles"),
    ],
)
def test_a_stored_recipe_that_this_installation_cannot_repeat_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(stored_with(**change))
