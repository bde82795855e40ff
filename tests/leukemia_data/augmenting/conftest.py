"""Batches for the tests of augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def images(rng) -> torch.Tensor:
    """Uneven float images (8, 3, 21, 21): an odd side has a pixel at the centre."""
    return torch.from_numpy(rng.uniform(0, 255, (8, 3, 21, 21)).astype(np.float32))


@pytest.fixture
def cells(make_frame, rng) -> torch.Tensor:
    """Cells on black: float (4, 3, 64, 64) in grey levels."""
    frames = np.stack([make_frame(rng, 64, 64) for _ in range(4)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous()


@pytest.fixture
def pixels(rng) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8))
