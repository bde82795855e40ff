from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from leukemia_data.errors import UsageError
from leukemia_models.training.history import EpochRecord
from leukemia_models.training.schedules import SCHEDULES, ScheduleSettings, learning_rate

from ..small_training import epoch_record

PEAK = 0.4


def stepped(make: Callable[[Optimizer], Any], num_steps: int) -> Iterator[float]:
    """The rates of torch's scheduler, one a step."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(num_steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def rates(settings: ScheduleSettings, epochs: int, num: int) -> list[float]:
    return [learning_rate(PEAK, settings, progress, epochs) for progress in range(num)]


@pytest.mark.parametrize("min_lr", [0.0, 0.07])
def test_cosine_is_that_of_torch(min_lr: float) -> None:
    expected = stepped(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 20, min_lr), 21)
    assert rates(ScheduleSettings(min_lr=min_lr), 20, 21) == pytest.approx(list(expected), abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_existing_schedules_keep_their_bits(name: str) -> None:
    """The formulas of the first version, so that its runs stay reproducible."""
    old = {
        "cosine": lambda progress: PEAK * 0.5 * (1 + math.cos(math.pi * ((progress - 2) / 11))),
        "step": lambda progress: PEAK * 0.1 ** ((progress >= 0.5 * 13) + (progress >= 0.75 * 13)),
        "constant": lambda progress: PEAK,
    }[name]
    settings = ScheduleSettings(name=name, warmup_epochs=2)
    for step in range(200):
        progress = (step + 0.5) / 200 * 13
        expected = PEAK * progress / 2 if progress < 2 else old(progress)
        assert learning_rate(PEAK, settings, progress, 13) == expected


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.1), (4.99, 0.1), (5, 0.01), (7.49, 0.01), (7.5, 0.001), (10, 0.001)]
)
def test_step_by_hand(progress: float, expected: float) -> None:
    settings = ScheduleSettings(name="step")
    assert learning_rate(0.1, settings, progress, 10) == pytest.approx(expected)


def test_steps_are_those_of_torch_down_to_the_lowest_rate() -> None:
    settings = ScheduleSettings(name="step", step_fractions=(0.2, 0.45, 0.9), step_factor=0.3, min_lr=0.02)
    expected = list(stepped(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [4, 9, 18], 0.3), 20))
    assert min(expected) < 0.02
    assert rates(settings, 20, 20) == pytest.approx([max(rate, 0.02) for rate in expected])


def test_warmup_rises_linearly_and_the_cosine_gets_the_rest_as_in_torch() -> None:
    def make(optimizer: Optimizer) -> lr_scheduler.SequentialLR:
        rise = lr_scheduler.LinearLR(optimizer, 1e-9, total_iters=5)
        return lr_scheduler.SequentialLR(optimizer, [rise, lr_scheduler.CosineAnnealingLR(optimizer, 15, 0.01)], [5])

    settings = ScheduleSettings(warmup_epochs=5, min_lr=0.01)
    assert rates(settings, 20, 21) == pytest.approx(list(stepped(make, 21)), abs=1e-9)


@pytest.mark.parametrize("name", sorted({*SCHEDULES} - {"one-cycle"}))
def test_every_schedule_warms_up_to_the_peak(name: str) -> None:
    settings = ScheduleSettings(name=name, warmup_epochs=2.5)
    found = [learning_rate(PEAK, settings, progress, 20) for progress in (0, 1, 2, 2.5)]
    assert found == pytest.approx([0, 0.4 * PEAK, 0.8 * PEAK, PEAK])


def test_warmup_longer_than_the_run_only_rises() -> None:
    settings = ScheduleSettings(warmup_epochs=4)
    assert [learning_rate(1.0, settings, progress, 2) for progress in (0, 1, 2)] == [0, 0.25, 0.5]
    assert learning_rate(1.0, ScheduleSettings(warmup_epochs=2), 2, 2) == 1.0


@pytest.mark.parametrize(("period", "factor"), [(3, 1), (3, 2), (1, 3), (50, 2)])
def test_warm_restarts_are_those_of_torch(period: int, factor: int) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period, factor, eta_min=0.01)
    settings = ScheduleSettings(name="warm-restarts", restart_period_epochs=period, restart_factor=factor, min_lr=0.01)
    for progress in [step / 8 for step in range(8 * 30)]:
        optimizer.step()
        scheduler.step(progress)
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(PEAK, settings, progress, 30) == pytest.approx(expected, abs=1e-12)


def test_warm_restarts_begin_after_the_warmup() -> None:
    settings = ScheduleSettings(name="warm-restarts", warmup_epochs=1.5, restart_period_epochs=2, restart_factor=1.5)
    # Restarts at 1.5, 3.5 and 6.5.
    found = [learning_rate(1.0, settings, progress, 10) for progress in (1.5, 2.5, 3.5, 5.0, 6.5)]
    assert found == pytest.approx([1, 0.5, 1, 0.5, 1])


def test_one_cycle_is_that_of_torch() -> None:
    """torch's turns after ``fraction x steps - 1`` steps and ends with the last; ours at these fractions of the run."""
    settings = ScheduleSettings(
        name="one-cycle", cycle_rise_share=(0.3 * 41 - 1) / 40, cycle_start_divisor=20, cycle_final_divisor=50
    )

    def make(optimizer: Optimizer) -> lr_scheduler.OneCycleLR:
        return lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=41, div_factor=20, final_div_factor=50)

    expected = list(stepped(make, 40))
    assert rates(settings, 40, 40) == pytest.approx(expected)
    assert learning_rate(PEAK, settings, 40, 40) == pytest.approx(PEAK / 20 / 50)


