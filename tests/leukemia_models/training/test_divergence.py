"""Diverging trainings stop, and their checkpoints stay finite."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leukemia_models.training import learner
from leukemia_models.training.losses import MAX_SKIPS, DivergenceError, SkippedSteps, first_non_finite
from leukemia_models.training.optimizers import OptimizerSettings

from ..fakes import fake_source, tiny_network
from ..small_training import Recorder, train


class _SpoilsGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return logits.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.factor, None


class Overflowing(nn.Module):
    """Its answers are right, and its gradients infinite at the steps (from 1) for which `is_spoilt` says so."""

    def __init__(self, is_spoilt: Callable[[int], bool]) -> None:
        super().__init__()
        self.inner = tiny_network()
        self.is_spoilt = is_spoilt
        self.num_steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_steps += self.training
        return _SpoilsGradient.apply(self.inner(images), torch.inf if self.is_spoilt(self.num_steps) else 1.0)


EVERY_STEP = tuple((epoch, step) for epoch in (1, 2, 3) for step in (1, 2))


@pytest.mark.parametrize("saved_steps", [EVERY_STEP, ()], ids=["saved every step", "saved every epoch"])
def test_non_finite_weights_under_a_finite_loss_are_never_saved(saved_steps: tuple[tuple[int, int], ...]) -> None:
    """The gradient of the second epoch's second step, the fourth of all, is infinite."""
    model = Overflowing(lambda step: step == 4)
    recorder = Recorder(model, saved_steps)
    with pytest.raises(DivergenceError, match=r"epoch 2, step 2: .* is non-finite; this state was not saved"):
        train(model, fake_source(4, 4), fake_source(5), epochs=3, observer=recorder)
    assert len(recorder.states) == 1
    assert len(recorder.saved) == (3 if saved_steps else 0)
    weights = [*recorder.weights, *(saved for _, saved in recorder.saved)]
    assert all(first_non_finite(saved) is None for saved in weights)


def test_the_error_of_a_loss_after_non_finite_weights_names_the_weights() -> None:
    model = Overflowing(lambda step: step == 2)
    with pytest.raises(DivergenceError, match=r"loss became nan in epoch 1, step 3, .* an earlier step had made"):
        train(model, fake_source(4, 4, 4), epochs=1)


def test_what_an_optimizer_remembers_is_looked_at_too() -> None:
    """Adam divides by the overflowed value: its weights stay finite and never change again."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_network()

        def forward(self, images: Tensor) -> Tensor:
            return _SpoilsGradient.apply(self.inner(images), 1e25)

    adam = OptimizerSettings(name="adamw")
    with pytest.raises(
        DivergenceError, match=r"epoch 1, step 1: the optimizer's exp_avg_sq of parameter \d+ is non-finite"
    ):
        train(Steep(), fake_source(4), epochs=1, optimizer=adam)


def with_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs on the CPU scale their gradients as float16 on CUDA does."""
    monkeypatch.setattr(learner, "gradient_scaler", lambda device, precision: torch.amp.GradScaler("cpu", enabled=True))


def test_a_few_skipped_steps_are_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of a fused SGD, whose momentum is spoilt by the first one: with scaled gradients no update is fused."""
    with_scaler(monkeypatch)
    model = Overflowing(lambda step: step != MAX_SKIPS)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(model, fake_source(*[4] * (2 * MAX_SKIPS - 1)), epochs=1, fused=False)
    assert not any(torch.equal(now, was) for now, was in zip(model.parameters(), before, strict=True))


def test_endlessly_skipped_steps_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with_scaler(monkeypatch)
    model = Overflowing(lambda step: step > 2)
    expected = f"skipped the {MAX_SKIPS} steps before epoch 1, step {MAX_SKIPS + 3}"
    with pytest.raises(DivergenceError, match=re.escape(expected)):
        train(model, fake_source(*[4] * (2 * MAX_SKIPS)), epochs=1)
    assert first_non_finite(model.state_dict()) is None


def test_skips_are_counted_in_a_row_only() -> None:
    skipped = SkippedSteps()
    scale = 65536.0
    for step in range(4 * MAX_SKIPS):
        skipped.require_few(scale, 1, step)
        scale *= 0.5 if (step + 1) % MAX_SKIPS else 2.0
    for step in range(MAX_SKIPS):
        skipped.require_few(scale, 2, step)
        scale *= 0.5
    with pytest.raises(DivergenceError, match=f"before epoch 2, step {MAX_SKIPS}"):
        skipped.require_few(scale, 2, MAX_SKIPS)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_value_among_many_is_found(value: float, dtype: torch.dtype) -> None:
    tensors = {"fine": torch.zeros(3, dtype=dtype), "empty": torch.zeros(0), "counter": torch.tensor(7)}
    assert first_non_finite(tensors) is None
    tensors["weight"] = torch.linspace(-1, 1, 12).to(dtype).reshape(3, 4).t()
    assert first_non_finite(tensors) is None
    tensors["weight"][2, 1] = value
    assert first_non_finite(tensors) == "weight"


def test_a_sum_that_overflows_is_no_value_that_does() -> None:
    assert (
        first_non_finite({"large": torch.full((4,), 3e38), "half": torch.full((4,), 6e4, dtype=torch.float16)}) is None
    )
