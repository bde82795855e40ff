from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leukemia_models.training.learner import Learner
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings

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
        learner.gradient([fake_batch(6, step)], 6, 1, step + 1)
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
