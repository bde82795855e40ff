from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leukemia_data.augmenting.appearance import Blur, Color, Cutout, Noise
from leukemia_data.augmenting.augmentation import Augmentation, augmentation_names, load_augmentation
from leukemia_data.augmenting.geometry import Rotate, Scale, Translate
from leukemia_data.augmenting.operation import Chance, may_happen
from leukemia_data.errors import UsageError

EVERYTHING = Augmentation(
    name='every "thing"',
    description="Zellen größer\n\ttab \\ \x7f",
    keep_black=False,
    flip_horizontal=Chance(p=0.5),
    flip_vertical=Chance(p=0.25),
    transpose=Chance(p=1e-5),
    quarter_turns=Chance(p=0.75),
    rotate=Rotate(p=1.0, degrees=33.3),
    scale=Scale(p=0.1, factor=(0.8, 1.25)),
    translate=Translate(p=0.2, fraction=0.1),
    color=Color(p=0.9, brightness=(0.8, 1.2), contrast=(0.5, 1.5), saturation=(0.0, 2.0), hue=(-0.1, 0.05)),
    blur=Blur(p=0.3, kernel_px=5, sigma_px=(0.1, 2.0)),
    noise=Noise(p=0.4, variance=30.0),
    cutout=Cutout(p=0.6, fraction=0.125),
)


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- presets ------------------------------------------------------------------------------------------------------


def test_four_presets_are_shipped():
    assert augmentation_names() == ["flips", "none", "report-a", "report-a-geometry", "report-b"]


@pytest.mark.parametrize("name", ["flips", "none", "report-a", "report-a-geometry", "report-b"])
def test_presets_are_named_described_and_keep_the_background_black(name):
    preset = load_augmentation(name)
    assert preset.name == name
    assert preset.description
    assert preset.keep_black


def test_none_does_nothing():
    preset = load_augmentation("none")
    assert preset == Augmentation(name="none", description=preset.description)
    assert not preset.moves
    assert not preset.warps


def test_flips_are_the_eight_views():
    preset = load_augmentation("flips")
    half = Chance(p=0.5)
    assert (preset.flip_horizontal, preset.flip_vertical, preset.transpose) == (half, half, half)
    assert preset.moves
    assert not preset.warps


def test_report_a_is_what_the_first_report_did():
    preset = load_augmentation("report-a")
    half = Chance(p=0.5)
    # torchvision's jitter of x draws factors from max(0, 1 - x) to 1 + x, and hue from -x to x.
    color = Color(p=1.0, brightness=(0.8, 1.2), contrast=(0.0, 2.2), saturation=(0.0, 2.2), hue=(-0.1, 0.1))
    expected = Augmentation(
        name="report-a",
        description=preset.description,
        flip_horizontal=half,
        flip_vertical=half,
        rotate=Rotate(p=1.0, degrees=20.0),
        color=color,
    )
    assert preset == expected


def test_report_b_is_what_the_second_report_did():
    preset = load_augmentation("report-b")
    half = Chance(p=0.5)
    expected = Augmentation(
        name="report-b",
        description=preset.description,
        flip_horizontal=half,
        flip_vertical=half,
        transpose=half,
        rotate=Rotate(p=0.5, degrees=180.0),
        blur=Blur(p=0.2, kernel_px=3, sigma_px=(0.8, 0.8)),
        noise=Noise(p=0.2, variance=30.0),
        cutout=Cutout(p=0.5, fraction=0.125),
    )
    assert preset == expected


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flips", "none", "report-a", "report-a-geometry", "report-b"])
def test_a_preset_written_as_a_file_is_read_back_equal(name, tmp_path):
    preset = load_augmentation(name)
    assert load_augmentation(write(tmp_path, preset.to_toml())) == preset
    assert Augmentation.from_dict(preset.to_dict()) == preset


def test_every_parameter_survives_a_round_trip(tmp_path):
    assert load_augmentation(write(tmp_path, EVERYTHING.to_toml())) == EVERYTHING
    assert Augmentation.from_dict(EVERYTHING.to_dict()) == EVERYTHING


def test_toml_says_all_parameters_even_those_left_at_their_defaults():
    text = Augmentation(name="grey", color=Color(p=1.0, saturation=(0.0, 0.0))).to_toml()
    for line in ('name = "grey"', "keep_black = true", "[color]", "brightness = [1.0, 1.0]", "hue = [0.0, 0.0]"):
        assert line in text.splitlines()


def test_a_file_without_a_name_is_named_after_its_path(tmp_path):
    assert load_augmentation(write(tmp_path, "")) == Augmentation(name="mine")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_any_editor_are_read(tmp_path, start, line_end):
    path = tmp_path / "mine.toml"
    path.write_bytes(start + "[transpose]\np = 0.5\n".replace("\n", line_end).encode())
    assert load_augmentation(str(path)) == Augmentation(name="mine", transpose=Chance(p=0.5))


# --- meaning ------------------------------------------------------------------------------------------------------


def test_what_has_no_chance_is_off():
    assert not may_happen(None)
    assert not may_happen(Chance(p=0.0))
    assert may_happen(Chance(p=0.01))
    still = Augmentation(name="still", flip_vertical=Chance(p=0), rotate=Rotate(p=0.0, degrees=90.0))
    assert not still.moves
    assert not still.warps


