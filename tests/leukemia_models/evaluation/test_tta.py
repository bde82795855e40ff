from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.special import softmax as softmax_of
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from leukemia_data.errors import RunError, UsageError
from leukemia_models.devices.distributed import Ranks
from leukemia_models.devices.normalization import Normalization
from leukemia_models.evaluation.predict import average_views, predict_probabilities, views
from leukemia_models.evaluation.settings import LOGITS, NO_TTA, PROBABILITIES, Tta, parse_tta

from ..fakes import CPU, NORMALIZATION, FakeBatch, copied_state, every_row, fake_batch, same_state, tiny_network

D4 = parse_tta("d4")


def noise(num_images: int = 2, size_px: int = 9, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_images, size_px, size_px, 3), generator=generator, dtype=torch.uint8)


def noise_batch(num_images: int, seed: int, size_px: int = 16) -> FakeBatch:
    """Unlike those of fake_batch, these images look different from every side."""
    images = noise(num_images, size_px, seed)
    return FakeBatch(
        images, torch.zeros(num_images, dtype=torch.int64), torch.arange(num_images), every_row(num_images)
    )


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


@pytest.fixture
def sided() -> nn.Module:
    """A network for 16 px whose output depends on sides and corners."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 2)
    )


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "num_views"),
    [
        ("none", NO_TTA, 1),
        ("d4", Tta("d4"), 8),
        ("rotations:8", Tta("rotations", 8), 8),
        ("rotations:360", Tta("rotations", 360), 360),
    ],
)
@pytest.mark.parametrize("average", [LOGITS, PROBABILITIES])
def test_names_are_read_and_written(text: str, expected: Tta, num_views: int, average: str) -> None:
    found = parse_tta(text, average)
    assert found == Tta(expected.kind, expected.num_rotations, average)
    assert str(found) == text
    assert found.num_views == num_views
    assert Tta.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert (average in found.description) == (text != "none")


@pytest.mark.parametrize(
    "text",
    ["", "D4", "d8", " d4", "d4:8", "none:1", "turns:8", "rotations", "rotations:", "rotations:²"]
    # one rotation is none, and a number is nothing but digits
    + [f"rotations:{number}" for number in ("1", "361", "-8", "8.0", "8:8", " 8")],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="rotations"):
        parse_tta(text)


def test_other_values_are_refused() -> None:
    with pytest.raises(UsageError, match="logits and probabilities"):
        parse_tta("d4", "votes")
    with pytest.raises(UsageError, match="number of rotations"):
        Tta("d4", 4)


@pytest.mark.parametrize("values", [None, "d4", [], {}, {"views": "d4"}, {"views": 4, "average": "logits"}])
def test_what_is_no_stored_augmentation_is_refused(values: object) -> None:
    with pytest.raises(UsageError, match="is stored as views and average"):
        Tta.from_dict(values)


# --- views ----------------------------------------------------------------------------------------------------------


def test_d4_is_numpys_turns_of_the_image_and_its_mirror_image() -> None:
    images = noise()
    before = images.clone()
    found = [view.numpy() for view in views(D4, images)]
    expected = [
        np.rot90(start, turns, axes=(1, 2))
        for start, turns in itertools.product((images.numpy(), np.flip(images.numpy(), 2)), range(4))
    ]
    assert all(view.dtype == np.uint8 for view in found)
    for view, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(view, other)
    assert torch.equal(images, before)


def test_d4_has_eight_different_views_that_any_of_them_gives() -> None:
    images = noise(1)
    seen = {view.numpy().tobytes() for view in views(D4, images)}
    assert len(seen) == 8
    for turned in (images.flip(1), images.transpose(1, 2), images.rot90(3, (1, 2))):
        assert {view.contiguous().numpy().tobytes() for view in views(D4, turned)} == seen


def test_none_is_the_image_itself() -> None:
    images = noise()
    [view] = views(NO_TTA, images)
    assert view is images


@pytest.mark.parametrize("number", [2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("size_px", [16, 17])
def test_rotations_are_torchvisions(number: int, size_px: int) -> None:
    images = noise(2, size_px, seed=number)
    found = list(views(parse_tta(f"rotations:{number}"), images))
    assert len(found) == number
    for turn, view in enumerate(found):
        degrees = 360 * turn / number
        if degrees % 90 == 0:
            assert view.dtype == torch.uint8
            np.testing.assert_array_equal(view.numpy(), np.rot90(images.numpy(), int(degrees // 90), axes=(1, 2)))
            continue
        expected = tv.rotate(
            images.permute(0, 3, 1, 2).float(), degrees, interpolation=InterpolationMode.BILINEAR
        ).permute(0, 2, 3, 1)
        torch.testing.assert_close(view, expected, atol=0.01, rtol=0)


def test_corners_of_a_turned_image_are_black_before_normalisation() -> None:
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    _, turned, *_ = views(parse_tta("rotations:8"), white)
    corners = turned[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.equal(corners, torch.zeros(4, 3))
    assert torch.allclose(turned[0, 16, 16], torch.tensor(255.0))


@pytest.mark.parametrize("text", ["d4", "rotations:3"])
def test_views_need_square_images(text: str) -> None:
    with pytest.raises(ValueError, match="square"):
        list(views(parse_tta(text), torch.zeros(1, 4, 5, 3, dtype=torch.uint8)))


# --- averages -------------------------------------------------------------------------------------------------------


def test_averages_by_hand() -> None:
    # Two views of one image: probabilities of class 1 are 0.9 and 0.2.
    logits = torch.tensor([[[0.0, math.log(9)], [math.log(4), 0.0]]], dtype=torch.float64)
    by_probability = average_views(logits, PROBABILITIES).softmax(dim=1)
    assert by_probability[0, 1].item() == pytest.approx((0.9 + 0.2) / 2)
    by_logit = average_views(logits, LOGITS).softmax(dim=1)
    # Odds are multiplied: the root of 9 * 1/4 is 1.5.
    assert by_logit[0, 1].item() == pytest.approx(1.5 / 2.5)


def test_averages_are_scipys() -> None:
    logits = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_probabilities = logits.numpy() - logsumexp(logits.numpy(), axis=2, keepdims=True)
    expected = logsumexp(log_probabilities, axis=1) - np.log(8)
    np.testing.assert_allclose(average_views(logits, PROBABILITIES).numpy(), expected, atol=1e-14)
    np.testing.assert_allclose(
        softmax_of(average_views(logits, LOGITS).numpy(), axis=1), softmax_of(logits.numpy().mean(axis=1), axis=1)
    )


@pytest.mark.parametrize("average", [LOGITS, PROBABILITIES])
def test_certain_answers_stay_finite_and_order_of_views_hardly_matters(average: str) -> None:
    logits = torch.tensor([[[2000.0, -2000.0], [1000.0, -1000.0], [-900.0, 900.0]]], dtype=torch.float64)
    found = average_views(logits, average).log_softmax(dim=1)
    assert found.isfinite().all()
    torch.testing.assert_close(average_views(logits.flip(1), average).log_softmax(dim=1), found)


@pytest.mark.parametrize("average", [LOGITS, PROBABILITIES])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_overflown_view_spoils_the_answer(average: str, bad: float) -> None:
    logits = torch.zeros(2, 8, 2, dtype=torch.float64)
    logits[1, 3, 0] = bad
    found = average_views(logits, average).log_softmax(dim=1)
    assert found[0].isfinite().all()
    assert not found[1].isfinite().all()


# --- predictions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [LOGITS, PROBABILITIES])
def test_prediction_is_the_mean_over_plain_predictions_of_the_views(sided: nn.Module, average: str) -> None:
    batch = noise_batch(4, 1)
    found = predict_probabilities(sided, [batch], NORMALIZATION, CPU, tta=parse_tta("d4", average))
    logits = []
    sided.eval()
    for turns, mirrored in itertools.product(range(4), (False, True)):
        images = np.rot90(batch.images_BHWC.numpy(), turns, axes=(1, 2))
        images = np.flip(images, 1) if mirrored else images
        with torch.no_grad():
            logits.append(sided(torch.tensor((images / 255 - 0.4) / 0.3).float().permute(0, 3, 1, 2)).double().numpy())
    probabilities = softmax_of(np.stack(logits), axis=2)
    assert probabilities[..., 1].std(axis=0).min() > 1e-3
    expected = probabilities.mean(axis=0) if average == PROBABILITIES else softmax_of(np.mean(logits, axis=0), axis=1)
    np.testing.assert_allclose(found.probabilities_NK, expected, atol=1e-6)
    np.testing.assert_allclose(found.probabilities_NK.sum(axis=1), 1, atol=1e-12)


def test_turning_the_images_does_not_change_the_answer_with_d4(sided: nn.Module) -> None:
    batch = noise_batch(4, 2)
    turned = FakeBatch(batch.images_BHWC.transpose(1, 2), batch.labels_B, batch.indices_B, batch.mask_B)
    found = [predict_probabilities(sided, [each], NORMALIZATION, CPU, tta=D4) for each in (batch, turned)]
    np.testing.assert_allclose(found[0].probabilities_NK, found[1].probabilities_NK, atol=1e-6)
    plain = [predict_probabilities(sided, [each], NORMALIZATION, CPU) for each in (batch, turned)]
    assert np.abs(plain[0].probabilities_NK - plain[1].probabilities_NK).max() > 1e-3


@pytest.mark.parametrize("average", [LOGITS, PROBABILITIES])
@pytest.mark.parametrize("text", ["d4", "rotations:4"])
def test_network_that_sees_no_direction_gives_the_same_with_and_without(text: str, average: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    batch = noise_batch(5, 3)
    plain = predict_probabilities(model, [batch], NORMALIZATION, CPU)
    found = predict_probabilities(model, [batch], NORMALIZATION, CPU, tta=parse_tta(text, average))
    np.testing.assert_allclose(found.log_probabilities_NK, plain.log_probabilities_NK, atol=1e-6)


def test_interpolated_views_are_normalised_as_grey_levels() -> None:
    """A network that returns the mean of its input shows what it was fed: black corners are -mean/std there."""

    class Mean(nn.Module):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            mean_B = images_BCHW.mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(mean_B), mean_B], dim=1)

    batch = noise_batch(3, 4)
    normalization = Normalization((0.2, 0.2, 0.2), (0.5, 0.5, 0.5))
    found = predict_probabilities(Mean(), [batch], normalization, CPU, tta=parse_tta("rotations:8"))
    pixels = batch.images_BHWC.permute(0, 3, 1, 2).float()
    turned = [tv.rotate(pixels, 45 * turn, interpolation=InterpolationMode.BILINEAR) for turn in range(8)]
    means = torch.stack([(view / 255 - 0.2) / 0.5 for view in turned]).mean(dim=(0, 2, 3, 4)).double().numpy()
    log_odds = found.log_probabilities_NK[:, 1] - found.log_probabilities_NK[:, 0]
    np.testing.assert_allclose(log_odds, means, atol=1e-5)


def test_without_views_nothing_changes_by_a_bit(sided: nn.Module) -> None:
    batches = [noise_batch(4, 1), noise_batch(3, 2)]
    plain = predict_probabilities(sided, batches, NORMALIZATION, CPU)
    named = predict_probabilities(sided, batches, NORMALIZATION, CPU, tta=parse_tta("none", PROBABILITIES))
    np.testing.assert_array_equal(named.log_probabilities_NK, plain.log_probabilities_NK)
    sided.eval()
    logits = []
    with torch.inference_mode():
        for batch in batches:
            rows = batch.images_BHWC.reshape(len(batch.images_BHWC) * 16, 48).float()
            scale, offset = (
                torch.tensor(value, dtype=torch.float64).float() for value in (1 / (255 * 0.3), -0.4 / 0.3)
            )
            images = torch.addcmul(offset, rows, scale).view(-1, 16, 16, 3).permute(0, 3, 1, 2)
            logits.append(sided(images))
    expected = torch.cat(logits).double().log_softmax(dim=1).numpy()
    np.testing.assert_array_equal(plain.log_probabilities_NK, expected)


@pytest.mark.parametrize("text", ["d4", "rotations:3"])
def test_no_parameter_no_buffer_and_no_mode_changes(text: str) -> None:
    model = tiny_network()
    model.train()
    before, modes = copied_state(model), [module.training for module in model.modules()]
    predict_probabilities(model, [fake_batch(4, 1)], NORMALIZATION, CPU, tta=parse_tta(text))
    assert same_state(copied_state(model), before)
    assert [module.training for module in model.modules()] == modes


def test_masked_rows_and_batches_of_uneven_size(sided: nn.Module) -> None:
    batches = [noise_batch(4, 1), noise_batch(1, 2)]
    whole = predict_probabilities(sided, batches, NORMALIZATION, CPU, tta=D4)
    batches[0].mask_B[1] = False
    found = predict_probabilities(sided, batches, NORMALIZATION, CPU, tta=D4)
    kept = [0, 2, 3, 4]
    np.testing.assert_array_equal(found.log_probabilities_NK, whole.log_probabilities_NK[kept])
    assert found.indices_N.tolist() == whole.indices_N[kept].tolist()


def test_rows_of_several_ranks_come_together(sided: nn.Module) -> None:
    class Echo(Ranks):
        """A second rank with the values of this one."""

        def gather(self, values: Tensor) -> Tensor:
            return torch.stack([values, values])

    batches = [noise_batch(3, 1), noise_batch(2, 2)]
    alone = predict_probabilities(sided, batches, NORMALIZATION, CPU, tta=D4)
    found = predict_probabilities(sided, batches, NORMALIZATION, CPU, tta=D4, ranks=Echo(0, 2))
    rows = [0, 1, 2, 0, 1, 2, 3, 4, 3, 4]
    np.testing.assert_array_equal(found.log_probabilities_NK, alone.log_probabilities_NK[rows])
    assert found.indices_N.tolist() == alone.indices_N[rows].tolist()


def test_network_that_fails_on_one_view_is_an_error() -> None:
    class Overflowing(nn.Module):
        """Too much for images that are brighter on the left."""

        def forward(self, images_BCHW: Tensor) -> Tensor:
            left, right = images_BCHW.mean(dim=(1, 2)).tensor_split(2, dim=1)
            is_left_B = left.mean(dim=1) > right.mean(dim=1)
            return torch.stack([torch.zeros(len(is_left_B)), torch.where(is_left_B, torch.inf, 0.0)], dim=1)

    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    images[0, :, 4:] = 9  # only its mirror image and half turn are brighter on the left
    batch = FakeBatch(images, torch.zeros(2, dtype=torch.int64), torch.arange(2), every_row(2))
    assert predict_probabilities(Overflowing(), [batch], NORMALIZATION, CPU).loss == pytest.approx(math.log(2))
    for average in (LOGITS, PROBABILITIES):
        with pytest.raises(RunError, match="1 of 2 images"):
            predict_probabilities(Overflowing(), [batch], NORMALIZATION, CPU, tta=parse_tta("d4", average))
