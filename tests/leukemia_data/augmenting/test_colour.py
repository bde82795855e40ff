from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.appearance import mean_grey, recolor


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


def test_mean_grey_does_not_depend_on_the_batch(cells):
    weights = torch.tensor([0.2989, 0.587, 0.114])
    alone = torch.cat([mean_grey(cells[k : k + 1], weights) for k in range(4)])
    assert torch.equal(alone, mean_grey(cells, weights))
