from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image as PillowImage

from leukemia_data.operations.colour import balance_gray_world, to_gray
from leukemia_data.operations.filters import Gabor, add_response, high_pass, mean_filter


def response(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation of each channel with a kernel, mirrored beyond the edge, in double precision."""
    radius = len(kernel) // 2
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    windows = sliding_window_view(padded, kernel.shape, axis=(0, 1))
    return np.einsum("hwcij,ij->hwc", windows, kernel)


def saturated(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def flat(value: int) -> np.ndarray:
    return np.full((20, 30, 3), value, np.uint8)


# --- mean and high-pass ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_px", [3, 5, 9])
def test_mean_and_high_pass_are_the_plain_sums(make_noise, rng, size_px):
    image = make_noise(rng, 40, 31)
    mean = response(image, np.full((size_px, size_px), 1 / size_px**2))
    np.testing.assert_array_equal(mean_filter(image, size_px), saturated(mean))
    np.testing.assert_array_equal(high_pass(image, size_px), saturated(image - mean + 128))


def test_high_pass_by_hand_is_signed_and_saturates():
    # A lone pixel of 90 has the mean 10: itself 90 - 10, each neighbour 0 - 10, all around 128.
    image = flat(0)
    image[5, 5] = 90
    result = high_pass(image, 3)[..., 0].astype(int)
    assert result[5, 5] == 128 + 80
    assert result[4, 5] == result[6, 6] == 128 - 10
    assert result[3, 5] == 128
    image[5, 5] = 255
    assert high_pass(image, 3)[5, 5, 0] == 255
    np.testing.assert_array_equal(high_pass(255 - image, 3)[5, 5], [0, 0, 0])


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_images(value):
    np.testing.assert_array_equal(mean_filter(flat(value), 3), flat(value))
    np.testing.assert_array_equal(high_pass(flat(value), 3), flat(128))
    kernel = np.array(Gabor().weights())
    np.testing.assert_array_equal(add_response(flat(value), kernel, onto_grey=False), flat(value))
    np.testing.assert_array_equal(add_response(flat(value), kernel, onto_grey=True), flat(128))


# --- Gabor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Gabor(), Gabor(size_px=9, sigma_px=2.0, theta_deg=40.0, psi_deg=70.0)])
def test_the_response_is_the_plain_sum(make_noise, rng, step):
    image = make_noise(rng, 33, 41)
    kernel = np.array(step.weights())
    expected = response(image, kernel)
    for onto_grey, base in ((False, image), (True, 128)):
        result = add_response(image, kernel, onto_grey=onto_grey).astype(int)
        assert np.abs(result - saturated(base + expected)).max() <= 1
        assert (result == saturated(base + expected)).mean() > 0.999


def test_gabor_answers_to_its_own_stripes_only():
    columns = np.arange(40)
    stripes = np.tile(np.rint(100 + 20 * np.cos(2 * np.pi * columns / 4)), (40, 1)).astype(np.uint8)
    upright = np.dstack([stripes] * 3)
    kernel = np.array(Gabor(size_px=9, sigma_px=2.0, lambda_px=4.0).weights())
    middle = np.s_[10:30, 10:30, 0]
    contrast = np.ptp(add_response(upright, kernel, onto_grey=True)[middle])
    lying = upright.transpose(1, 0, 2)
    assert contrast > 40
    assert np.ptp(add_response(lying, kernel, onto_grey=True)[middle]) <= 2
    assert np.ptp(add_response(upright, kernel, onto_grey=False)[middle]) == pytest.approx(40 + contrast, abs=2)


# --- colour ---------------------------------------------------------------------------------------------------


def test_gray_world_gives_all_channels_the_common_mean(make_frame, rng):
    image = make_frame(rng, 120, 120)
    image[..., 1] //= 3
    means = image.reshape(-1, 3).mean(axis=0)
    result = balance_gray_world(image)
    np.testing.assert_array_equal(result, saturated(image * (means.mean() / means)))
    assert not result[~image.any(axis=2)].any()
    unsaturated = balance_gray_world(image // 3)
    assert np.ptp(unsaturated.reshape(-1, 3).mean(axis=0)) < 0.2


def test_gray_world_is_the_same_over_the_cell_and_over_the_frame(make_frame, rng):
    image = make_frame(rng, 120, 120)
    is_cell = image.any(axis=2)
    cell = image[is_cell]
    np.testing.assert_array_equal(balance_gray_world(cell[None])[0], balance_gray_world(image)[is_cell])


def test_gray_world_by_hand_saturates():
    # Means 200, 100, 60: the common mean is 120, the factors 0.6, 1.2 and 2.
    image = np.array([[[240, 200, 20], [160, 0, 100]]], np.uint8)
    np.testing.assert_array_equal(balance_gray_world(image), [[[144, 240, 40], [96, 0, 200]]])
    image = np.array([[[0, 0, 200], [255, 255, 0]]], np.uint8)
    # Means 127.5, 127.5, 100: 200 becomes 236.7.
    assert balance_gray_world(image)[0, 0, 2] == 237
    image = np.array([[[255, 255, 255], [255, 255, 0]]], np.uint8)
    assert balance_gray_world(image)[0, 0, 2] == 255


@pytest.mark.parametrize("colour", [(0, 0, 0), (9, 0, 9)])
def test_gray_world_leaves_an_image_without_one_channel(colour):
    image = np.full((4, 5, 3), colour, np.uint8)
    result = balance_gray_world(image)
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_gray_is_pillow_s_luma_three_times(make_noise, rng):
    image = make_noise(rng, 50, 60)
    result = to_gray(image)
    luma = np.asarray(PillowImage.fromarray(image).convert("L")).astype(int)
    assert np.abs(result[..., 0] - luma).max() <= 1
    assert (result == result[..., :1]).all()
    np.testing.assert_array_equal(to_gray(result), result)


# --- all ------------------------------------------------------------------------------------------------------


FILTERS = {
    "mean": lambda image: mean_filter(image, 3),
    "high-pass": lambda image: high_pass(image, 3),
    "gabor": lambda image: add_response(image, np.array(Gabor().weights()), onto_grey=False),
    "gray-world": balance_gray_world,
    "gray": to_gray,
}


@pytest.mark.parametrize("change", FILTERS.values(), ids=FILTERS)
def test_inputs_are_left_alone_and_views_are_taken(make_noise, rng, change):
    frame = make_noise(rng, 60, 60)
    before = frame.copy()
    result = change(frame[10:50, 5:40])
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(result, change(frame[10:50, 5:40].copy()))
    assert result.shape == (40, 35, 3)
    assert result.dtype == np.uint8
