from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torchvision.transforms.v2.functional import resize as torchvision_resize

from leukemia_data.operations.clahe import equalize_cell_lightness, equalize_channels, equalize_lightness
from leukemia_data.operations.colour import cell_mask
from leukemia_data.operations.filters import Unsharp, unsharp_mask
from leukemia_data.operations.resizing import resize_antialiased, resize_area
from leukemia_data.operations.stain import lab_of

SHAPES = [(450, 450), (90, 135), (31, 47)]


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


# --- CLAHE ----------------------------------------------------------------------------------------------------


def test_clahe_equalizes_each_channel_as_opencv_does(make_noise, rng):
    image = make_noise(rng, 90, 135)
    result = equalize_channels(image, 3.0, (9, 5))
    for channel in range(3):
        expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(5, 9)).apply(image[..., channel].copy())
        np.testing.assert_array_equal(result[..., channel], expected)


def test_clahe_channels_do_not_see_each_other(make_frame, rng):
    image = make_frame(rng, 90, 90)
    other = image.copy()
    other[..., 1] = 255 - other[..., 1]
    first, second = equalize_channels(image, 3.0, (9, 9)), equalize_channels(other, 3.0, (9, 9))
    np.testing.assert_array_equal(first[..., [0, 2]], second[..., [0, 2]])
    assert not np.array_equal(first[..., 1], second[..., 1])


def test_clahe_without_a_limit_on_one_tile_is_histogram_equalization():
    # 256 pixels with the values 0, 2, 4, ... each twice: the distribution function at 2k is (2k + 2) / 256.
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8), 2).reshape(16, 16)
    result = equalize_channels(np.dstack([ramp] * 3), 256.0, (1, 1))
    expected = np.rint((ramp.astype(float) + 2) / 256 * 255)
    assert np.abs(result[..., 0] - expected).max() <= 1


def test_clahe_of_the_lightness_keeps_colour_and_background(make_frame, rng):
    # Mild colours: what leaves sRGB cannot keep its a and b.
    frame = make_frame(rng, 180, 180)
    image = np.where(frame > 0, frame // 4 + np.uint8(80), 0).astype(np.uint8)
    result = equalize_cell_lightness(image, 3.0, (9, 9))
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
    np.testing.assert_array_equal(equalize_cell_lightness(image, 2.0, (9, 5)), expected)


def test_clahe_of_the_lightness_of_all_pixels_lifts_black_too(make_noise, rng):
    image = make_noise(rng, 90, 135)
    image[:40, :50] = 0
    result = equalize_lightness(image, 2.0, (9, 5))
    is_cell = image.any(axis=2)
    np.testing.assert_array_equal(result[is_cell], equalize_cell_lightness(image, 2.0, (9, 5))[is_cell])
    assert (result[~is_cell] > 0).all()
    assert result[~is_cell].max() < 16


def test_the_cell_is_where_any_channel_is_above_zero():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0, 2], image[1, 1, 0] = 1, 255
    np.testing.assert_array_equal(cell_mask(image), [[255, 0], [0, 255]])


# --- unsharp mask ---------------------------------------------------------------------------------------------


def test_unsharp_by_hand():
    # A 3x3 kernel of sigma 0.5 has the 1-D weights a, 1 - 2a, a; a lone pixel of 100 is blurred to 100 (1 - 2a)**2.
    weight = np.exp(-2.0)
    a = weight / (1 + 2 * weight)
    image = np.zeros((7, 7, 3), np.uint8)
    image[3, 3] = 100
    result = unsharp_mask(image, 0.5, 1.0, 1)
    assert abs(int(result[3, 3, 0]) - 100 * (2 - (1 - 2 * a) ** 2)) <= 1
    result[3, 3] = 0
    assert not result.any()


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_unsharp_leaves_flat_images(value):
    image = np.full((40, 50, 3), value, np.uint8)
    np.testing.assert_array_equal(unsharp_mask(image, 3.0, 1.5, 9), image)


def test_the_radius_is_the_one_opencv_chooses(make_noise, rng):
    image = make_noise(rng, 64, 64)
    for sigma_px in [0.1, 0.25, 0.75, 1.25, 3.0, 12.0, 50.0, *np.arange(0.2, 50, 0.37).tolist()]:
        expected = cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), sigma_px), -1.5, 0)
        result = unsharp_mask(image, sigma_px, 1.5, Unsharp(sigma_px=sigma_px).reach_px)
        np.testing.assert_array_equal(result, expected, err_msg=f"sigma {sigma_px}")


def test_the_radius_of_the_report_s_blur_is_nine():
    assert Unsharp(sigma_px=3.0).reach_px == 9


# --- resize ---------------------------------------------------------------------------------------------------


def test_area_is_the_mean_of_whole_blocks(make_noise, rng):
    image = make_noise(rng, 60, 60)
    blocks = image.reshape(20, 3, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize_area(image, 20) - blocks).max() <= 0.5 + 1e-6


def test_area_weights_parts_of_pixels():
    # 3 -> 2 pixels: each target covers one and a half: (90 + 0.5 * 30) / 1.5 = 70, (0.5 * 30 + 0) / 1.5 = 10.
    row = np.array([90, 30, 0], np.uint8)
    image = np.dstack([np.tile(row, (3, 1))] * 3)
    np.testing.assert_array_equal(resize_area(image, 2)[..., 0], [[70, 10], [70, 10]])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size_px", [7, 128, 224])
def test_antialiased_is_within_one_grey_level_of_pillow_and_torchvision(make_noise, rng, shape, size_px):
    image = make_noise(rng, *shape)
    result = resize_antialiased(image, size_px)
    bilinear = PillowImage.Resampling.BILINEAR
    pillow = np.asarray(PillowImage.fromarray(image).resize((size_px, size_px), bilinear))
    assert largest_difference(result, pillow) <= 1
    tensor_CHW = torch.from_numpy(image.transpose(2, 0, 1).copy())
    torchvision = torchvision_resize(tensor_CHW, [size_px, size_px], antialias=True).permute(1, 2, 0).numpy()
    assert largest_difference(result, torchvision) <= 1


def test_antialiased_keeps_flat_images_and_equal_sizes(make_noise, rng):
    for value in (0, 1, 254, 255):
        assert (resize_antialiased(np.full((50, 70, 3), value, np.uint8), 33) == value).all()
    image = make_noise(rng, 40, 40)
    np.testing.assert_array_equal(resize_antialiased(image, 40), image)


def test_antialiased_transposes_with_its_input(make_noise, rng):
    image = make_noise(rng, 60, 91)
    turned = resize_antialiased(image.transpose(1, 0, 2), 37).transpose(1, 0, 2)
    assert largest_difference(resize_antialiased(image, 37), turned) <= 1


# --- all ------------------------------------------------------------------------------------------------------


OPERATIONS = {
    "clahe": lambda image: equalize_channels(image, 3.0, (9, 9)),
    "clahe of L": lambda image: equalize_lightness(image, 3.0, (9, 9)),
    "clahe of a cell's L": lambda image: equalize_cell_lightness(image, 3.0, (9, 9)),
    "unsharp": lambda image: unsharp_mask(image, 3.0, 1.5, 9),
    "area": lambda image: resize_area(image, 45),
    "antialias": lambda image: resize_antialiased(image, 45),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
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
