from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.appearance import blur, noise_windows


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
