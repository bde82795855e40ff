from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_models.devices.normalization import area_reduced, reduced_batches

from ..fakes import CPU, fake_source


def noise(size_px: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(size_px)
    return torch.randint(0, 256, (count, size_px, size_px, 3), dtype=torch.uint8, generator=generator)


def by_opencv(images_BHWC: Tensor, size_px: int) -> Tensor:
    side = (size_px, size_px)
    resized = [cv2.resize(image, side, interpolation=cv2.INTER_AREA) for image in images_BHWC.numpy()]
    return torch.from_numpy(np.stack(resized))


@pytest.mark.parametrize(("side_px", "size_px"), [(128, 64), (128, 96), (224, 176), (224, 128), (50, 37)])
def test_pixels_are_those_of_opencv_but_for_halves(side_px: int, size_px: int) -> None:
    images_BHWC = noise(side_px)
    found = area_reduced(images_BHWC, size_px)
    assert (found.dtype, found.shape) == (torch.uint8, (3, size_px, size_px, 3))
    difference = found.int() - by_opencv(images_BHWC, size_px).int()
    assert difference.abs().max() <= 1
    # OpenCV rounds halves to even, but up where whole pixels are averaged; of 128 -> 96 px, an eighth are halves.
    assert difference.float().abs().mean() < 0.07
    assert difference.float().mean().abs() < 0.07


def test_half_the_side_is_the_mean_of_four_pixels_rounded_half_up() -> None:
    images_BHWC = noise(128)
    blocks = images_BHWC.view(3, 64, 2, 64, 2, 3).int().sum(dim=(2, 4))
    assert torch.equal(area_reduced(images_BHWC, 64).int(), (blocks + 2) // 4)


def test_weights_are_the_areas_by_hand() -> None:
    """From 3 pixels in a row to 2: each takes one pixel and half of the middle one."""
    row = torch.tensor([30, 90, 255], dtype=torch.uint8)
    images_BHWC = row[None, None, :, None].expand(1, 3, 3, 1)
    assert area_reduced(images_BHWC, 2)[0, 0, :, 0].tolist() == [(2 * 30 + 90) // 3, (2 * 255 + 90) // 3]


def test_an_image_is_the_same_in_every_batch_and_is_not_changed() -> None:
    images_BHWC = noise(112, count=7)
    before = images_BHWC.clone()
    together = area_reduced(images_BHWC, 88)
    assert torch.equal(together, torch.cat([area_reduced(images_BHWC[n : n + 1], 88) for n in range(7)]))
    assert torch.equal(images_BHWC, before)
    assert area_reduced(images_BHWC, 112) is images_BHWC
    assert area_reduced(images_BHWC[:0], 88).shape == (0, 88, 88, 3)


def test_nothing_waits_for_the_device() -> None:
    """On this device no value can be read."""
    images_BHWC = torch.empty((4, 128, 128, 3), dtype=torch.uint8, device="meta")
    assert area_reduced(images_BHWC, 96).shape == (4, 96, 96, 3)


@pytest.mark.parametrize("size_px", [0, 33])
def test_sizes_that_are_no_reduction_are_refused(size_px: int) -> None:
    with pytest.raises(UsageError, match=f"images of 32 px cannot be reduced to {size_px} px"):
        area_reduced(noise(32), size_px)


def test_batches_are_reduced_one_by_one_and_closed() -> None:
    source, closed = fake_source(3, 4), []

    def batches():
        try:
            yield from source.batches
        finally:
            closed.append(True)

    reduced = reduced_batches(batches(), 16, CPU)
    first = next(reduced)
    assert torch.equal(first.images_BHWC, area_reduced(source.batches[0].images_BHWC, 16))
    assert torch.equal(first.labels_B, source.batches[0].labels_B)
    assert torch.equal(first.indices_B, source.batches[0].indices_B)
    assert torch.equal(first.mask_B, source.batches[0].mask_B)
    assert not closed
    reduced.close()
    assert closed
