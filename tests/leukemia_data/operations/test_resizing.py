from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torchvision.transforms.v2.functional import resize as torchvision_resize

from leukemia_data.operations.resizing import resize_antialiased, resize_area

SHAPES = [(450, 450), (90, 135), (31, 47)]


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


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
