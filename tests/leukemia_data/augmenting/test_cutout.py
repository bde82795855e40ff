from __future__ import annotations

import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.appearance import outside_squares


def test_a_square_is_torchvisions_erased_one(images):
    corners = torch.tensor(
        [[0, 0], [0, 16], [16, 0], [16, 16], [3, 7], [7, 3], [21, 21], [10, 10]], dtype=torch.float32
    )
    kept = outside_squares(corners, 5, 21)
    assert kept.shape == (8, 1, 21, 21)
    for mask, image, (top, left) in zip(kept, images, corners.int().tolist(), strict=True):
        expected = image if top == 21 else tv.erase(image, top, left, 5, 5, torch.zeros(3, 1, 1))
        assert torch.equal(image * mask, expected)
