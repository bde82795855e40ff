from __future__ import annotations

import cv2
import numpy as np
import pytest

from leukemia_data.operations.filters import gabor_weights

NEVER = 1e9


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
