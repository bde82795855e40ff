from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from leukemia_data.augmenting.appearance import Blur, Color, Cutout, Noise
from leukemia_data.augmenting.augment import (
    Augmenter,
    Columns,
    clamp_channels_,
    draw_parameters,
    foreground,
    normalize_pixels,
)
from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.augmenting.geometry import Rotate, Scale, Translate, warp
from leukemia_data.augmenting.operation import Chance, CustomAugmentation
from leukemia_data.errors import UsageError
from leukemia_data.sources.sample_cells import generate_cell

from ..copies import UnfinishedCopies

MEAN, STD = (0.171, 0.1, 0.174), (0.201, 0.125, 0.195)
BLACK = -torch.tensor(MEAN) / torch.tensor(STD)
PRESETS = ["none", "flips", "report-a", "report-b"]
HALF = Chance(p=0.5)
EVERYTHING = {
    "flip_horizontal": HALF,
    "transpose": HALF,
    "quarter_turns": HALF,
    "rotate": Rotate(p=0.8, degrees=180.0),
    "scale": Scale(p=0.5, factor=(0.8, 1.2)),
    "translate": Translate(p=0.5, fraction=0.1),
    "color": Color(p=0.8, brightness=(0.7, 1.3), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.1, 0.1)),
    "blur": Blur(p=0.5, kernel_px=5, sigma_px=(0.5, 1.5)),
    "noise": Noise(p=0.5, variance=30.0),
    "cutout": Cutout(p=0.5, fraction=0.25),
}
EVERY_OPERATION = Augmentation(name="everything", **EVERYTHING)


def augmenter(given: str | Augmentation, seed: int = 1, device: str = "cpu") -> Augmenter:
    augmentation = load_augmentation(given) if isinstance(given, str) else given
    return Augmenter(augmentation, seed=seed, mean=MEAN, std=STD, device=device)


