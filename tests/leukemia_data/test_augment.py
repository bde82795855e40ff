from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augment import random_square_views, square_views


@pytest.fixture
def images(rng) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8))


def numpy_view(image_HWC: np.ndarray, code: int) -> np.ndarray:
    view = np.flipud(image_HWC) if code & 1 else image_HWC
    view = np.fliplr(view) if code & 2 else view
    return view.swapaxes(0, 1) if code & 4 else view


def torchvision_view(image_HWC: torch.Tensor, code: int) -> torch.Tensor:
    view = image_HWC.permute(2, 0, 1)
    view = tv.vertical_flip(view) if code & 1 else view
    view = tv.horizontal_flip(view) if code & 2 else view
    # A transpose is a quarter turn to the left of the image with its columns mirrored.
    view = tv.rotate(tv.horizontal_flip(view), 90) if code & 4 else view
    return view.permute(1, 2, 0)


@pytest.mark.parametrize("code", range(8))
def test_each_code_is_numpys_and_torchvisions_view(images, code):
    views = square_views(images, torch.full((8,), code))
    for view, image in zip(views, images, strict=True):
        assert np.array_equal(view.numpy(), numpy_view(image.numpy(), code))
        assert torch.equal(view, torchvision_view(image, code))


def test_each_sample_gets_its_own_view(images):
    codes = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    views = square_views(images, codes)
    for view, image, code in zip(views, images, codes.tolist(), strict=True):
        assert np.array_equal(view.numpy(), numpy_view(image.numpy(), code))


def test_the_eight_views_of_an_uneven_image_are_eight(images):
    views = square_views(images[:1].expand(8, -1, -1, -1), torch.arange(8))
    assert len({view.numpy().tobytes() for view in views}) == 8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_is_kept_and_the_input_is_not_changed(images, dtype):
    given = images.to(dtype)
    before = given.clone()
    views = square_views(given, torch.arange(8))
    assert views.dtype == dtype
    views.zero_()
    assert torch.equal(given, before)


def test_empty_batch(images):
    empty = images[:0]
    assert square_views(empty, torch.empty(0, dtype=torch.int64)).shape == (0, 6, 6, 3)
    assert random_square_views(empty, torch.empty(0, dtype=torch.int64), 0, 0).shape == (0, 6, 6, 3)


def test_view_of_a_sample_does_not_depend_on_its_batch(images):
    samples = torch.tensor([50, 3, 999, 7, 8, 12, 0, 41])
    together = random_square_views(images, samples, seed=4, epoch=2)
    for position in range(8):
        alone = random_square_views(images[position : position + 1], samples[position : position + 1], 4, 2)
        assert torch.equal(alone[0], together[position])
    order = torch.tensor([3, 1, 7, 0])
    assert torch.equal(random_square_views(images[order], samples[order], 4, 2), together[order])


def drawn_codes(samples: torch.Tensor, seed: int, epoch: int) -> list[int]:
    """Which of the eight views each sample was given, told from the result."""
    marks = torch.arange(4).view(1, 2, 2, 1).expand(len(samples), -1, -1, -1)
    known = {
        view.numpy().tobytes(): code
        for code, view in enumerate(square_views(marks[:1].expand(8, -1, -1, -1), torch.arange(8)))
    }
    return [known[view.numpy().tobytes()] for view in random_square_views(marks, samples, seed, epoch)]


def test_all_eight_views_are_equally_likely():
    counts = np.bincount(drawn_codes(torch.arange(8000), seed=1, epoch=0), minlength=8)
    # Seven degrees of freedom: 24.3 is exceeded once in a thousand.
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 24.3


def test_epochs_and_seeds_draw_anew():
    samples = torch.arange(800)
    first = np.array(drawn_codes(samples, 1, 0))
    for other in (drawn_codes(samples, 1, 1), drawn_codes(samples, 2, 0)):
        assert 60 < (first == np.array(other)).sum() < 140
    assert drawn_codes(samples, 1, 0) == first.tolist()


def test_global_random_state_is_left_alone(images):
    state = torch.get_rng_state()
    random_square_views(images, torch.arange(8), 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_views_on_the_device_are_those_on_the_cpu(images):
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device is None:
        pytest.skip("no CUDA and no MPS device")
    moved = random_square_views(images.to(device), torch.arange(8), 3, 1)
    assert torch.equal(moved.cpu(), random_square_views(images, torch.arange(8), 3, 1))
