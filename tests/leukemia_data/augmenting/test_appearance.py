from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.appearance import blur, mean_grey, noise_windows, outside_squares, recolor


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