def grey_levels(normalized_BCHW: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation."""
    return (normalized_BCHW * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def augmented(images: torch.Tensor, keep_black: bool = True, **operations) -> torch.Tensor:
    """Grey levels of a batch after an augmentation with the given operations."""
    augmentation = Augmentation(name="test", keep_black=keep_black, **operations)
    return grey_levels(augmenter(augmentation)(images, 0, torch.arange(len(images))))


@pytest.fixture
def cells(make_frame, rng) -> torch.Tensor:
    """Cells on black: (8, 48, 48, 3), uint8."""
    return torch.from_numpy(np.stack([make_frame(rng, 48, 48) for _ in range(8)]))


def planes(images_BHWC: torch.Tensor) -> torch.Tensor:
    return images_BHWC.permute(0, 3, 1, 2).float()


# --- agreement with torchvision -----------------------------------------------------------------------------------


def test_none_is_torchvisions_normalize(cells):
    result = augmenter("none")(cells, 3, torch.arange(8))
    assert torch.allclose(result, tv.normalize(planes(cells) / 255, list(MEAN), list(STD)), atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_flips_only_move_values(cells):
    result = augmented(cells, flip_horizontal=HALF, flip_vertical=HALF, transpose=HALF)
    found = set()
    for image, original in zip(result.round(), planes(cells), strict=True):
        bases = (original, original.transpose(1, 2))
        views = [base.rot90(turns, (1, 2)) for base in bases for turns in range(4)]
        matches = [number for number, view in enumerate(views) if torch.equal(view, image)]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 3


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("num_images", "size_px"), [(0, 16), (1, 16), (40, 1), (40, 17), (40, 128)])
def test_moved_pixels_are_bit_for_bit_those_of_a_warp(rng, channels_last, num_images, size_px):
    images = torch.from_numpy(rng.integers(0, 256, (num_images, size_px, size_px, 3), dtype=np.uint8))
    moves = Augmentation(name="moves", flip_horizontal=HALF, flip_vertical=HALF, transpose=HALF, quarter_turns=HALF)
    result = Augmenter(moves, seed=1, mean=MEAN, std=STD, device="cpu", channels_last=channels_last)(
        images, 0, torch.arange(num_images)
    )
    table = torch.from_numpy(draw_parameters(moves, np.arange(num_images), 1, 0, size_px))
    affine = table[:, Columns.AFFINE].reshape(-1, 2, 3)
    assert num_images < 40 or len(affine.unique(dim=0)) == 8
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    offset, scale = ((values).float()[:, None, None] for values in (-mean / std, 1 / (255 * std)))
    warped = warp(planes(images), affine, "nearest") if num_images else planes(images)
    assert torch.equal(result, torch.addcmul(offset, warped, scale))


def test_pixels_are_moved_from_any_strides(cells):
    wide = cells.repeat(1, 1, 1, 2)[..., :3]
    assert not wide.is_contiguous()
    augment = augmenter("flips")
    assert torch.equal(augment(wide, 0, torch.arange(8)), augment(cells, 0, torch.arange(8)))


@pytest.mark.parametrize("p_flip", [0.0, 1.0])
def test_flips_then_rotation_are_torchvisions(cells, p_flip):
    flip = Chance(p=p_flip)
    rotate = Rotate(p=1.0, degrees=180.0)
    result = augmented(cells, flip_horizontal=flip, transpose=flip, rotate=rotate)
    alone = Augmentation(name="alone", rotate=rotate)
    matrices = draw_parameters(alone, np.arange(8), 1, 0, 48)[:, Columns.AFFINE].reshape(-1, 2, 3)
    for image, original, matrix in zip(result, planes(cells), matrices, strict=True):
        expected = tv.horizontal_flip(original).transpose(1, 2) if p_flip else original
        degrees = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        expected = tv.rotate(expected.contiguous(), degrees, interpolation=InterpolationMode.BILINEAR)
        assert torch.allclose(image, expected, atol=0.02)


def test_rotation_scale_and_shift_are_torchvisions_affine(cells):
    degrees, factor, fraction = 30.0, (0.7, 1.4), 0.2
    operations = {
        "rotate": Rotate(p=1.0, degrees=degrees),
        "scale": Scale(p=1.0, factor=factor),
        "translate": Translate(p=1.0, fraction=fraction),
    }
    result = augmented(cells, **operations)
    table = draw_parameters(Augmentation(name="test", **operations), np.arange(8), 1, 0, 48)
    for image, original, row in zip(result, planes(cells), table, strict=True):
        # From the result's places back to the input's; torchvision takes what leads from the input to the result.
        inverse, offset = row[:6].reshape(2, 3)[:, :2].astype(np.float64), row[:6].reshape(2, 3)[:, 2]
        forward = np.linalg.inv(inverse)
        shift_px = -forward @ offset * 24
        scale = np.linalg.det(forward) ** 0.5
        angle = np.degrees(np.arctan2(forward[1, 0], forward[0, 0]))
        expected = tv.affine(
            original, float(angle), shift_px.tolist(), float(scale), [0.0, 0.0], InterpolationMode.BILINEAR
        )
        assert torch.allclose(image, expected, atol=0.05)
        assert abs(angle) <= degrees
        assert factor[0] <= scale <= factor[1]
        assert np.abs(shift_px).max() <= fraction * 48


@pytest.mark.parametrize(
    ("operation", "factor", "adjust"),
    [
        ("brightness", 0.4, tv.adjust_brightness),
        ("brightness", 2.0, tv.adjust_brightness),
        ("contrast", 0.0, tv.adjust_contrast),
        ("contrast", 0.5, tv.adjust_contrast),
        ("contrast", 2.2, tv.adjust_contrast),
        ("saturation", 0.0, tv.adjust_saturation),
        ("saturation", 2.2, tv.adjust_saturation),
    ],
)
def test_colour_operations_are_torchvisions_where_black_may_change(cells, operation, factor, adjust):
    color = Color(p=1.0, **{operation: (factor, factor)})
    result = augmented(cells, keep_black=False, color=color)
    for image, original in zip(result, planes(cells), strict=True):
        assert torch.allclose(image, adjust(original / 255, factor) * 255, atol=0.05)


def test_a_chain_of_colour_operations_is_torchvisions_while_nothing_saturates(rng):
    images = torch.from_numpy(rng.integers(80, 150, (4, 32, 32, 3), dtype=np.uint8))
    color = Color(p=1.0, brightness=(0.9, 0.9), contrast=(1.1, 1.1), saturation=(0.7, 0.7))
    result = augmented(images, keep_black=False, color=color)
    for image, original in zip(result, planes(images) / 255, strict=True):
        expected = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(original, 0.9), 1.1), 0.7)
        assert torch.allclose(image, expected * 255, atol=0.05)


def test_blur_is_torchvisions(cells):
    result = augmented(cells, blur=Blur(p=1.0, kernel_px=3, sigma_px=(0.8, 0.8)))
    for image, original in zip(result, planes(cells), strict=True):
        assert torch.allclose(image, tv.gaussian_blur(original, [3, 3], [0.8, 0.8]), atol=0.02)


def test_noise_has_the_variance_asked_for_in_grey_levels(rng):
    images = torch.full((8, 64, 64, 3), 128, dtype=torch.uint8)
    noise = (augmented(images, noise=Noise(p=1.0, variance=30.0)) - 128).double().numpy()
    assert abs(noise.mean()) < 0.1
    assert abs(noise.var() - 30) < 1
    # Neither pixels nor channels nor images share their noise.
    for first, second in ((noise[:, 0], noise[:, 1]), (noise[..., 1:], noise[..., :-1]), (noise[:4], noise[4:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_cutout_is_one_black_square(rng):
    images = torch.full((50, 40, 40, 3), 200, dtype=torch.uint8)
    result = augmented(images, color=Color(p=1.0, contrast=(0.5, 0.5)), cutout=Cutout(p=1.0, fraction=0.125)).round()
    for image in result:
        rows, columns = np.nonzero((image == 0).all(0).numpy())
        assert (len(rows), np.ptp(rows), np.ptp(columns)) == (25, 4, 4)
        assert ((image == 0).all(0) | (image == 200).all(0)).all()


@pytest.mark.parametrize("keep_black", [False, True])
def test_results_stay_within_the_normalized_images_of_0_and_255(cells, keep_black):
    color = Color(p=1.0, brightness=(0.0, 3.0), contrast=(0.0, 3.0), saturation=(0.0, 3.0), hue=(-0.5, 0.5))
    result = augmented(cells, keep_black=keep_black, color=color, noise=Noise(p=1.0, variance=900.0))
    assert result.min() >= -1e-3
    assert result.max() <= 255 + 1e-3


@pytest.mark.parametrize(
    ("name", "means", "values"),
    [
        ("flips", [0.3062, 0.4592, 0.3311, 0.3065], [-0.1098, -0.0471, 0.0784, -0.0471]),
        ("none", [0.3062, 0.4592, 0.3311, 0.3065], [0.1412, 0.0157, 0.0471, -0.0471]),
        ("report-a", [0.6285, 0.5262, 0.1676, 0.5675], [-0.0505, -0.7039, 0.6325, -0.4549]),
        ("report-a-geometry", [0.2174, 0.4508, 0.2621, 0.1983], [-0.0268, -0.0552, 0.0482, 0.0895]),
        ("report-b", [0.3063, 0.3849, 0.1632, 0.3065], [-0.0709, -0.0463, -0.0478, -0.0471]),
    ],
)
def test_what_shipped_augmentations_make_of_cells_is_pinned(name, means, values):
    # Resumed runs need these draws of release 0.1.
    images = np.stack([generate_cell(0, subject, 0, 0)[161:289, 161:289] for subject in range(4)])
    result = augmenter(name, seed=3)(torch.from_numpy(images), 2, torch.tensor([5, 0, 10_660, 77]))
    assert result.mean(dim=(1, 2, 3)).tolist() == pytest.approx(means, abs=1e-3)
    assert result[:, 1, 40, 50].tolist() == pytest.approx(values, abs=1e-2)


# --- background ---------------------------------------------------------------------------------------------------


def test_background_stays_black_through_contrast_noise_and_warp(cells):
    operations = {key: value for key, value in EVERYTHING.items() if key not in ("blur", "cutout")}
    geometry = {key: value for key, value in operations.items() if key not in ("color", "noise")}
    black = augmented(cells, **geometry).round().amax(1) == 0
    assert 0.3 < black.float().mean() < 0.95
    everything = Augmentation(name="test", **operations)
    result = augmenter(everything)(cells, 0, torch.arange(8)).permute(0, 2, 3, 1)
    assert torch.allclose(result[black], BLACK.expand(int(black.sum()), 3), atol=0.02)


def test_background_that_clahe_has_lifted_counts_as_black(cells):
    lifted = cells.clamp(min=4)
    flat = augmented(lifted, color=Color(p=1.0, contrast=(0.0, 0.0)), noise=Noise(p=1.0, variance=900.0))
    is_background = cells.amax(3) <= 4
    assert flat.permute(0, 2, 3, 1)[is_background].abs().max() < 0.01
    assert flat.permute(0, 2, 3, 1)[cells.amax(3) > 20].median() > 20


def test_black_level_moves_the_border_of_the_background(rng):
    images = torch.from_numpy(rng.integers(3, 30, (4, 32, 32, 3), dtype=np.uint8))
    augmentation = Augmentation(name="test", black_level=12, color=Color(p=1.0, contrast=(0.0, 0.0)))
    result = grey_levels(augmenter(augmentation)(images, 0, torch.arange(4))).amax(1)
    assert torch.equal(result < 1, images.amax(3) <= 12)


def test_background_changes_where_it_may(cells):
    black = cells.amax(3) == 0
    result = augmented(cells, keep_black=False, color=Color(p=1.0, contrast=(0.5, 0.5)))
    assert (result.permute(0, 2, 3, 1)[black] > 5).all()


# --- what the result depends on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [*PRESETS, EVERY_OPERATION], ids=[*PRESETS, "everything"])
def test_a_samples_augmentation_is_bit_for_bit_independent_of_the_batch_and_order(cells, given):
    augment = augmenter(given)
    samples = torch.tensor([50, 3, 999, 7, 8, 12, 0, 41])
    together = augment(cells, 2, samples)
    order = torch.tensor([3, 1, 7, 0])
    assert torch.equal(augment(cells[order], 2, samples[order]), together[order])
    for position in range(8):
        alone = augmenter(given)(cells[position : position + 1], 2, samples[position : position + 1])
        assert torch.equal(alone[0], together[position])


@pytest.mark.parametrize("size_px", [48, 224])
def test_the_number_of_threads_changes_no_bit(rng, size_px):
    images = torch.from_numpy(rng.integers(0, 256, (6, size_px, size_px, 3), dtype=np.uint8))
    augment = augmenter(EVERY_OPERATION)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            results.append(augment(images, 0, torch.arange(6)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", ["flips", "report-a", "report-b"])
def test_epochs_and_seeds_augment_anew(cells, name):
    first = augmenter(name)(cells, 0, torch.arange(8))
    assert torch.equal(augmenter(name)(cells, 0, torch.arange(8)), first)
    assert not torch.equal(augmenter(name)(cells, 1, torch.arange(8)), first)
    assert not torch.equal(augmenter(name, seed=2)(cells, 0, torch.arange(8)), first)


@pytest.mark.parametrize(
    "given", ["flips", "report-a-geometry", EVERY_OPERATION], ids=["flips", "rotation", "everything"]
)
def test_each_occurrence_of_a_sample_is_augmented_anew(cells, given):
    augment = augmenter(given)
    same = cells[:1].repeat(64, 1, 1, 1)
    samples, occurrences = torch.full((64,), 12), torch.arange(64)
    drawn = augment(same, 2, samples, occurrences)
    num_views = len({image.numpy().tobytes() for image in drawn})
    assert num_views == (8 if given == "flips" else 64)
    # Occurrence 0 is what a sample gets without one, and each is independent of the batch.
    assert torch.equal(drawn[:1], augment(same[:1], 2, samples[:1]))
    order = torch.tensor([40, 0, 3])
    assert torch.equal(augment(same[:3], 2, samples[:3], occurrences[order]), drawn[order])
    zeros = torch.zeros(8, dtype=torch.int64)
    assert torch.equal(augment(cells, 2, torch.arange(8), zeros), augment(cells, 2, torch.arange(8)))
    assert not torch.equal(augment(same, 3, samples, occurrences), drawn)


def test_occurrences_draw_all_views_equally_often_and_unlike_other_samples():
    moves = load_augmentation("flips")
    samples, occurrences = (axis.ravel() for axis in np.meshgrid(np.arange(100), np.arange(40)))
    table = draw_parameters(moves, samples, 1, 0, 32, occurrences)[:, Columns.AFFINE]
    _, views, counts = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    # 7 degrees of freedom: 24.3 is exceeded with probability 0.001.
    assert ((counts - 500) ** 2 / 500).sum() < 24.3
    views = views.reshape(40, 100)
    for one, other in ((views[1:], views[:-1]), (views[:, 1:], views[:, :-1])):
        # One in eight agree by chance; the standard deviation is 0.0053.
        assert abs((one == other).mean() - 1 / 8) < 0.022


def test_custom_operations_get_draws_of_their_occurrence():
    @dataclass(frozen=True, kw_only=True)
    class Lift(CustomAugmentation):
        name: ClassVar[str] = "lift"
        num_draws: ClassVar[int] = 1

        def apply(self, images_BCHW, draws_BK):
            return images_BCHW + 200 * draws_BK[:, :, None, None]

    augment = augmenter(Augmentation(name="test", custom=(Lift(p=1.0),)))
    black = torch.zeros(20, 4, 4, 3, dtype=torch.uint8)
    result = augment(black, 0, torch.zeros(20, dtype=torch.int64), torch.arange(20))
    assert len(result[:, 0, 0, 0].unique()) == 20
    assert result[0, 0, 0, 0] == augment(black[:1], 0, torch.zeros(1, dtype=torch.int64))[0, 0, 0, 0]


@pytest.mark.parametrize("occurrences", [torch.arange(7), torch.zeros(8), torch.zeros(8, dtype=torch.bool)])
def test_occurrences_of_another_kind_are_refused(cells, occurrences):
    with pytest.raises(UsageError, match="whole occurrences"):
        augmenter("flips")(cells, 0, torch.arange(8), occurrences)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_the_width_of_sample_indices_changes_no_draw(cells, dtype):
    samples = torch.tensor([50, 3, 99, 7, 8, 12, 0, 41])
    augment = augmenter("flips")
    assert torch.equal(augment(cells, 0, samples.to(dtype)), augment(cells, 0, samples))


def test_input_and_global_random_state_are_left_alone(cells):
    before, torch_state, numpy_state = cells.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    augmenter(EVERY_OPERATION)(cells, 0, torch.arange(8))
    assert torch.equal(cells, before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_result_that_is_held_is_never_overwritten(cells):
    augment = augmenter("report-a")
    first = augment(cells, 0, torch.arange(8))
    kept = first.clone()
    address = first.data_ptr()
    for epoch in range(1, 4):
        augment(cells, epoch, torch.arange(8))
    assert torch.equal(first, kept)
    del first
    gc.collect()
    held = [augment(cells, epoch, torch.arange(8)) for epoch in range(3)]
    assert address in {result.data_ptr() for result in held}


# --- shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_batches_of_every_length_and_side(name):
    augment = augmenter(name)
    for batch, size_px in ((0, 32), (1, 33), (7, 200), (2, 600)):
        result = augment(torch.full((batch, size_px, size_px, 3), 9, dtype=torch.uint8), 0, torch.arange(batch))
        assert result.shape == (batch, 3, size_px, size_px)
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("given", [*PRESETS, EVERY_OPERATION], ids=[*PRESETS, "everything"])
def test_the_memory_format_is_chosen_and_changes_no_value(cells, given):
    augmentation = load_augmentation(given) if isinstance(given, str) else given
    last, first = (
        Augmenter(augmentation, seed=1, mean=MEAN, std=STD, device="cpu", channels_last=flag)(cells, 0, torch.arange(8))
        for flag in (True, False)
    )
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()
    assert torch.equal(last, first)
    with pytest.raises(UsageError, match="channels_last"):
        Augmenter(augmentation, seed=1, mean=MEAN, std=STD, device="cpu", channels_last="yes")


def test_what_is_no_batch_is_refused(cells):
    augment = augmenter("none")
    for images, numbers in ((cells[:, :40], 8), (cells.float(), 8), (cells[..., :2], 8), (cells, 7)):
        with pytest.raises(ValueError, match=r"expected uint8 images \(B, S, S, 3\)"):
            augment(images, 0, torch.arange(numbers))


def test_arguments_of_another_kind_are_refused(cells):
    right = {"seed": 0, "mean": MEAN, "std": STD, "device": "cpu"}
    wrong = {
        "seed": (-1, 1.5, True),
        "mean": ((0.1, 0.1), (0.1, 0.1, float("nan")), "abc"),
        "std": ((0.2, 0.0, 0.2), (0.2, 0.2, float("inf"))),
        "device": ("nowhere",),
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(UsageError, match=f"{name} must be"):
                Augmenter(load_augmentation("flips"), **{**right, name: value})
    augment = Augmenter(load_augmentation("flips"), **right)
    for numbers in (torch.arange(len(cells)) + 0.5, torch.ones(len(cells), dtype=torch.bool)):
        with pytest.raises(UsageError, match="whole sample indices"):
            augment(cells, 0, numbers)
    with pytest.raises(UsageError, match="epoch must be a whole number"):
        augment(cells, 0.5, torch.arange(len(cells)))


def test_a_blur_wider_than_the_image_is_refused(cells):
    wide = augmenter(Augmentation(name="wide", blur=Blur(p=1.0, kernel_px=63, sigma_px=(1.0, 1.0))))
    with pytest.raises(UsageError, match="kernel_px 63 is too wide for images of 20 px"):
        wide(cells[:, :20, :20], 0, torch.arange(8))


@pytest.mark.parametrize("name", ["flips", "report-a", "report-b"])
def test_compiled_code_serves_every_batch_of_a_shape(cells, name):
    torch._dynamo.reset()
    counter = CompileCounter()
    augment = augmenter(name)
    expected = [augment(cells, epoch, torch.arange(8)) for epoch in range(4)]
    augment.apply = torch.compile(augment.apply, backend=counter, fullgraph=True)
    for epoch in range(4):
        assert torch.equal(augment(cells, epoch, torch.arange(8)), expected[epoch])
    assert counter.frame_count == 1


def test_no_copy_that_may_outlive_its_source_is_begun_off_cuda(cells):
    with UnfinishedCopies() as copies:
        augmenter("report-b", device="meta")(cells.to("meta"), 0, torch.arange(8))
    assert copies.begun == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", PRESETS)
def test_the_device_sees_what_the_cpu_sees(cells, name):
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device is None:
        pytest.skip("no CUDA and no MPS device")
    expected = augmenter(name)(cells, 1, torch.arange(8))
    result = augmenter(name, device=device)(cells.to(device), 1, torch.arange(8))
    # Almost all values: at the rim of a cell, rounding decides whether a pixel counts as black.
    assert ((result.cpu() - expected).abs() < 1e-3).float().mean() > 0.999


# --- normalisation ------------------------------------------------------------------------------------------------


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
    rows = torch.empty(pixels.shape)
    normalize_pixels(pixels, scale, offset, rows)
    assert torch.allclose(rows.permute(0, 3, 1, 2), expected, atol=1e-5)
    flipped = Augmentation(name="test", flip_horizontal=Chance(p=1.0))
    augmenter = Augmenter(flipped, seed=0, mean=mean.tolist(), std=std.tolist(), device="cpu")
    planes = augmenter(pixels, 0, torch.arange(len(pixels)))
    assert torch.allclose(planes, expected.flip(3), atol=1e-5)


def test_channels_are_clamped_to_limits_of_their_own(images):
    clamped = images.clone()
    clamp_channels_(clamped, [10, 20, 30], [110, 120, 130])
    for channel in range(3):
        expected = np.clip(images[:, channel].numpy(), 10 * (channel + 1), 100 + 10 * (channel + 1))
        assert np.array_equal(clamped[:, channel].numpy(), expected)
