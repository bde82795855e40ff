from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_models.networks.registry import build_model
from leukemia_models.training.learner import Learner, place
from leukemia_models.training.losses import PendingNumbers, StepTotals
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

from ..fakes import CPU, NORMALIZATION, fake_batch, flipped_by_epoch_and_sample, tiny_network


def test_no_copy_that_may_outlive_its_source_is_begun_off_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """On MPS such a copy reads its source later, when others may own that memory."""
    copy, begun = Tensor.to, []

    def watched(values: Tensor, *args: object, non_blocking: bool = False, **options: object) -> Tensor:
        begun.append(non_blocking)
        return copy(values, *args, non_blocking=non_blocking, **options)

    device = torch.device("meta")
    settings = TrainSettings(epochs=1)
    learner = Learner(nn.Linear(1, 1), settings, NORMALIZATION, lambda images, *_: images, device, num_steps=1)
    monkeypatch.setattr(Tensor, "to", watched)
    share = learner.load(fake_batch(4, 0), 1)
    assert share.images_BCHW.device == share.labels_B.device == device
    assert begun
    assert not any(begun)


def movement(steps: int, **settings: Any) -> tuple[list[Tensor], list[Tensor]]:
    """How far a learner moves each weight, and the gradients that it found for the last step."""
    model = tiny_network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner = Learner(
        model.train(),
        TrainSettings(epochs=1, optimizer=OptimizerSettings(momentum=0.0, weight_decay=0.0), **settings),
        NORMALIZATION,
        flipped_by_epoch_and_sample,
        CPU,
        num_steps=steps,
    )
    for step in range(steps):
        learner.gradient(learner.micro_batches([fake_batch(6, step)], 1, step + 1), StepTotals(6, 6.0))
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        learner.update(1.0)
    return [now.detach() - was for now, was in zip(model.parameters(), before, strict=True)], gradients


