from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision_functional

from leukemia_data.errors import UsageError
from leukemia_models.devices.normalization import Normalization, Normalizer, check_normalization, unmasked

# What DESIGN's data set has after CLAHE, unsharp and crop.
CELL_MEAN = (0.171, 0.100, 0.174)
CELL_STD = (0.201, 0.125, 0.195)
# What the first report printed, from batches of 64 and of 32.
REPORT_MEAN = (0.00267, 0.00157, 0.00272)
REPORT_STD = (0.00314, 0.00196, 0.00305)
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cell_like_images() -> npt.NDArray[np.uint8]:
    """Half black, half two brightnesses, with the mean and std of the real cells in each channel."""
    mean, std = np.asarray(CELL_MEAN), np.asarray(CELL_STD)
    images = np.zeros((4, 32, 32, 3), np.uint8)
    second_moment = mean**2 + std**2
    bright = second_moment / mean
    share_bright = mean / bright
    for channel in range(3):
        flat = np.zeros(4 * 32 * 32)
        flat[: round(share_bright[channel] * flat.size)] = bright[channel] * 255
        images[..., channel] = np.rint(flat).reshape(4, 32, 32)
    return images


@pytest.mark.parametrize(("height_px", "width_px"), [(8, 8), (5, 7), (1, 1)])
def test_equals_torchvision(height_px: int, width_px: int) -> None:
    images = torch.randint(0, 256, (3, height_px, width_px, 3), dtype=torch.uint8)
    before = images.clone()
    found = Normalizer(Normalization(CELL_MEAN, CELL_STD), CPU)(images)
    scaled = images.permute(0, 3, 1, 2).to(torch.float64) / 255
    expected = torchvision_functional.normalize(scaled, list(CELL_MEAN), list(CELL_STD))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)
    assert torch.equal(images, before)


def test_result_is_channels_last_and_one_allocation() -> None:
    images = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    found = Normalizer(Normalization(CELL_MEAN, CELL_STD), CPU)(images)
    assert found.shape == (2, 3, 6, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.untyped_storage().nbytes() == 2 * 6 * 6 * 3 * 4


def test_turned_and_float_images_are_taken_too() -> None:
    images = torch.randint(0, 256, (2, 6, 4, 3), dtype=torch.uint8)
    normalizer = Normalizer(Normalization(CELL_MEAN, CELL_STD), CPU)
    turned = normalizer(images.transpose(1, 2))
    assert torch.equal(turned, normalizer(images).transpose(2, 3))
    as_float = images.float()
    assert torch.equal(normalizer(as_float), normalizer(images))
    assert torch.equal(as_float, images.float())


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.1, 0.1), (1.0, 1.0)),
        ((0.1, float("nan"), 0.1), (1.0, 1.0, 1.0)),
        ((0.1, 0.1, 0.1), (1.0, 0.0, 1.0)),
        ((0.1, 0.1, 0.1), (1.0, 1.0, float("inf"))),
    ],
)
def test_impossible_numbers_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"mean|std"):
        Normalization.of(mean, std)
    with pytest.raises(UsageError, match=r"mean|std"):
        Normalization(mean, std)  # type: ignore[arg-type]


def test_numbers_survive_json() -> None:
    normalization = Normalization(CELL_MEAN, CELL_STD)
    assert Normalization.of(**normalization.to_dict()) == normalization
    assert Normalization.of(np.asarray(CELL_MEAN), np.asarray(CELL_STD)) == normalization


def test_true_numbers_pass(cell_like_images: npt.NDArray[np.uint8]) -> None:
    check_normalization(Normalization(CELL_MEAN, CELL_STD), cell_like_images)
    values_NC = cell_like_images.reshape(-1, 3) / 255
    np.testing.assert_allclose(((values_NC - CELL_MEAN) / CELL_STD).mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(((values_NC - CELL_MEAN) / CELL_STD).std(axis=0), 1, atol=0.02)


@pytest.mark.parametrize(("multiple", "times"), [(1, 64), (2, 32)])
def test_first_reports_numbers_are_named(cell_like_images: npt.NDArray[np.uint8], multiple: int, times: int) -> None:
    """Batches of 32 doubled the report's numbers: 0.00535 instead of 0.00267."""
    mean, std = (tuple(multiple * x for x in numbers) for numbers in (REPORT_MEAN, REPORT_STD))
    with pytest.raises(UsageError, match=f"about {times} times too small") as caught:
        check_normalization(Normalization.of(mean, std), cell_like_images)
    assert "per-batch sums divided by the image count" in str(caught.value)
    assert "ldata stats" in str(caught.value)


def test_imagenets_numbers_fail_on_cells(cell_like_images: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match=r"mean -1\.37 .* ImageNet"):
        check_normalization(IMAGENET, cell_like_images)


def test_grey_level_numbers_are_named(cell_like_images: npt.NDArray[np.uint8]) -> None:
    mean, std = (tuple(255 * x for x in numbers) for numbers in (CELL_MEAN, CELL_STD))
    with pytest.raises(UsageError, match="grey levels from 0 to 255"):
        check_normalization(Normalization.of(mean, std), cell_like_images)


@pytest.mark.parametrize(
    ("shift", "stretch", "passes"),
    [(0.0, 1.9, True), (0.0, 2.1, False), (0.0, 0.55, True), (0.0, 0.45, False), (0.45, 1.0, True), (0.55, 1.0, False)],
)
def test_rule_at_its_edges(cell_like_images: npt.NDArray[np.uint8], shift: float, stretch: float, passes: bool) -> None:
    mean = tuple(m + shift * s for m, s in zip(CELL_MEAN, CELL_STD, strict=True))
    normalization = Normalization.of(mean, tuple(stretch * s for s in CELL_STD))
    if passes:
        check_normalization(normalization, cell_like_images)
    else:
        with pytest.raises(UsageError, match="does not fit"):
            check_normalization(normalization, cell_like_images)


def test_black_images_do_not_divide_by_zero() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        check_normalization(Normalization(CELL_MEAN, CELL_STD), np.zeros((2, 8, 8, 3), np.uint8))


def test_sample_of_wrong_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="sample images"):
        check_normalization(IMAGENET, np.zeros((0, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "mask", [[True] * 4, [True, True, False, False], [False] * 4, [False, True, True, False], [True, False, True, True]]
)
def test_rows_that_count_are_those_of_the_mask(mask: list[bool]) -> None:
    values, mask_B = torch.arange(12).reshape(4, 3), torch.tensor(mask)
    found = unmasked(values, mask_B)
    assert torch.equal(found, values[mask_B])
    # No copy of whole batches, and of those with padding at the end.
    is_at_the_end = mask == sorted(mask, reverse=True)
    assert (found.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()) == is_at_the_end


@pytest.mark.parametrize("mask", [[True, True, False], [False, True, True]])
def test_which_rows_count_is_never_asked_of_the_device(mask: list[bool]) -> None:
    """A tensor without values cannot answer."""
    found = unmasked(torch.empty(3, 8, device="meta"), torch.tensor(mask))
    assert (found.device.type, found.shape) == ("meta", (2, 8))