@pytest.mark.parametrize(
    ("fraction", "size_px", "side_px"), [(0.125, 224, 28), (0.125, 128, 16), (0.001, 100, 1), (1, 9, 9)]
)
def test_side_of_the_cut_out_square(fraction, size_px, side_px):
    assert Cutout(p=1.0, fraction=fraction).side_px(size_px) == side_px


def test_factors_that_leave_nothing_to_see_are_warned_of():
    warnings = load_augmentation("report-a").warnings()
    assert len(warnings) == 2
    assert "contrast = [0, 2.2] draws factors under 0.3" in warnings[0]
    assert "saturation" in warnings[1]
    for name in ("none", "flips", "report-a-geometry", "report-b"):
        assert load_augmentation(name).warnings() == []
    assert Augmentation(name="off", color=Color(p=0.0, brightness=(0.0, 1.0))).warnings() == []


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p = ", r"mine\.toml: not valid TOML"),
        (
            "[flip]\np = 0.5",
            r"mine\.toml: unknown key 'flip'.*; it takes name, description, keep_black, black_level, flip_horizontal",
        ),
        ("flip_vertical = 0.5", r"\[flip_vertical\]: expected a table, got 0\.5; it takes p"),
        ("[rotate]\np = 1\nangle = 3", r"\[rotate\]: unknown key 'angle'; it takes p, degrees"),
        ("[rotate]\np = 1", r"\[rotate\]: degrees is missing; it takes p, degrees"),
        ("[color]", r"\[color\]: p is missing"),
        ("[flip_vertical]\np = 1.5", r"\[flip_vertical\]: p must lie in 0\.\.1, got 1\.5"),
        ("[flip_vertical]\np = nan", r"p must lie in 0\.\.1, got nan|p must be a number, got nan"),
        ("[flip_vertical]\np = true", r"\[flip_vertical\]: p must be a number, got True"),
        ("[rotate]\np = 1\ndegrees = 200", r"degrees must lie in 0\.\.180, got 200"),
        ("[scale]\np = 1\nfactor = 2", r"\[scale\]: factor must be two numbers \[low, high\], got 2"),
        ("[scale]\np = 1\nfactor = [2, 1]", r"factor must be \[low, high\] within 0\.1\.\.10, got \[2\.0, 1\.0\]"),
        ("[translate]\np = 1\nfraction = 2", r"fraction must lie in 0\.\.1"),
        ("[color]\np = 1\nhue = [-1, 1]", r"\[color\]: hue must be \[low, high\] within -0\.5\.\.0\.5"),
        ("[color]\np = 1\ncontrast = [0, 'a']", r"\[color\]: contrast must be a number, got 'a'"),
        ("[blur]\np = 1\nkernel_px = 4\nsigma_px = [1, 1]", r"\[blur\]: kernel_px must be odd and in 3\.\.63, got 4"),
        ("[blur]\np = 1\nkernel_px = 3.0\nsigma_px = [1, 1]", r"\[blur\]: kernel_px must be a whole number, got 3\.0"),
        ("[blur]\np = 1\nkernel_px = 3\nsigma_px = [0, 1]", r"sigma_px must be \[low, high\] within 0\.05\.\.50"),
        ("[noise]\np = 1\nvariance = -1", r"\[noise\]: variance must lie in 0\.\.65025"),
        ("[cutout]\np = 1\nfraction = 0", r"\[cutout\]: fraction must lie in \(0, 1\]"),
        ("name = 3", r"mine\.toml: name must be a text, got 3"),
        ("keep_black = 1", r"keep_black must be true or false, got 1"),
        ("black_level = 256", r"mine\.toml: black_level must lie in 0\.\.255, got 256"),
        ('black_level = "dark"', r"black_level must be a number, got 'dark'"),
    ],
)
def test_the_problem_of_a_file_is_reported(text, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        load_augmentation(write(tmp_path, text))


def test_unknown_names_and_absent_files_are_reported(tmp_path):
    with pytest.raises(
        UsageError, match=r"no augmentation 'flip': presets are flips, none, report-a, report-a-geometry, report-b"
    ):
        load_augmentation("flip")
    with pytest.raises(UsageError, match=r"augmentation file not found"):
        load_augmentation(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Chance(p=True), "p must be a number"),
        (lambda: Chance(p="0.5"), "p must be a number"),
        (lambda: Chance(p=float("nan")), "p must be a number"),
        (lambda: Rotate(p=1, degrees=float("inf")), "degrees must be a number"),
        (lambda: Scale(p=1, factor=1.2), "factor must be two numbers"),
        (lambda: Scale(p=1, factor=(0.9, None)), "factor must be a number"),
        (lambda: Blur(p=1, kernel_px=3.0, sigma_px=(1, 2)), "kernel_px must be a whole number"),
        (lambda: Augmentation(name="x", rotate=Scale(p=1, factor=(1, 1))), "rotate must be Rotate"),
        (lambda: Augmentation(name="x", flip_vertical=0.5), "flip_vertical must be Chance"),
        (lambda: Augmentation(name="x", keep_black="no"), "keep_black must be True or False"),
        (lambda: Augmentation(name="x", black_level=True), "black_level must be a number"),
    ],
)
def test_parameters_given_in_python_are_checked_like_those_of_a_file(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_numbers_of_numpy_and_lists_are_parameters():
    made = Augmentation(name="x", scale=Scale(p=np.float32(0.5), factor=[np.int64(1), 2]), black_level=np.uint8(3))
    assert made.scale == Scale(p=0.5, factor=(1.0, 2.0))
    assert Augmentation.from_dict(made.to_dict()) == made