def norm(tensors: list[Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


def test_gradients_are_shortened_to_the_norm_and_not_turned() -> None:
    """With plain SGD at rate 1 a step is as long as its gradient."""
    free, gradients = movement(steps=1)
    clipped, _ = movement(steps=1, clip_norm=0.01)
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)
    for one, gradient in zip(clipped, gradients, strict=True):
        torch.testing.assert_close(one, -gradient * 0.01 / norm(gradients), rtol=1e-3, atol=1e-7)
    loose, _ = movement(steps=1, clip_norm=1e9)
    assert all(torch.equal(one, other) for one, other in zip(free, loose, strict=True))


def test_norm_is_that_of_the_gradient_and_not_of_its_scaled_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = movement(steps=2, clip_norm=0.01)
    # As for float16, which needs it; powers of two change no bit.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    monkeypatch.setattr("leukemia_models.training.learner.gradient_scaler", lambda *given: scaler)
    found, gradients = movement(steps=2, clip_norm=0.01)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert norm(gradients) > 100


class CountedOperators(TorchDispatchMode):
    """Counts torch's operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.counts[function._schema.name] += 1
        return function(*arguments, **(options or {}))


def learner_with_flips(settings: TrainSettings, device: torch.device) -> Learner:
    model = build_model("resnet18-narrow", 2, seed=0).train()
    place(model, settings, device)
    mean, std = NORMALIZATION.mean, NORMALIZATION.std
    augmenter = Augmenter(load_augmentation("flips"), seed=0, mean=mean, std=std, device=device)
    return Learner(model, settings, NORMALIZATION, augmenter, device, num_steps=2)


def second_step(**settings: Any) -> tuple[Counter[str], Counter[str]]:
    """Operators of the gradient of a step with flips, and those of its update."""
    decided = TrainSettings(epochs=1, **settings).decided(CPU)
    learner = learner_with_flips(decided, CPU)
    for step in (1, 2):
        batches = [fake_batch(4, 10 * step + number) for number in range(decided.accumulate)]
        with CountedOperators() as gradient:
            known = learner.step_labels(batches)
            learner.gradient(learner.micro_batches(batches, 1, step), StepTotals(known.num_rows, known.weight))
        with CountedOperators() as update:
            learner.update(0.01)
    return gradient.counts, update.counts


@pytest.mark.parametrize(
    ("accumulate", "class_weights", "most"),
    [(1, None, 336), (1, (1.0, 3.0), 339), (2, None, 680), (2, (1.0, 3.0), 683)],
)
def test_a_step_waits_for_no_device_and_has_few_operators(
    accumulate: int, class_weights: tuple[float, ...] | None, most: int
) -> None:
    """On a GPU the host would wait at ``_local_scalar_dense``, and at the shape of a mask's result.

    Measured with torch 2.14. Micro-batches add what their statistics need: 8 operators for both together.
    """
    gradient, update = second_step(accumulate=accumulate, class_weights=class_weights)
    waiting = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"}
    assert not waiting & (gradient + update).keys()
    assert gradient.total() <= most
    assert update.total() <= 250  # four for each parameter, two for the buffers of momentum all together


@pytest.mark.parametrize("optimizer", ["sgd", "ranger21"])
def test_a_step_reads_nothing_from_its_device_but_the_loss(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``meta`` has no numbers to read. Counts on the CPU show neither ``tolist`` nor ``cpu``.

    With augmentation, class weights, micro-batches, clipping and the average of weights.
    """
    read: list[PendingNumbers] = []

    def values(pending: PendingNumbers) -> list[float]:
        read.append(pending)
        return [0.5]

    monkeypatch.setattr(PendingNumbers, "values", values)
    monkeypatch.setattr("leukemia_models.training.learner.autocast", lambda *given: nullcontext())  # it has none
    device = torch.device("meta")
    settings = TrainSettings(
        epochs=1,
        precision="fp32",
        accumulate=2,
        class_weights=(1.0, 3.0),
        clip_norm=1.0,
        ema_decay=0.9,
        optimizer=OptimizerSettings(name=optimizer),
        schedule=ScheduleSettings(name="constant"),
    ).decided(device)
    learner = learner_with_flips(settings, device)
    for step in (1, 2):
        batches = [fake_batch(4, step), fake_batch(3, step)]
        known = learner.step_labels(batches)
        learner.gradient(learner.micro_batches(batches, 1, step), StepTotals(known.num_rows, known.weight))
        learner.update(0.01)
    assert len(read) == 4
    with pytest.raises((RuntimeError, NotImplementedError)):
        next(learner.model.parameters()).sum().tolist()


def test_an_update_of_ranger21_waits_for_no_device_and_has_few_operators() -> None:
    """The library's has 1,934 and waits once. Seven for each parameter here, as many as reduce it to numbers."""
    ranger = OptimizerSettings(name="ranger21")
    _, update = second_step(optimizer=ranger, schedule=ScheduleSettings(name="constant"))
    assert "aten::_local_scalar_dense" not in update
    assert update.total() <= 437


class WatchedScaler(torch.amp.GradScaler):
    """Keeps the order of its calls, among those of the optimizer and of clipping."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__("cpu", init_scale=2.0**12)
        self.calls = calls

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("unscale")
        super().unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, *given: Any, **options: Any) -> Any:
        self.calls.append("step")
        return super().step(optimizer, *given, **options)

    def update(self, new_scale: Any = None) -> None:
        self.calls.append("update")
        super().update(new_scale)


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_gradients_are_unscaled_then_clipped_then_applied(
    clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step unscales them itself where nothing has done it; the scale changes after the step."""
    calls: list[str] = []
    clip = torch.nn.utils.clip_grad_norm_

    def clipping(*given: Any) -> Tensor:
        calls.append("clip")
        return clip(*given)

    monkeypatch.setattr("leukemia_models.training.learner.clip_grad_norm_", clipping)
    monkeypatch.setattr("leukemia_models.training.learner.gradient_scaler", lambda *given: WatchedScaler(calls))
    movement(steps=1, clip_norm=clip_norm)
    before_update = ["step", "unscale"] if clip_norm is None else ["unscale", "clip", "step"]
    assert calls == [*before_update, "update"]
