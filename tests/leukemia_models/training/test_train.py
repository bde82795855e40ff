from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leukemia_data.errors import RunError, UsageError
from leukemia_models.networks.registry import build_model
from leukemia_models.training import train as train_module
from leukemia_models.training.history import EPOCH_FIELDS, EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.train import Observer, fit

from ...noted_device import noting_current
from ..fakes import (
    CPU,
    NORMALIZATION,
    FakeBatch,
    FakeSource,
    copied_state,
    fake_batch,
    fake_source,
    normalized,
    same_state,
    tiny_network,
)
from ..small_training import Recorder, train, without_times


def as_is(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor | None = None) -> Tensor:
    return normalized(images_BHWC)


def plain_sgd(model: nn.Module, batches: list[FakeBatch], lrs: list[float]) -> tuple[float, float]:
    """The steps of a plain training script; returns mean loss and accuracy."""
    model.train()
    velocity = [torch.zeros_like(parameter) for parameter in model.parameters()]
    losses, hits = [], []
    for batch, lr in zip(batches, lrs, strict=True):
        images = (batch.images_BHWC.permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.3
        logits = model(images)
        per_sample = functional.cross_entropy(logits, batch.labels_B, reduction="none")
        losses += per_sample.tolist()
        hits += (logits.argmax(1) == batch.labels_B).tolist()
        model.zero_grad()
        per_sample.mean().backward()
        with torch.no_grad():
            for parameter, moving in zip(model.parameters(), velocity, strict=True):
                moving.mul_(0.9).add_(parameter.grad + 1e-4 * parameter)
                parameter.sub_(lr * moving)
    return float(np.mean(losses)), float(np.mean(hits))


def test_epoch_equals_a_plain_training_script() -> None:
    source = fake_source(8, 8, 3)
    model, script_model = tiny_network(), tiny_network()
    settings = TrainSettings(epochs=1, optimizer=OptimizerSettings(lr=0.1))
    history = fit(model, source, None, settings, NORMALIZATION, as_is, CPU)
    lrs = [0.05 * (1 + np.cos(np.pi * (step + 0.5) / 3)) for step in range(3)]
    loss, accuracy = plain_sgd(script_model, list(source.epoch(1)), lrs)
    for found, expected in zip(model.parameters(), script_model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    (record,) = history.records
    assert record.train_loss == pytest.approx(loss, rel=1e-5)
    assert record.train_accuracy == pytest.approx(accuracy)
    assert record.lr == pytest.approx(lrs[-1])
    assert (record.valid_loss, record.valid_auroc) == (None, None)


@pytest.mark.parametrize("name", ["tiny", "resnet18-narrow"])
def test_defaults_train_bit_by_bit_like_a_loop_of_torch_calls(name: str) -> None:
    """The first report's training: SGD, plain cross-entropy, half a cosine."""
    model, script_model = (tiny_network() if name == "tiny" else build_model(name, 2, seed=1) for _ in range(2))
    source = fake_source(8, 8, 6)
    fit(model, source, None, TrainSettings(epochs=2), NORMALIZATION, as_is, CPU)

    script_model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(script_model.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)
    for step, batch in enumerate([*source.epoch(1), *source.epoch(2)]):
        optimizer.param_groups[0]["lr"] = (
            0.005 * 0.5 * (1 + math.cos(math.pi * ((step // 3 + (step % 3 + 0.5) / 3) / 2)))
        )
        logits = script_model(as_is(batch.images_BHWC, 1, batch.indices_B).to(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, batch.labels_B, reduction="sum") * (1 / len(batch.labels_B))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same_state(copied_state(model), copied_state(script_model))


class SlowSource(FakeSource):
    """Three seconds pass until a batch is there."""

    def __init__(self, batches: Sequence[FakeBatch], clock: list[float]) -> None:
        super().__init__(batches)
        self.clock = clock

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
        for batch in super().epoch(epoch, first_step):
            self.clock[0] += 3
            yield batch


class SlowSteps(Recorder):
    """A second passes in each step."""

    clock: list[float]

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        self.clock[0] += 1


def test_waiting_for_batches_and_validating_count_as_time() -> None:
    now = [0.0]
    observer = SlowSteps(model := tiny_network())
    observer.clock = now
    train_source, valid_source = (SlowSource(fake_source(*sizes).batches, now) for sizes in ((16, 16, 16), (20,)))
    settings = TrainSettings(epochs=2)
    history = fit(
        model, train_source, valid_source, settings, NORMALIZATION, as_is, CPU, observer, clock=lambda: now[0]
    )
    for record in history.records:
        # Three steps of 3 s and 1 s, and one batch to validate on.
        assert record.seconds == 3 * (3 + 1) + 3
        assert record.images_per_s == 48 / 12
        assert record.data_wait_share == 9 / 12


def test_network_learns_and_history_is_complete() -> None:
    model = tiny_network()
    history = train(model, fake_source(16, 16, 16), fake_source(20), epochs=8)
    assert [record.epoch for record in history.records] == list(range(1, 9))
    last = history.records[-1]
    assert last.train_loss < history.records[0].train_loss
    assert last.valid_balanced_accuracy == 1.0
    assert last.valid_auroc == 1.0


def test_observer_hears_everything_in_order() -> None:
    model = tiny_network()
    recorder = Recorder(model)
    train(model, fake_source(4, 3), fake_source(5), epochs=2, observer=recorder)
    expected = []
    for epoch, sizes in ((1, (3, 4)), (2, (4, 3))):
        steps = [("step", epoch, step, size) for step, size in enumerate(sizes, start=1)]
        expected += [("start", epoch, 2, 0), *steps, ("end", epoch)]
    assert recorder.heard == expected
    assert recorder.best[0] == 1


def test_epochs_are_counted_from_one_for_the_streams() -> None:
    source, valid = fake_source(4), fake_source(4)
    train(tiny_network(), source, valid, epochs=3)
    assert source.asked == valid.asked == [(1, 0), (2, 0), (3, 0)]


def test_validation_changes_nothing() -> None:
    without, with_validation = tiny_network(), tiny_network()
    train(without, fake_source(6, 6))
    train(with_validation, fake_source(6, 6), fake_source(9))
    assert same_state(copied_state(without), copied_state(with_validation))


def weights_after_training(model: nn.Module, source: FakeSource) -> dict[str, Tensor]:
    train(model, source, fake_source(6))
    return copied_state(model)


def test_same_seed_gives_the_same_weights_bit_by_bit() -> None:
    first, second = (
        weights_after_training(build_model("resnet18-narrow", 2, seed=3), fake_source(8, 5)) for _ in range(2)
    )
    assert same_state(first, second)


@pytest.mark.usefixtures("two_threads")
def test_same_seed_gives_the_same_weights_with_two_threads() -> None:
    first, second = (weights_after_training(tiny_network(seed=3), fake_source(64, 64)) for _ in range(2))
    assert same_state(first, second)


@pytest.mark.parametrize("channels_last", [True, False])
def test_resumed_run_ends_bit_by_bit_like_the_uninterrupted_one(channels_last: bool) -> None:
    source, valid = fake_source(8, 8, 5), fake_source(6)
    whole = build_model("resnet18-narrow", 2, seed=3)
    recorder = Recorder(whole)
    history = train(whole, source, valid, epochs=3, observer=recorder, channels_last=channels_last)

    resumed = build_model("resnet18-narrow", 2, seed=99)
    resumed.load_state_dict(recorder.weights[0])
    start = recorder.states[0]
    before = copy.deepcopy(start)
    again = train(resumed, source, valid, epochs=3, start=start, channels_last=channels_last)
    assert same_state(copied_state(resumed), recorder.weights[-1])
    assert without_times(again) == without_times(history)
    # The start state is unchanged.
    for number, tensors in before.optimizer_state.items():
        assert torch.equal(tensors["momentum_buffer"], start.optimizer_state[number]["momentum_buffer"])


def test_random_layers_resume_exactly_and_leave_the_global_state_alone() -> None:
    source = fake_source(8, 8)
    whole = tiny_network(dropout=0.5)
    recorder = Recorder(whole)
    global_state = torch.random.get_rng_state()
    train(whole, source, epochs=3, observer=recorder)
    assert torch.equal(torch.random.get_rng_state(), global_state)
    resumed = tiny_network(dropout=0.5)
    resumed.load_state_dict(recorder.weights[1])
    torch.rand(7)
    train(resumed, source, epochs=3, start=recorder.states[1])
    assert same_state(copied_state(resumed), recorder.weights[-1])


def test_finished_run_has_nothing_left_to_do() -> None:
    model = tiny_network()
    recorder = Recorder(model)
    history = train(model, fake_source(4), epochs=1, observer=recorder)
    before = copied_state(model)
    assert train(model, fake_source(4), epochs=1, start=recorder.states[-1]) == history
    assert same_state(copied_state(model), before)


def test_run_that_stopped_early_says_so_and_is_not_resumed() -> None:
    """Almost constant weights: no epoch is better than the first by the given margin."""
    stopping = EarlyStopping(patience_epochs=2, min_delta=0.5, metric="loss")
    run = {"epochs": 9, "early_stopping": stopping, "optimizer": OptimizerSettings(lr=1e-9)}
    recorder = Recorder(model := tiny_network())
    history = train(model, fake_source(4, 4), fake_source(6), observer=recorder, **run)
    assert [record.epoch for record in history.records] == [1, 2, 3]
    assert TrainSettings(**run).stops_after(history.records)
    before, source = copied_state(model), fake_source(4, 4)
    assert train(model, source, fake_source(6), start=recorder.states[-1], **run) == history
    assert same_state(copied_state(model), before)
    assert source.asked == []


def test_what_watches_the_validation_is_refused_without_it() -> None:
    for settings in (
        {"early_stopping": EarlyStopping(patience_epochs=2)},
        {"schedule": ScheduleSettings(name="plateau")},
    ):
        with pytest.raises(UsageError, match="watches the validation part"):
            train(tiny_network(), fake_source(4), **settings)


def test_rate_falls_on_a_plateau_also_in_a_resumed_run() -> None:
    schedule = ScheduleSettings(name="plateau", plateau_patience_epochs=1, plateau_min_delta=0.5, plateau_factor=0.1)
    run = {"epochs": 4, "schedule": schedule, "optimizer": OptimizerSettings(lr=1e-9)}
    recorder = Recorder(model := tiny_network(), ((3, 1),))
    history = train(model, fake_source(4, 4), fake_source(6), observer=recorder, **run)
    assert [record.lr for record in history.records] == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11])
    ((start, weights),) = recorder.saved
    model.load_state_dict(weights)
    again = train(model, fake_source(4, 4), fake_source(6), start=start, **run)
    assert without_times(again) == without_times(history)


def test_without_validation_the_last_epoch_is_the_best() -> None:
    recorder = Recorder(model := tiny_network())
    history = train(model, fake_source(4, 4), epochs=3, observer=recorder)
    assert recorder.best == [1, 2, 3]
    assert history.best is history.records[-1]
    assert {getattr(history.records[-1], name) for name in EPOCH_FIELDS if name.startswith("valid_")} == {None}


@pytest.mark.parametrize("optimizer", [OptimizerSettings(name="adamw"), OptimizerSettings(nesterov=True)], ids=str)
@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_every_optimizer_resumes_bit_by_bit(optimizer: OptimizerSettings, decay_norm_and_bias: bool) -> None:
    run = {
        "epochs": 3,
        "optimizer": replace(optimizer, decay_norm_and_bias=decay_norm_and_bias),
        "clip_norm": 0.1,
        "label_smoothing": 0.1,
        "class_weights": (1.0, 3.0),
    }
    whole = tiny_network()
    recorder = Recorder(whole, ((2, 1),))
    history = train(whole, fake_source(5, 6), fake_source(6), observer=recorder, **run)
    ((start, weights),) = recorder.saved
    resumed = tiny_network(seed=9)
    resumed.load_state_dict(weights)
    again = train(resumed, fake_source(5, 6), fake_source(6), start=start, **run)
    assert same_state(copied_state(resumed), copied_state(whole))
    assert without_times(again) == without_times(history)


def test_last_batch_of_one_image_is_left_out() -> None:
    """ResNet-18 at 32 px ends in 1x1 px: BatchNorm raises on a batch of one."""
    model = build_model("resnet18-narrow", 2)
    recorder = Recorder(model)
    train(model, fake_source(4, 1), epochs=1, observer=recorder)
    assert [heard for heard in recorder.heard if heard[0] == "step"] == [("step", 1, 2, 4)]


def test_only_batches_of_one_is_an_error() -> None:
    with pytest.raises(RunError, match="no batch of two or more"):
        train(tiny_network(), fake_source(1, 1))


class Bomb(nn.Module):
    """Multiplies logits by infinity from the given step on."""

    def __init__(self, explodes_at: int) -> None:
        super().__init__()
        self.inner = tiny_network()
        self.steps_left = explodes_at

    def forward(self, images: Tensor) -> Tensor:
        self.steps_left -= self.training
        return self.inner(images) * (torch.inf if self.steps_left <= 0 else 1.0)


def test_loss_that_is_not_finite_stops_before_the_weights_move() -> None:
    model = Bomb(explodes_at=4)
    recorder = Recorder(model)
    seen: list[dict[str, Tensor]] = []
    recorder.on_step = lambda *heard: seen.append({n: p.detach().clone() for n, p in model.named_parameters()})  # type: ignore[method-assign]
    with pytest.raises(RunError, match=r"nan in epoch 2, step 2"):
        train(model, fake_source(4, 4), epochs=3, observer=recorder)
    assert same_state({n: p.detach() for n, p in model.named_parameters()}, seen[-1])


class BombInEvalMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_network()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) * (1.0 if self.training else torch.nan)


def test_validation_that_is_not_finite_is_named() -> None:
    model = BombInEvalMode()
    with pytest.raises(RunError, match="not a number for 5 of 5 images"):
        train(model, fake_source(4), fake_source(5))


def test_unlabelled_images_are_refused() -> None:
    batch = fake_batch(4, 1)
    batch.labels_B[2] = -1
    with pytest.raises(RunError, match=r"epoch 1, step 1: labels from -1"):
        train(tiny_network(), FakeSource([batch]))


def test_state_without_optimizer_or_of_another_network_is_refused() -> None:
    model = tiny_network()
    recorder = Recorder(model)
    train(model, fake_source(4), epochs=1, observer=recorder)
    state = recorder.states[-1]
    with pytest.raises(RunError, match="no optimizer state"):
        train(model, fake_source(4), start=TrainState(state.history, None))
    with pytest.raises(RunError, match="does not fit"):
        train(build_model("resnet18-narrow", 2), fake_source(4), start=state)


def test_the_device_is_the_current_one_during_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compiled code and some functions of torch need it on cuda:1."""
    calls: list[object] = []

    class Steps(Observer):
        def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
            calls.append("step")

    monkeypatch.setattr(train_module, "current", noting_current(calls))
    fit(tiny_network(), fake_source(2, 4), None, TrainSettings(epochs=1), NORMALIZATION, as_is, CPU, Steps())
    assert calls == [CPU, "step", "step", "left"]
