from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_data.operations.clahe import Clahe, ClaheLab, ClaheLightness
from leukemia_data.operations.colour import Gray, GrayWorld, StainMacenko, StainReinhard
from leukemia_data.operations.filters import Gabor, HighPass, MeanFilter, Unsharp
from leukemia_data.operations.framing import Canvas, CropToCell, Fit
from leukemia_data.operations.operation import OPERATIONS, Window
from leukemia_data.operations.resizing import CenterCrop, Resize, resize_antialiased, resize_area


def test_only_steps_that_know_the_size_depend_on_it():
    dependent = [CenterCrop(), Resize(), Resize(method="antialias"), Fit(), CropToCell()]
    others = [OPERATIONS.get(op)() for op in OPERATIONS if op not in ("center_crop", "resize", "fit", "crop_to_cell")]
    free = [*others, CenterCrop(side_px=270), Fit(side_px=270), CropToCell(side_px=270)]
    assert all(step.depends_on_size for step in dependent)
    assert not any(step.depends_on_size for step in free)


def test_which_steps_find_the_cell_and_which_keep_the_background():
    steps = {op: OPERATIONS.get(op)() for op in OPERATIONS}
    finding = {op for op, step in steps.items() if step.finds_the_cell}
    keeping = {op for op, step in steps.items() if step.keeps_the_background}
    assert finding == {"clahe_lab", "stain_macenko", "stain_reinhard"}
    assert keeping == {*finding, "canvas", "center_crop", "gray_world", "gray"}


