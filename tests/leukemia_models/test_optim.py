from __future__ import annotations

import pytest
import torch
from torch import nn

from leukemia_data.errors import UsageError
from leukemia_models.optim import OptimizerSettings, build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0, 0.8), (2.5, 0.8 * (2 + 2**0.5) / 4), (5, 0.4), (7.5, 0.8 * (2 - 2**0.5) / 4), (10, 0.0)],
)
def test_cosine_by_hand(progress: float, expected: float) -> None:
    settings = OptimizerSettings(lr=0.8, schedule="cosine")
    assert learning_rate(settings, progress, 10) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.1), (4.99, 0.1), (5, 0.01), (7.49, 0.01), (7.5, 0.001), (10, 0.001)]
)
def test_step_by_hand(progress: float, expected: float) -> None:
    settings = OptimizerSettings(lr=0.1, schedule="step")
    assert learning_rate(settings, progress, 10) == pytest.approx(expected)


def test_constant_is_constant() -> None:
    settings = OptimizerSettings(lr=0.3, schedule="constant")
    assert {learning_rate(settings, progress, 7) for progress in (0, 0.1, 3.3, 7)} == {0.3}


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.0), (0.5, 0.1), (1, 0.2), (2, 0.4), (3, 0.1 * (2 + 2**0.5)), (4, 0.2), (6, 0.0)]
)
def test_warmup_rises_linearly_and_the_cosine_gets_the_rest(progress: float, expected: float) -> None:
    settings = OptimizerSettings(lr=0.4, schedule="cosine", warmup_epochs=2)
    assert learning_rate(settings, progress, 6) == pytest.approx(expected, abs=1e-15)


def test_warmup_longer_than_the_run_only_rises() -> None:
    settings = OptimizerSettings(lr=1.0, warmup_epochs=4)
    assert [learning_rate(settings, progress, 2) for progress in (0, 1, 2)] == [0, 0.25, 0.5]
    assert learning_rate(OptimizerSettings(lr=1.0, warmup_epochs=2), 2, 2) == 1.0


@pytest.mark.parametrize("progress", [-0.1, 10.1, float("nan")])
def test_progress_outside_the_run_is_refused(progress: float) -> None:
    with pytest.raises(UsageError, match="epoch_progress"):
        learning_rate(OptimizerSettings(), progress, 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("warmup_epochs", -1),
        ("schedule", "plateau"),
        ("step_factor", 1.5),
        ("step_fractions", (0.5, 0.4)),
        ("step_fractions", (0.5, 1.0)),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        OptimizerSettings(**{field: value})


def test_two_sgd_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], OptimizerSettings(lr=0.5, momentum=0.9, weight_decay=0.1))
    velocity, by_hand = 0.0, 2.0
    for _ in range(2):
        optimizer.zero_grad()
        (3 * weight).backward()
        optimizer.step()
        velocity = 0.9 * velocity + 3 + 0.1 * by_hand
        by_hand -= 0.5 * velocity
    assert weight.item() == pytest.approx(by_hand)
