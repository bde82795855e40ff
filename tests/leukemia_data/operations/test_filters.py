from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from leukemia_data.operations.filters import Gabor, HighPass, MeanFilter, Unsharp, gabor_weights

NEVER = 1e9


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


# --- unsharp mask -----------------------------------------------------------------------------------------------------


def test_unsharp_by_hand():
    # A 3x3 kernel of sigma 0.5 has the 1-D weights a, 1 - 2a, a; a lone pixel of 100 is blurred to 100 (1 - 2a)**2.
    weight = np.exp(-2.0)
    a = weight / (1 + 2 * weight)
    image = np.zeros((7, 7, 3), np.uint8)
    image[3, 3] = 100
    result = Unsharp(sigma_px=0.5, strength=1.0).change(image)
    assert abs(int(result[3, 3, 0]) - 100 * (2 - (1 - 2 * a) ** 2)) <= 1
    result[3, 3] = 0
    assert not result.any()


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_unsharp_leaves_flat_images(value):
    image = np.full((40, 50, 3), value, np.uint8)
    np.testing.assert_array_equal(Unsharp(sigma_px=3.0, strength=1.5).change(image), image)


def test_the_radius_is_the_one_opencv_chooses(make_noise, rng):
    image = make_noise(rng, 64, 64)
    for sigma_px in [0.1, 0.25, 0.75, 1.25, 3.0, 12.0, 50.0, *np.arange(0.2, 50, 0.37).tolist()]:
        expected = cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), sigma_px), -1.5, 0)
        result = Unsharp(sigma_px=sigma_px, strength=1.5).change(image)
        np.testing.assert_array_equal(result, expected, err_msg=f"sigma {sigma_px}")


def test_the_radius_of_the_report_s_blur_is_nine():
    assert Unsharp(sigma_px=3.0).reach_px == 9


# --- mean and high-pass -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_px", [3, 5, 9])
def test_mean_and_high_pass_are_the_plain_sums(make_noise, rng, size_px):
    image = make_noise(rng, 40, 31)
    mean = response(image, np.full((size_px, size_px), 1 / size_px**2))
    np.testing.assert_array_equal(MeanFilter(size_px=size_px).change(image), saturated(mean))
    np.testing.assert_array_equal(HighPass(size_px=size_px).change(image), saturated(image - mean + 128))


def test_high_pass_by_hand_is_signed_and_saturates():
    # A lone pixel of 90 has the mean 10: itself 90 - 10, each neighbour 0 - 10, all around 128.
    image = flat(0)
    image[5, 5] = 90
    result = HighPass(size_px=3).change(image)[..., 0].astype(int)
    assert result[5, 5] == 128 + 80
    assert result[4, 5] == result[6, 6] == 128 - 10
    assert result[3, 5] == 128
    image[5, 5] = 255
    assert HighPass(size_px=3).change(image)[5, 5, 0] == 255
    np.testing.assert_array_equal(HighPass(size_px=3).change(255 - image)[5, 5], [0, 0, 0])


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_images(value):
    np.testing.assert_array_equal(MeanFilter(size_px=3).change(flat(value)), flat(value))
    np.testing.assert_array_equal(HighPass(size_px=3).change(flat(value)), flat(128))
    np.testing.assert_array_equal(Gabor().change(flat(value)), flat(value))
    np.testing.assert_array_equal(Gabor(base="gray").change(flat(value)), flat(128))


# --- Gabor ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Gabor(), Gabor(size_px=9, sigma_px=2.0, theta_deg=40.0, psi_deg=70.0)])
def test_the_response_is_the_plain_sum(make_noise, rng, step):
    image = make_noise(rng, 33, 41)
    expected = response(image, np.array(step.weights()))
    for name, base in (("image", image), ("gray", 128)):
        result = replace(step, base=name).change(image).astype(int)
        assert np.abs(result - saturated(base + expected)).max() <= 1
        assert (result == saturated(base + expected)).mean() > 0.999


def test_gabor_answers_to_its_own_stripes_only():
    columns = np.arange(40)
    stripes = np.tile(np.rint(100 + 20 * np.cos(2 * np.pi * columns / 4)), (40, 1)).astype(np.uint8)
    upright = np.dstack([stripes] * 3)
    step = Gabor(size_px=9, sigma_px=2.0, lambda_px=4.0, base="gray")
    middle = np.s_[10:30, 10:30, 0]
    contrast = np.ptp(step.change(upright)[middle])
    lying = upright.transpose(1, 0, 2)
    assert contrast > 40
    assert np.ptp(step.change(lying)[middle]) <= 2
    assert np.ptp(replace(step, base="image").change(upright)[middle]) == pytest.approx(40 + contrast, abs=2)


def opencv_kernel(size_px, sigma_px, theta_deg, lambda_px, gamma, psi_deg) -> np.ndarray:
    theta, psi = np.deg2rad([theta_deg, psi_deg])
    return cv2.getGaborKernel((size_px, size_px), sigma_px, theta, lambda_px, gamma, psi, cv2.CV_64F)


@pytest.mark.parametrize(
    "numbers",
    [
        (5, 1.0, 0.0, 4.0, 0.5, 0.0),
        (5, 1.0, 90.0, 2.0, 0.5, 0.0),
        (9, 2.0, 30.0, 5.0, 1.0, 90.0),
        (11, 3.0, -60.0, 6.5, 2.0, 200.0),
    ],
)
def test_opencv_s_kernel_without_its_mean(numbers):
    weights = np.array(gabor_weights(*numbers))
    wave = opencv_kernel(*numbers)
    envelope = opencv_kernel(*numbers[:3], NEVER, numbers[4], 0.0)
    expected = wave - envelope * wave.sum() / envelope.sum()
    np.testing.assert_allclose(weights, expected / expected[expected > 0].sum(), atol=1e-12)
    assert weights.sum() == pytest.approx(0, abs=1e-12)
    assert weights[weights > 0].sum() == pytest.approx(1)


def test_the_first_report_s_numbers_make_a_brightener_and_no_wave():
    numbers = (5, 1.0, 0.0, 1.0, 0.5, 0.0)
    kernel = opencv_kernel(*numbers)
    assert kernel.sum() == pytest.approx(9.88, abs=0.005)
    assert kernel.min() > 0
    assert gabor_weights(*numbers) is None


def test_a_wave_that_is_zero_at_every_pixel_is_none():
    assert gabor_weights(5, 1.0, 0.0, 2.0, 0.5, 90.0) is None
    assert gabor_weights(5, 1.0, 45.0, 2.0, 0.5, 90.0) is not None


def test_theta_turns_the_kernel():
    upright = np.array(gabor_weights(7, 1.5, 0.0, 4.0, 0.5, 0.0))
    lying = np.array(gabor_weights(7, 1.5, 90.0, 4.0, 0.5, 0.0))
    np.testing.assert_allclose(lying, upright.T, atol=1e-12)
    # Upright stripes: the weights change sign along a row, not down the middle column.
    assert upright[3].min() < 0 < upright[:, 3].min()
