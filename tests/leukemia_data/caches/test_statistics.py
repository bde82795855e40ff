from __future__ import annotations

import numpy as np
import pytest
import torch

from leukemia_data.caches.statistics import channel_moments, channel_statistics, report_estimator
from leukemia_data.errors import CacheError


def exact_moments(image_HWC: np.ndarray) -> tuple[list[int], list[int]]:
    wide = image_HWC.astype(np.int64)
    return wide.sum(axis=(0, 1)).tolist(), (wide * wide).sum(axis=(0, 1)).tolist()


def moment_rows(images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = [channel_moments(image) for image in images_NHWC]
    return np.array([row[0] for row in rows], np.uint64), np.array([row[1] for row in rows], np.uint64)


# --- one image ------------------------------------------------------------------------------------------------


def test_moments_by_hand():
    image = np.array([[[1, 0, 255], [2, 0, 0]]], np.uint8)
    assert channel_moments(image) == ([3, 0, 255], [5, 0, 65025])


@pytest.mark.parametrize("side", [1, 2, 3, 8, 37, 64, 127, 128, 224, 450])
def test_moments_are_exact(make_noise, make_frame, rng, side):
    for _ in range(5):
        for image in (make_noise(rng, side, side), make_frame(rng, side, side)):
            assert channel_moments(image) == exact_moments(image)


def test_moments_of_the_largest_white_image():
    image = np.broadcast_to(np.uint8(255), (4096, 4096, 3)).copy()
    assert channel_moments(image) == ([255 * 4096**2] * 3, [65025 * 4096**2] * 3)


def test_moments_of_a_view_are_those_of_its_pixels(make_noise, rng):
    frame = make_noise(rng, 90, 90)
    view = frame[3:80, 5:71]
    assert channel_moments(view) == exact_moments(view)


def test_moments_are_whole_numbers_for_uint64(make_noise, rng):
    sums, squares = channel_moments(make_noise(rng, 9, 9))
    assert {type(value) for value in sums + squares} == {int}


# --- sets of images -------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_pixels(make_noise, rng):
    images = np.stack([make_noise(rng, 20, 20) // (k + 1) for k in range(7)])
    statistics = channel_statistics(*moment_rows(images), 400)
    assert statistics is not None
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(statistics.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(statistics.std, scaled.std(axis=(0, 1, 2)), rtol=1e-13)
    assert statistics.num_images == 7


def test_statistics_of_a_part_are_those_of_its_rows(make_noise, rng):
    images = np.stack([make_noise(rng, 12, 12) // (k + 1) for k in range(9)])
    sums, squares = moment_rows(images)
    train = np.array([0, 3, 4, 8])
    statistics = channel_statistics(sums[train], squares[train], 144)
    assert statistics is not None
    np.testing.assert_allclose(statistics.mean, images[train].mean(axis=(0, 1, 2)) / 255, rtol=1e-13)
    np.testing.assert_allclose(statistics.std, images[train].std(axis=(0, 1, 2)) / 255, rtol=1e-13)


def test_order_does_not_matter_to_the_last_bit(make_noise, rng):
    sums, squares = moment_rows(np.stack([make_noise(rng, 8, 8) for _ in range(50)]))
    shuffled = rng.permutation(50)
    assert channel_statistics(sums, squares, 64) == channel_statistics(sums[shuffled], squares[shuffled], 64)


def test_flat_pixels_have_no_spread_and_nothing_cancels():
    # A thousand images of 3.2e6 px, all 200 but for one pixel of 201: the variance is 1 / N, far below float64's reach
    # if it were taken as mean of squares minus square of mean.
    n, pixels = 1000, 3_200_000
    sums = np.full((n, 3), 200 * pixels, np.uint64)
    squares = np.full((n, 3), 40_000 * pixels, np.uint64)
    flat = channel_statistics(sums, squares, pixels)
    assert flat is not None
    assert flat.std == (0.0, 0.0, 0.0)
    sums[0, 0] += np.uint64(1)
    squares[0, 0] += np.uint64(201**2 - 200**2)
    spotted = channel_statistics(sums, squares, pixels)
    assert spotted is not None
    assert spotted.std[0] == pytest.approx((1 / (n * pixels)) ** 0.5 / 255, rel=1e-9)
    assert spotted.std[1] == 0.0


def test_sums_beyond_64_bits_do_not_wrap():
    # Ten rows at the top of uint64: their sum does not fit into one.
    sums = np.full((10, 3), 2**62, np.uint64)
    squares = np.full((10, 3), 2**64 - 1, np.uint64)
    statistics = channel_statistics(sums, squares, 2**62)
    assert statistics is not None
    assert statistics.mean == pytest.approx((1 / 255,) * 3)
    assert statistics.std == pytest.approx(((3**0.5) / 255,) * 3)


@pytest.mark.parametrize(("total", "square_total"), [(100, 99), (1, 0), (4 * 255 + 1, 4 * 255**2 + 999)])
def test_sums_of_no_pixels_are_an_error(total, square_total):
    """Four pixels: the squares add up to a quarter of the squared sum or more, and nothing is brighter than white."""
    sums = np.array([[0, 0, 0], [0, total, 0]], np.uint64)
    square_sums = np.array([[0, 0, 0], [0, square_total, 0]], np.uint64)
    with pytest.raises(CacheError, match="sums are those of no image"):
        channel_statistics(sums[1:], square_sums[1:], 4 if square_total > 999 else 1)


def test_no_images_have_no_statistics():
    empty = np.zeros((0, 3), np.uint64)
    assert channel_statistics(empty, empty, 10) is None
    assert report_estimator(empty, empty, 10, 64) is None


# --- the report's estimator -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_images", "batch_size"), [(64, 64), (128, 64), (187, 64), (70, 32), (5, 64), (3, 1)])
def test_the_report_s_estimator(make_noise, rng, num_images, batch_size):
    """Against the loop as it was run: per batch torch's mean and std, added, divided by the number of images.

    torch's std divides by n - 1, ours by n. The smallest batch here has one image of 400 pixels, where that
    makes a factor of sqrt(400 / 399) = 1 + 1.25e-3; single precision adds less than 1e-5.
    """
    images = np.stack([make_noise(rng, 20, 20) // (k % 5 + 1) for k in range(num_images)])
    tensors_NCHW = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.zeros(3), torch.zeros(3)
    for batch in tensors_NCHW.split(batch_size):
        mean += batch.mean(dim=(0, 2, 3))
        std += batch.std(dim=(0, 2, 3))
    estimate = report_estimator(*moment_rows(images), 400, batch_size)
    assert estimate is not None
    np.testing.assert_allclose(estimate.mean, (mean / num_images).numpy(), rtol=1e-5)
    np.testing.assert_allclose(estimate.std, (std / num_images).numpy(), rtol=1.3e-3)
    assert estimate.num_images == num_images


def test_the_report_s_estimator_on_equal_images_is_too_small_by_images_over_batches():
    # 7,995 images in 125 batches of 64 (the last of 59): true values over 63.96.
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = 102
    sums, squares = (np.tile(column, (7995, 1)).astype(np.uint64) for column in channel_moments(image))
    estimate = report_estimator(sums, squares, 16, 64)
    assert estimate is not None
    assert estimate.mean == pytest.approx((0.2 * 125 / 7995,) * 3, rel=1e-12)
    assert estimate.std == pytest.approx((0.2 * 125 / 7995,) * 3, rel=1e-12)


def test_sums_that_64_bits_do_not_hold_are_exact():
    # Images of the largest side that a manifest allows, white: the squares add up to more than 2**64.
    pixels = (1 << 15) ** 2
    sums = np.full((300_000, 3), 255 * pixels, np.uint64)
    squares = np.full((300_000, 3), 255 * 255 * pixels, np.uint64)
    assert 255 * 255 * pixels * 300_000 > 1 << 64
    statistics = channel_statistics(sums, squares, pixels)
    assert (statistics.mean, statistics.std) == ((1.0,) * 3, (0.0,) * 3)