@pytest.mark.parametrize("op", OPERATIONS)
def test_names_and_defaults(op):
    operation = OPERATIONS.get(op)
    assert operation.op == op
    assert operation.version == 1
    assert operation().output_side(450, 450) == 450
    assert hash(operation()) == hash(operation())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanFilter(size_px=4), "mean_filter: size_px must be an odd number"),
        (lambda: MeanFilter(size_px=1), "odd number in 3..63"),
        (lambda: HighPass(size_px=65), "high_pass: size_px"),
        (lambda: Gabor(size_px=6), "gabor: size_px"),
        # The first report's value: the message says why it is impossible.
        (lambda: Gabor(lambda_px=1.0), "at least 2, got 1.0.*Nyquist"),
        (lambda: Gabor(lambda_px=float("nan")), "lambda_px must be at least 2"),
        (lambda: Gabor(lambda_px=10.5), r"at most 2 \* size_px = 10"),
        (lambda: Gabor(lambda_px=2.0, psi_deg=90.0), "another phase"),
        (lambda: Gabor(sigma_px=0.0), "sigma_px"),
        (lambda: Gabor(gamma=0.0), "gamma"),
        (lambda: Gabor(theta_deg=361.0), "theta_deg"),
        (lambda: Gabor(psi_deg=float("inf")), "psi_deg"),
        (lambda: Gabor(base="grey"), "base must be image or gray"),
        (lambda: ClaheLab(clip_limit=0.0), "clahe_lab: clip_limit"),
        (lambda: ClaheLab(tiles=65), "clahe_lab: tiles"),
        (lambda: StainMacenko(blue_stain=(0.5, 0.5, 0.5)), "blue_stain must be three densities.*length 1"),
        (lambda: StainMacenko(pink_stain=(-0.6, 0.8, 0.0)), "pink_stain must be"),
        (lambda: StainMacenko(blue_stain=(0.0, 0.8, 0.6)), "must absorb more red"),
        (lambda: StainMacenko(blue_strength=0.0), "blue_strength"),
        (lambda: StainMacenko(percentile=26.0), "percentile"),
        (lambda: StainMacenko(min_density=-0.1), "min_density"),
        (lambda: StainReinhard(mean_lab=(101.0, 0.0, 0.0)), "mean_lab must be"),
        (lambda: StainReinhard(mean_lab=(50.0, 0.0, -129.0)), "mean_lab must be"),
        (lambda: StainReinhard(std_lab=(1.0, 0.0, 1.0)), "std_lab must be"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_shortest_wave_is_two_pixels():
    assert Gabor(lambda_px=2.0).weights() is not None


@pytest.mark.parametrize("step", [MeanFilter(size_px=9), HighPass(size_px=9), Gabor(size_px=9), ClaheLab(tiles=5)])
def test_steps_that_do_not_fit_into_the_frame(step):
    assert step.output_side(10, 224) == 10
    with pytest.raises(UsageError, match="8 px"):
        step.output_side(8, 224)


def test_sides():
    assert Canvas(side_px=300).output_side(450, 224) == 300
    assert CenterCrop().output_side(450, 224) == 224
    for framing in (Fit, CropToCell):
        assert framing().output_side(450, 224) == 224
        assert framing(side_px=300).output_side(450, 224) == 300
    assert Resize().output_side(450, 224) == 224


# --- windows ----------------------------------------------------------------------------------------------------------


PRODUCED = Window(90, 100, 200, 450)


@pytest.mark.parametrize(
    ("step", "needed"),
    [
        (Gray(), PRODUCED),
        (MeanFilter(size_px=3), Window(89, 99, 201, 450)),
        (HighPass(size_px=7), Window(87, 97, 203, 450)),
        (Gabor(size_px=5), Window(88, 98, 202, 450)),
        (Unsharp(sigma_px=3.0), Window(81, 91, 209, 450)),
        # Tiles of 50 px: row 90 blends the tiles 1 and 2, row 199 the tiles 3 and 4; column 100 the tiles 1 and 2.
        (Clahe(tiles=9), Window(50, 50, 250, 450)),
        (ClaheLab(tiles=9), Window(50, 50, 250, 450)),
        (Clahe(tiles=8), Window.full(450)),
        (GrayWorld(), Window.full(450)),
        (StainMacenko(), Window.full(450)),
        (StainReinhard(), Window.full(450)),
        (ClaheLightness(tiles=9), Window(50, 50, 250, 450)),
        (Canvas(side_px=450), Window.full(450)),
        (Fit(side_px=450), Window.full(450)),
        (CropToCell(side_px=450), Window.full(450)),
    ],
)
def test_needed_windows(step, needed):
    assert step.needed(PRODUCED, 450, 450) == needed


def test_steps_that_change_the_side():
    assert CenterCrop(side_px=270).needed(Window.full(270), 450, 270) == Window(90, 90, 360, 360)
    assert Resize().needed(Window.full(128), 270, 128) == Window.full(270)


# --- pixels -----------------------------------------------------------------------------------------------------------


CHANGES = {
    "clahe": lambda image: Clahe(clip_limit=3.0).equalize(image, (9, 9)),
    "clahe of L": lambda image: ClaheLightness(clip_limit=3.0).equalize(image, (9, 9)),
    "clahe of a cell's L": lambda image: ClaheLab(clip_limit=3.0).equalize(image, (9, 9)),
    "unsharp": Unsharp(sigma_px=3.0, strength=1.5).change,
    "area": lambda image: resize_area(image, 45),
    "antialias": lambda image: resize_antialiased(image, 45),
    "mean": MeanFilter(size_px=3).change,
    "high-pass": HighPass(size_px=3).change,
    "gabor": Gabor().change,
    "gray-world": GrayWorld().change,
    "gray": Gray().change,
}


@pytest.mark.parametrize("operation", CHANGES.values(), ids=CHANGES)
def test_inputs_are_left_alone_and_views_are_taken(make_noise, rng, operation):
    frame = make_noise(rng, 120, 120)
    before = frame.copy()
    view = frame[10:100, 20:110]
    result = operation(view)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(result, operation(view.copy()))
    assert result.dtype == np.uint8
    assert result.shape[2] == 3
    assert not np.shares_memory(result, frame)
