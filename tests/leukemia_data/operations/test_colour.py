from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.operations.colour import Gray, GrayWorld, cell_mask


def saturated(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def test_gray_world_gives_all_channels_the_common_mean(make_frame, rng):
    image = make_frame(rng, 120, 120)
    image[..., 1] //= 3
    means = image.reshape(-1, 3).mean(axis=0)
    result = GrayWorld().change(image)
    np.testing.assert_array_equal(result, saturated(image * (means.mean() / means)))
    assert not result[~image.any(axis=2)].any()
    unsaturated = GrayWorld().change(image // 3)
    assert np.ptp(unsaturated.reshape(-1, 3).mean(axis=0)) < 0.2


def test_gray_world_is_the_same_over_the_cell_and_over_the_frame(make_frame, rng):
    image = make_frame(rng, 120, 120)
    is_cell = image.any(axis=2)
    cell = image[is_cell]
    np.testing.assert_array_equal(GrayWorld().change(cell[None])[0], GrayWorld().change(image)[is_cell])


def test_gray_world_by_hand_saturates():
    # Means 200, 100, 60: the common mean is 120, the factors 0.6, 1.2 and 2.
    image = np.array([[[240, 200, 20], [160, 0, 100]]], np.uint8)
    np.testing.assert_array_equal(GrayWorld().change(image), [[[144, 240, 40], [96, 0, 200]]])
    image = np.array([[[0, 0, 200], [255, 255, 0]]], np.uint8)
    # Means 127.5, 127.5, 100: 200 becomes 236.7.
    assert GrayWorld().change(image)[0, 0, 2] == 237
    image = np.array([[[255, 255, 255], [255, 255, 0]]], np.uint8)
    assert GrayWorld().change(image)[0, 0, 2] == 255


@pytest.mark.parametrize("colour", [(0, 0, 0), (9, 0, 9)])
def test_gray_world_leaves_an_image_without_one_channel(colour):
    image = np.full((4, 5, 3), colour, np.uint8)
    result = GrayWorld().change(image)
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_gray_is_pillow_s_luma_three_times(make_noise, rng):
    image = make_noise(rng, 50, 60)
    result = Gray().change(image)
    luma = np.asarray(PillowImage.fromarray(image).convert("L")).astype(int)
    assert np.abs(result[..., 0] - luma).max() <= 1
    assert (result == result[..., :1]).all()
    np.testing.assert_array_equal(Gray().change(result), result)


def test_the_cell_is_where_any_channel_is_above_zero():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0, 2], image[1, 1, 0] = 1, 255
    np.testing.assert_array_equal(cell_mask(image), [[255, 0], [0, 255]])
