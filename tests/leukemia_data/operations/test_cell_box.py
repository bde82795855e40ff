from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.operations.framing import Box, border_colour, find_cell
from leukemia_data.sources.sample_cells import generate_cell

Frame = NDArray[np.uint8]
GROUND = (228, 216, 224)
RED_CELL = (212, 150, 160)
NUCLEUS = (96, 52, 128)
PLATELET = (140, 90, 165)


def disc(frame: Frame, centre: tuple[int, int], radius: float, colour: tuple[int, int, int]) -> Box:
    """Draw a disc about (row, column), in place, and return the box of its pixels."""
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    frame[inside] = colour
    return box_of(inside)


def box_of(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def photograph(height: int = 300, width: int = 400, ground: tuple[int, int, int] = GROUND) -> Frame:
    return np.full((height, width, 3), ground, np.uint8)


def joined(first: Box, second: Box) -> Box:
    return Box(*(min(first[k], second[k]) for k in (0, 1)), *(max(first[k], second[k]) for k in (2, 3)))


def assert_within(found: Box | None, expected: Box, tolerance_px: int) -> None:
    assert found is not None
    assert np.abs(np.subtract(found, expected)).max() <= tolerance_px


# --- colour of the border -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (6, 1), (2, 2), (2, 5), (3, 3), (5, 8)])
def test_the_border_s_colour_is_numpy_s_median_of_its_pixels(make_noise, rng, height, width):
    for _ in range(20):
        frame = make_noise(rng, height, width)
        is_border = np.ones((height, width), bool)
        is_border[1:-1, 1:-1] = False
        assert border_colour(frame) == tuple(np.floor(np.median(frame[is_border], axis=0)).astype(int))


# --- squares --------------------------------------------------------------------------------------------------


def test_squares_by_hand():
    assert Box(10, 20, 30, 60).square(0.0) == Box(0, 20, 40, 60)
    assert Box(10, 20, 30, 60).square(0.25) == Box(-10, 10, 50, 70)
    # 41 px * 1.2 = 49.2, rounded up to 50; of the 9 px around the width 4 fall left and 5 right.
    assert Box(0, 0, 20, 41).square(0.1) == Box(-15, -4, 35, 46)


# --- black ground ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [20, 47.5, 120])
def test_a_disc_on_black_is_boxed_exactly(radius):
    frame = photograph(300, 400, (0, 0, 0))
    expected = disc(frame, (140, 190), radius, (60, 20, 90))
    assert find_cell(frame) == expected


def test_generated_cells_on_black_are_boxed_to_the_pixel():
    for number in range(6):
        frame = generate_cell(3, number + 1, number, number % 2)
        assert_within(find_cell(frame), box_of(frame.any(axis=2)), 1)


def test_what_jpeg_leaves_on_black_is_no_cell(make_frame, rng):
    frame = make_frame(rng)
    is_encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert is_encoded
    assert_within(find_cell(cv2.imdecode(data, cv2.IMREAD_COLOR)), box_of(frame.any(axis=2)), 8)


def test_specks_on_black_do_not_widen_the_box():
    frame = photograph(300, 300, (0, 0, 0))
    expected = disc(frame, (150, 150), 50, (60, 20, 90))
    frame[5, 5] = frame[290, 20] = frame[150, 280] = 255
    disc(frame, (150, 215), 8, (90, 60, 120))
    assert find_cell(frame) == expected


# --- photographs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [GROUND, (255, 255, 255), (190, 180, 200), (225, 225, 225)])
@pytest.mark.parametrize("radius", [12, 33.5, 90])
def test_a_nucleus_on_bright_ground_is_boxed_within_a_pixel(rng, ground, radius):
    frame = photograph(ground=ground)
    expected = disc(frame, (160, 210), radius, NUCLEUS)
    frame = (frame + rng.normal(0, 4, frame.shape)).clip(0, 255).astype(np.uint8)
    assert_within(find_cell(frame), expected, 1)


def test_red_cells_and_platelets_do_not_widen_the_box():
    frame = photograph()
    for row, column in [(40, 60), (60, 330), (150, 120), (150, 270), (240, 200), (270, 60), (200, 260)]:
        disc(frame, (row, column), 38, RED_CELL)
    disc(frame, (90, 230), 8, PLATELET)
    expected = disc(frame, (150, 195), 45, NUCLEUS)
    assert find_cell(frame) == expected


def test_a_border_of_red_cells_does_not_matter():
    frame = photograph(ground=RED_CELL)
    frame[30:-30, 30:-30] = GROUND
    expected = disc(frame, (150, 195), 45, NUCLEUS)
    assert find_cell(frame) == expected


def test_lobes_of_one_nucleus_are_boxed_together():
    frame = photograph()
    lobes = [disc(frame, centre, 18, NUCLEUS) for centre in ((130, 190), (170, 192), (148, 230))]
    assert find_cell(frame) == joined(joined(lobes[0], lobes[1]), lobes[2])


def test_the_cell_in_the_middle_is_chosen_and_a_far_larger_one_elsewhere_too():
    frame = photograph()
    middle = disc(frame, (150, 200), 40, NUCLEUS)
    disc(frame, (60, 340), 42, NUCLEUS)
    assert find_cell(frame) == middle
    frame = photograph()
    disc(frame, (150, 200), 13, NUCLEUS)
    aside = disc(frame, (120, 330), 55, NUCLEUS)
    assert find_cell(frame) == aside


def test_cells_brighter_than_a_dark_ground():
    frame = photograph(ground=(45, 40, 60))
    expected = disc(frame, (150, 200), 40, (150, 120, 170))
    assert find_cell(frame) == expected


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_frame_has_the_turned_box(turn):
    frame = photograph(300, 400)
    disc(frame, (100, 150), 40, NUCLEUS)
    is_cell = (frame == NUCLEUS).all(axis=2)
    turned = np.ascontiguousarray(np.rot90(frame, turn))
    assert find_cell(turned) == box_of(np.rot90(is_cell, turn))


def test_large_photographs_are_boxed_within_a_pixel_of_the_reduced_frame():
    # One pixel of 512 stands for 5.06 of 2592.
    frame = photograph(1944, 2592)
    expected = disc(frame, (900, 1400), 330, NUCLEUS)
    assert_within(find_cell(frame), expected, 6)


# --- no cell --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 3, 10, 11, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (300, 400), (2, 3)])
def test_flat_frames_have_no_cell(level, shape):
    assert find_cell(np.full((*shape, 3), level, np.uint8)) is None


def test_ground_with_noise_and_red_cells_alone_has_no_cell(rng):
    frame = photograph()
    for row, column in [(40, 60), (150, 120), (150, 270), (240, 200)]:
        disc(frame, (row, column), 38, RED_CELL)
    frame = (frame + rng.normal(0, 4, frame.shape)).clip(0, 255).astype(np.uint8)
    assert find_cell(frame) is None


def test_a_speck_alone_is_no_cell():
    frame = photograph(300, 300, (0, 0, 0))
    disc(frame, (150, 150), 7, (200, 200, 200))
    assert find_cell(frame) is None


# --- real images ----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_squares_with_a_margin_hold_every_pixel_of_real_cells(real_data):
    paths = sorted(path for path in real_data.rglob("UID_*") if path.suffix in (".bmp", ".png"))
    for path in paths[:: max(len(paths) // 300, 1)]:
        frame = decode_rgb(np.fromfile(path, np.uint8))
        expected = box_of(frame.any(axis=2))
        found = find_cell(frame)
        # A rim of up to BLACK_LEVEL may be missed, never a second pixel.
        assert_within(found, expected, 1)
        square = found.square(0.1)
        assert joined(square, expected) == square, path.name
