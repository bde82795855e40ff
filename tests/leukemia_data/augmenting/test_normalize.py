from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.normalize import clamp_channels_, foreground, normalize_pixels, normalize_planes


def test_foreground_is_what_is_brighter_than_the_black_level():
    image = torch.zeros(1, 3, 1, 4)
    image[0, 1, 0] = torch.tensor([0.0, 0.49, 0.5, 200.0])
    assert foreground(image, 0).flatten().tolist() == [0, 0, 1, 1]
    image[0, 2, 0] = torch.tensor([0.0, 8.49, 8.5, 0.0])
    assert foreground(image, 8).flatten().tolist() == [0, 0, 1, 1]


def test_normalization_is_torchvisions(pixels):
    mean, std = torch.tensor([0.17, 0.1, 0.18]), torch.tensor([0.2, 0.12, 0.19])
    expected = tv.normalize(pixels.permute(0, 3, 1, 2).float() / 255, mean.tolist(), std.tolist())
    scale, offset = 1 / (255 * std), -mean / std
    rows, planes = torch.empty(pixels.shape), torch.empty(expected.shape)
    normalize_pixels(pixels, scale, offset, rows)
    normalize_planes(pixels.permute(0, 3, 1, 2).float(), scale, offset, planes)
    assert torch.allclose(rows.permute(0, 3, 1, 2), expected, atol=1e-5)
    assert torch.allclose(planes, expected, atol=1e-5)


def test_channels_are_clamped_to_limits_of_their_own(images):
    clamped = images.clone()
    clamp_channels_(clamped, [10, 20, 30], [110, 120, 130])
    for channel in range(3):
        expected = np.clip(images[:, channel].numpy(), 10 * (channel + 1), 100 + 10 * (channel + 1))
        assert np.array_equal(clamped[:, channel].numpy(), expected)
