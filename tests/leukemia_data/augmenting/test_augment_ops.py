"""Each operation against torchvision's functional one, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.blur_noise import blur, noise_windows
from leukemia_data.augmenting.colour import mean_grey, recolor
from leukemia_data.augmenting.cutout import outside_squares
from leukemia_data.augmenting.geometry import warp
from leukemia_data.augmenting.normalize import clamp_channels_, foreground, normalize_pixels, normalize_planes

BILINEAR = InterpolationMode.BILINEAR


@pytest.fixture
def images(rng) -> torch.Tensor:
    """Uneven float images (8, 3, 21, 21): an odd side has a pixel at the centre."""
    return torch.from_numpy(rng.uniform(0, 255, (8, 3, 21, 21)).astype(np.float32))


@pytest.fixture
def cells(make_frame, rng) -> torch.Tensor:
    """Cells on black: float (4, 3, 64, 64) in grey levels."""
    frames = np.stack([make_frame(rng, 64, 64) for _ in range(4)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous()


def turn(degrees: float) -> torch.Tensor:
    angle = np.radians(degrees)
    return torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]], dtype=torch.float32)


@pytest.fixture
def pixels(rng) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8))


# --- warp ---------------------------------------------------------------------------------------------------------


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


# --- colour -------------------------------------------------------------------------------------------------------


def recolored(images, matrix, added=None, where=None, offset=(0.0, 0.0, 0.0)) -> torch.Tensor:
    out = torch.empty_like(images)
    recolor(images, matrix, added, where, torch.tensor(offset), out)
    return out


def test_recolor_is_a_matrix_product_for_each_pixel(images, rng):
    matrices, added = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((8, 3, 3), (8, 3)))
    where = (images[:, :1] > 100).float()
    expected = np.einsum("bij,bjhw->bihw", matrices.double(), images.double()) + np.array([1.0, 2, 3])[:, None, None]
    everywhere = added.double().numpy()[:, :, None, None]
    offset = (1.0, 2.0, 3.0)
    assert np.allclose(recolored(images, matrices, offset=offset), expected, atol=1e-3)
    assert np.allclose(recolored(images, matrices, added, offset=offset), expected + everywhere, atol=1e-3)
    result = recolored(images, matrices, added, where, offset)
    assert np.allclose(result, expected + everywhere * where.numpy(), atol=1e-3)


def test_mean_grey_is_torchvisions(images):
    weights = torch.tensor([0.2989, 0.587, 0.114])
    for grey, image in zip(mean_grey(images, weights), images, strict=True):
        assert abs(grey - tv.rgb_to_grayscale(image).mean()) < 1e-3


def test_mean_grey_does_not_depend_on_company(cells):
    weights = torch.tensor([0.2989, 0.587, 0.114])
    alone = torch.cat([mean_grey(cells[k : k + 1], weights) for k in range(4)])
    assert torch.equal(alone, mean_grey(cells, weights))


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


# --- blur, noise, cutout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_px", [3, 5, 9])
def test_blur_is_torchvisions(images, kernel_px):
    offsets = torch.arange(kernel_px) - kernel_px // 2
    sigmas = torch.linspace(0.4, 2.5, 8)
    weights = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    blurred = blur(images, weights / weights.sum(dim=1, keepdim=True))
    for result, image, sigma in zip(blurred, images, sigmas.tolist(), strict=True):
        assert torch.allclose(result, tv.gaussian_blur(image, [kernel_px] * 2, [sigma] * 2), atol=0.01)


def test_no_blur_changes_nothing(images):
    assert torch.equal(blur(images, torch.tensor([[0.0, 1.0, 0.0]]).expand(8, 3)), images)


@pytest.mark.parametrize("size_px", [3, 8])
def test_windows_of_noise_are_contiguous_pieces_of_the_bank(size_px):
    bank = torch.arange(2048, dtype=torch.float32)
    starts = torch.tensor([0.0, 16.0, 1600.0])
    windows = noise_windows(bank, starts, size_px)
    assert windows.shape == (3, 3, size_px, size_px)
    for window, start in zip(windows, starts.tolist(), strict=True):
        assert np.array_equal(window.flatten().numpy(), start + np.arange(3 * size_px**2))


def test_a_square_is_torchvisions_erased_one(images):
    corners = torch.tensor(
        [[0, 0], [0, 16], [16, 0], [16, 16], [3, 7], [7, 3], [21, 21], [10, 10]], dtype=torch.float32
    )
    kept = outside_squares(corners, 5, 21)
    assert kept.shape == (8, 1, 21, 21)
    for mask, image, (top, left) in zip(kept, images, corners.int().tolist(), strict=True):
        expected = image if top == 21 else tv.erase(image, top, left, 5, 5, torch.zeros(3, 1, 1))
        assert torch.equal(image * mask, expected)
