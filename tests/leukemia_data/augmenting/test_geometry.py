from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.geometry import warp

BILINEAR = InterpolationMode.BILINEAR


def turn(degrees: float) -> torch.Tensor:
    angle = np.radians(degrees)
    return torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]], dtype=torch.float32)


@pytest.mark.parametrize("degrees", [-170.0, -20.0, 3.5, 45.0, 91.0])
def test_a_rotation_is_torchvisions(images, degrees):
    turned = warp(images, turn(degrees).expand(8, 2, 3))
    for result, image in zip(turned, images, strict=True):
        assert torch.allclose(result, tv.rotate(image, degrees, interpolation=BILINEAR), atol=0.01)


def test_each_sample_is_turned_by_its_own_angle(images):
    degrees = np.linspace(-150, 150, 8)
    turned = warp(images, torch.stack([turn(angle) for angle in degrees]))
    for result, image, angle in zip(turned, images, degrees, strict=True):
        assert torch.allclose(result, tv.rotate(image, float(angle), interpolation=BILINEAR), atol=0.01)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("matrix", "view"),
    [
        ([[1, 0, 0], [0, 1, 0]], lambda image: image),
        ([[-1, 0, 0], [0, 1, 0]], tv.horizontal_flip),
        ([[1, 0, 0], [0, -1, 0]], tv.vertical_flip),
        ([[0, 1, 0], [1, 0, 0]], lambda image: image.transpose(-1, -2)),
        ([[0, -1, 0], [1, 0, 0]], lambda image: tv.rotate(image, 90)),
        ([[-1, 0, 0], [0, -1, 0]], lambda image: tv.rotate(image, 180)),
        ([[0, 1, 0], [-1, 0, 0]], lambda image: tv.rotate(image, 270)),
    ],
    ids=["identity", "horizontal", "vertical", "transpose", "quarter", "half", "three quarters"],
)
def test_views_are_exact_without_interpolation_and_nearly_so_with_it(images, mode, matrix, view):
    moved = warp(images, torch.tensor(matrix, dtype=torch.float32).expand(8, 2, 3), mode)
    if mode == "nearest":
        assert torch.equal(moved, view(images))
    else:
        assert torch.allclose(moved, view(images), atol=0.01)


@pytest.mark.parametrize("size_px", [1, 2, 127, 224, 450])
def test_views_are_exact_at_every_size(size_px):
    image = torch.arange(size_px**2, dtype=torch.float32).view(1, 1, size_px, size_px)
    matrix = torch.tensor([[[0.0, -1, 0], [-1, 0, 0]]])
    assert torch.equal(warp(image, matrix, "nearest"), image.flip((2, 3)).transpose(2, 3))


def test_the_border_is_black():
    white = torch.full((1, 3, 32, 32), 255.0)
    corners = warp(white, turn(45)[None])[0, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all()


def test_memory_layout_changes_nothing(images):
    matrices = torch.stack([turn(angle) for angle in range(8)])
    assert torch.equal(warp(images.to(memory_format=torch.channels_last), matrices), warp(images, matrices))