@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_that_of_torch(seed: int) -> None:
    settings = ScheduleSettings(
        name="plateau", plateau_factor=0.5, plateau_patience_epochs=3, plateau_min_delta=0.01, min_lr=0.02
    )
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.01, threshold_mode="abs", min_lr=0.02, eps=0
    )
    draw, records = random.Random(seed), []
    for epoch in range(1, 60):
        assert learning_rate(PEAK, settings, epoch - 0.5, 60, records) == pytest.approx(optimizer.param_groups[0]["lr"])
        loss = 1 / epoch + 0.1 * draw.random()
        records.append(epoch_record(epoch, valid_loss=loss))
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_plateau_does_not_look_at_the_warmup() -> None:
    settings = ScheduleSettings(name="plateau", plateau_patience_epochs=1, warmup_epochs=2)
    records: list[EpochRecord] = [epoch_record(epoch, valid_loss=loss) for epoch, loss in ((1, 1.0), (2, 2.0))]
    assert learning_rate(1.0, settings, 2.5, 9, records) == 1.0
    worse = [*records, epoch_record(3, valid_loss=3.0), epoch_record(4, valid_loss=3.0)]
    assert learning_rate(1.0, settings, 3.5, 9, worse[:3]) == 1.0
    assert learning_rate(1.0, settings, 4.5, 9, worse) == pytest.approx(0.1)


@pytest.mark.parametrize("progress", [-0.1, 10.1, float("nan")])
def test_progress_outside_the_run_is_refused(progress: float) -> None:
    with pytest.raises(UsageError, match="epoch_progress"):
        learning_rate(0.1, ScheduleSettings(), progress, 10)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("linear", "schedule", None),
        ("cosine", "warmup_epochs", -1),
        ("cosine", "min_lr", float("nan")),
        ("step", "step_factor", 1.5),
        ("step", "step_fractions", (0.5, 0.4)),
        ("step", "step_fractions", (0.5, 1.0)),
        ("warm-restarts", "restart_period_epochs", 0),
        ("warm-restarts", "restart_factor", 0.5),
        ("one-cycle", "cycle_rise_share", 1.0),
        ("one-cycle", "cycle_start_divisor", 0.5),
        ("one-cycle", "warmup_epochs", 1),
        ("plateau", "plateau_factor", 0.0),
        ("plateau", "plateau_patience_epochs", 0),
        ("plateau", "plateau_min_delta", -1.0),
    ],
)
def test_bad_settings_name_the_field(name: str, field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        ScheduleSettings(name=name, **({} if field == "schedule" else {field: value}))


def test_options_of_another_schedule_are_refused_and_own_ones_filled_in() -> None:
    with pytest.raises(UsageError, match=r"schedule cosine has no option step_factor \(it belongs to step\)"):
        ScheduleSettings(step_factor=0.1)
    settings = ScheduleSettings(name="step")
    assert (settings.step_fractions, settings.step_factor, settings.plateau_factor) == ((0.5, 0.75), 0.1, None)
    assert settings == ScheduleSettings(name="step", step_factor=0.1)
    assert ScheduleSettings(name="plateau").needs_validation
    assert not settings.needs_validation


def test_courses_shrink_with_the_run() -> None:
    settings = ScheduleSettings(name="warm-restarts", restart_period_epochs=10, warmup_epochs=2).with_epochs_scaled(0.1)
    assert (settings.restart_period_epochs, settings.warmup_epochs, settings.restart_factor) == (1.0, 0.2, 2.0)
    assert ScheduleSettings(name="plateau").with_epochs_scaled(0.01).plateau_patience_epochs == 1
