"""Micro-batches: one optimizer step, and BatchNorm. Several ranks are in test_two_ranks."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from leukemia_data.errors import UsageError
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.train import fit

from ..fakes import (
    CPU,
    NORMALIZATION,
    FakeBatch,
    FakeSource,
    copied_state,
    fake_batch,
    fake_source,
    flipped_by_epoch_and_sample,
    share_of,
    tiny_network,
)
from ..rank_program import SeveralShares
from ..small_training import Recorder, train, without_times

SIZES = (8, 7, 3, 5)


def in_shares(num_micro_batches: int) -> SeveralShares:
    whole = [fake_batch(size, seed) for seed, size in enumerate(SIZES)]
    return SeveralShares(
        [[share_of(batch, n, num_micro_batches, padded=True) for n in range(num_micro_batches)] for batch in whole]
    )


def without_batchnorm() -> nn.Module:
    model = tiny_network()
    model[1] = nn.Identity()
    return model


@pytest.mark.parametrize("num_micro_batches", [2, 3, 4])
@pytest.mark.parametrize("extra", [{}, {"class_weights": (1.0, 3.0), "clip_norm": 0.3, "ema_decay": 0.9}], ids=str)
def test_without_batchnorm_micro_batches_are_one_full_batch(num_micro_batches: int, extra: dict) -> None:
    whole, shared = without_batchnorm(), without_batchnorm()
    recorder = Recorder(shared)
    history = train(whole, fake_source(*SIZES), fake_source(6), **extra)
    found = train(
        shared, in_shares(num_micro_batches), fake_source(6), accumulate=num_micro_batches, observer=recorder, **extra
    )
    for one, other in zip(without_times(found), without_times(history), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    for name, value in copied_state(whole).items():
        torch.testing.assert_close(copied_state(shared)[name], value, rtol=1e-5, atol=1e-6)
    steps = [heard for heard in recorder.heard if heard[0] == "step"]
    assert [heard[3] for heard in steps[:4]] == [7, 3, 5, 8]


def test_running_statistics_move_once_by_the_mean_over_the_micro_batches() -> None:
    batch, model = fake_batch(8, 0), tiny_network()
    images = flipped_by_epoch_and_sample(batch.images_BHWC, 1, batch.indices_B)
    before = copy.deepcopy(model[1])
    alone = []
    for share in images.split(4):
        layer = copy.deepcopy(before).train()
        layer(model[0](share))
        alone.append(layer)
    source = SeveralShares([[share_of(batch, number, 2, padded=True) for number in (0, 1)]])
    train(model, source, epochs=1, accumulate=2)
    for name in ("running_mean", "running_var"):
        expected = (getattr(alone[0], name) + getattr(alone[1], name)) / 2
        torch.testing.assert_close(getattr(model[1], name), expected)
    assert model[1].num_batches_tracked == 1


def test_micro_batches_are_prepared_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the 8-bit images are those of a whole step; floats and activations are of one micro-batch."""
    seen: list[int] = []

    def watched(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor) -> Tensor:
        seen.append(len(images_BHWC))
        return flipped_by_epoch_and_sample(images_BHWC, epoch, indices_B)

    monkeypatch.setattr("tests.leukemia_models.small_training.flipped_by_epoch_and_sample", watched)
    train(tiny_network(), in_shares(2), epochs=1, accumulate=2)
    assert seen == [4, 3, 2, 1, 3, 2, 4, 4]


def test_occurrences_of_the_rows_that_count_are_passed_on() -> None:
    @dataclass(frozen=True)
    class Drawn(FakeBatch):
        @property
        def occurrences_B(self) -> Tensor:
            return torch.arange(len(self.indices_B)) * 10

    batch = fake_batch(4, 0)
    mask_B = torch.tensor([True, False, True, True])
    seen: list[list[int]] = []

    def watched(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor) -> Tensor:
        seen.append(occurrences_B.tolist())
        return flipped_by_epoch_and_sample(images_BHWC, epoch, indices_B)

    source = FakeSource([Drawn(batch.images_BHWC, batch.labels_B, batch.indices_B, mask_B)])
    fit(tiny_network(), source, None, TrainSettings(epochs=1), NORMALIZATION, watched, CPU)
    assert seen == [[0, 20, 30]]


def test_run_resumed_between_steps_ends_bit_by_bit_like_the_uninterrupted_one() -> None:
    whole = tiny_network(dropout=0.3)
    history = train(whole, in_shares(3), fake_source(6), accumulate=3)
    recorder = Recorder(model := tiny_network(dropout=0.3), ((1, 2),))
    train(model, in_shares(3), fake_source(6), accumulate=3, observer=recorder)
    ((start, weights),) = recorder.saved
    model.load_state_dict(weights)
    source = in_shares(3)
    again = train(model, source, fake_source(6), accumulate=3, start=start)
    assert source.asked[0] == (1, 2)
    assert without_times(again) == without_times(history)
    for name, value in copied_state(whole).items():
        assert torch.equal(copied_state(model)[name], value)


def test_gradients_for_16_bits_are_scaled_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_network()
    train(expected, in_shares(2), accumulate=2)
    # As for float16, which needs it; powers of two change no bit.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    monkeypatch.setattr("leukemia_models.training.learner.gradient_scaler", lambda *given: scaler)
    train(found := tiny_network(), in_shares(2), accumulate=2)
    for name, value in copied_state(expected).items():
        torch.testing.assert_close(copied_state(found)[name], value)


def test_a_step_of_a_single_sample_is_left_out_with_any_number_of_micro_batches() -> None:
    lonely = SeveralShares([[share_of(fake_batch(size, 1), n, 2, padded=True) for n in (0, 1)] for size in (1, 4)])
    recorder = Recorder(model := tiny_network())
    train(model, lonely, epochs=1, accumulate=2, observer=recorder)
    assert [heard for heard in recorder.heard if heard[0] == "step"] == [("step", 1, 1, 4)]


def test_at_least_one_share() -> None:
    with pytest.raises(UsageError, match="accumulate must be at least 1, got 0"):
        TrainSettings(epochs=1, accumulate=0)


def test_one_micro_batch_is_the_plain_training_bit_by_bit() -> None:
    plain, shared = tiny_network(), tiny_network()
    train(plain, FakeSource([fake_batch(size, seed) for seed, size in enumerate(SIZES)]))
    train(shared, in_shares(1), accumulate=1)
    for name, value in copied_state(plain).items():
        assert torch.equal(copied_state(shared)[name], value)
