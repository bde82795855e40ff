from __future__ import annotations

import cv2
import numpy as np

from leukemia_data.operations.clahe import Clahe, ClaheLab, ClaheLightness, tile_grid
from leukemia_data.operations.colour import lab_of
from leukemia_data.operations.operation import Window


def test_clahe_equalizes_each_channel_as_opencv_does(make_noise, rng):
    image = make_noise(rng, 90, 135)
    result = Clahe(clip_limit=3.0).equalize(image, (9, 5))
    for channel in range(3):
        expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(5, 9)).apply(image[..., channel].copy())
        np.testing.assert_array_equal(result[..., channel], expected)


def test_clahe_channels_do_not_see_each_other(make_frame, rng):
    image = make_frame(rng, 90, 90)
    other = image.copy()
    other[..., 1] = 255 - other[..., 1]
    first, second = Clahe(clip_limit=3.0).equalize(image, (9, 9)), Clahe(clip_limit=3.0).equalize(other, (9, 9))
    np.testing.assert_array_equal(first[..., [0, 2]], second[..., [0, 2]])
    assert not np.array_equal(first[..., 1], second[..., 1])


def test_clahe_without_a_limit_on_one_tile_is_histogram_equalization():
    # 256 pixels with the values 0, 2, 4, ... each twice: the distribution function at 2k is (2k + 2) / 256.
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8), 2).reshape(16, 16)
    result = Clahe(clip_limit=256.0).equalize(np.dstack([ramp] * 3), (1, 1))
    expected = np.rint((ramp.astype(float) + 2) / 256 * 255)
    assert np.abs(result[..., 0] - expected).max() <= 1


def test_clahe_of_the_lightness_keeps_colour_and_background(make_frame, rng):
    # Mild colours: what leaves sRGB cannot keep its a and b.
    frame = make_frame(rng, 180, 180)
    image = np.where(frame > 0, frame // 4 + np.uint8(80), 0).astype(np.uint8)
    result = ClaheLab(clip_limit=3.0).equalize(image, (9, 9))
    is_cell = image.any(axis=2)
    assert not result[~is_cell].any()
    before, after = lab_of(image[is_cell]), lab_of(result[is_cell])
    is_inside = (result[is_cell] > 2).all(axis=1) & (result[is_cell] < 253).all(axis=1)
    assert is_inside.mean() > 0.9
    assert np.abs(after - before)[is_inside, 1:].mean() < 1
    lightness = np.zeros(image.shape[:2], np.uint8)
    lightness[is_cell] = np.rint(before[:, 0] * 2.55)
    expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(9, 9)).apply(lightness)[is_cell] / 2.55
    assert np.abs(after[:, 0] - expected)[is_inside].mean() < 1


def test_clahe_of_the_lightness_is_the_usual_loop(make_noise, rng):
    image = make_noise(rng, 90, 135)
    image[:40, :50] = 0
    lightness, a, b = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2Lab))
    equalized = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(5, 9)).apply(lightness)
    expected = cv2.cvtColor(cv2.merge([equalized, a, b]), cv2.COLOR_Lab2RGB)
    expected[~image.any(axis=2)] = 0
    np.testing.assert_array_equal(ClaheLab(clip_limit=2.0).equalize(image, (9, 5)), expected)


def test_clahe_of_the_lightness_of_all_pixels_lifts_black_too(make_noise, rng):
    image = make_noise(rng, 90, 135)
    image[:40, :50] = 0
    result = ClaheLightness(clip_limit=2.0).equalize(image, (9, 5))
    is_cell = image.any(axis=2)
    np.testing.assert_array_equal(result[is_cell], ClaheLab(clip_limit=2.0).equalize(image, (9, 5))[is_cell])
    assert (result[~is_cell] > 0).all()
    assert result[~is_cell].max() < 16


def test_tiles_keep_their_size():
    assert tile_grid(Window.full(450), 450, 9) == (9, 9)
    assert tile_grid(Window.full(451), 451, 9) == (9, 9)
    assert tile_grid(Window(50, 50, 250, 450), 450, 9) == (4, 8)
