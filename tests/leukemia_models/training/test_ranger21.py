from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from pytorch_optimizer.optimizer.ranger21 import Ranger21

from leukemia_data.errors import RunError, UsageError
from leukemia_models.networks.registry import build_model
from leukemia_models.training.optimizers import (
    OptimizerSettings,
    build_optimizer,
    parameter_groups,
    rate_in_use,
    set_learning_rate,
)
from leukemia_models.training.ranger21 import LOWEST_LR
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

from ..fakes import copied_state, fake_source, same_state, tiny_network
from ..small_training import Recorder, train, without_times

RANGER = OptimizerSettings(name="ranger21", lr=0.01)
CONSTANT = ScheduleSettings(name="constant")


def rates_of_a_run(settings: OptimizerSettings, num_steps: int) -> list[float]:
    model = tiny_network()
    optimizer = build_optimizer(model, settings, num_steps)
    found = []
    for _ in range(num_steps):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        set_learning_rate(optimizer, settings.peak_lr)
        optimizer.step()
        found.append(rate_in_use(optimizer))
    return found


def test_its_own_schedule_spans_the_run() -> None:
    """Up over 22 % of the steps, level, and down over the last 28 % to 3e-5."""
    found = rates_of_a_run(RANGER, 100)
    assert found[:22] == pytest.approx([0.01 * step / 22 for step in range(1, 23)])
    assert set(found[22:71]) == {0.01}
    falls = [late - early for early, late in pairwise(found[71:])]
    assert falls == pytest.approx([falls[0]] * len(falls))
    assert found[-1] == pytest.approx(3e-5, abs=1e-12)


def test_low_rates_never_rise_at_the_end() -> None:
    assert max(rates_of_a_run(OptimizerSettings(name="ranger21", lr=1e-6), 50)) == 1e-6


def test_without_its_own_schedule_it_goes_at_the_given_rate() -> None:
    settings = OptimizerSettings(name="ranger21", lr=0.01, inner_schedule=False)
    assert set(rates_of_a_run(settings, 20)) == {0.01}


@pytest.mark.parametrize(
    "schedule",
    [ScheduleSettings(), ScheduleSettings(name="constant", warmup_epochs=1), ScheduleSettings(name="plateau")],
)
def test_a_second_schedule_is_refused_unless_its_own_is_off(schedule: ScheduleSettings) -> None:
    with pytest.raises(UsageError, match=r"warms up and cools down by itself.*inner_schedule = false"):
        TrainSettings(epochs=3, optimizer=RANGER, schedule=schedule)
    off = OptimizerSettings(name="ranger21", inner_schedule=False)
    assert TrainSettings(epochs=3, optimizer=off, schedule=schedule).schedule == schedule
    assert TrainSettings(epochs=3, optimizer=RANGER, schedule=CONSTANT).optimizer == RANGER


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("step", [1, 4, 5, 6, 9, 10, 11])
def test_resumed_run_ends_bit_by_bit_the_same(step: int, decay_norm_and_bias: bool) -> None:
    """Lookahead every fifth step, two alternating momenta; three steps are an epoch here."""
    optimizer = OptimizerSettings(name="ranger21", lr=0.01, decay_norm_and_bias=decay_norm_and_bias)
    run = {"epochs": 5, "optimizer": optimizer, "schedule": CONSTANT}
    stop = ((step - 1) // 3 + 1, (step - 1) % 3 + 1)
    whole = tiny_network()
    recorder = Recorder(whole, (stop,))
    history = train(whole, fake_source(4, 6, 4), fake_source(6), observer=recorder, **run)
    ((start, weights),) = recorder.saved
    assert start.optimizer_counters["step"] == step
    assert start.optimizer_counters["lookahead_step"] == step % 5

    resumed = tiny_network(seed=9)
    resumed.load_state_dict(weights)
    before = copy.deepcopy(start)
    again = train(resumed, fake_source(4, 6, 4), fake_source(6), start=start, **run)
    assert same_state(copied_state(resumed), copied_state(whole))
    assert without_times(again) == without_times(history)
    for number, tensors in before.optimizer_state.items():
        assert all(torch.equal(value, start.optimizer_state[number][name]) for name, value in tensors.items())


def test_history_has_the_learning_rate_that_was_used() -> None:
    history = train(tiny_network(), fake_source(4, 4), epochs=10, optimizer=RANGER, schedule=CONSTANT)
    assert history.records[0].lr == pytest.approx(0.01 * 2 / 4)
    assert history.records[-1].lr == pytest.approx(3e-5, abs=1e-12)


def test_state_of_another_optimizer_is_refused() -> None:
    recorder = Recorder(model := tiny_network())
    train(model, fake_source(4), epochs=1, observer=recorder)
    with pytest.raises(RunError, match="another optimizer"):
        train(model, fake_source(4), optimizer=RANGER, schedule=CONSTANT, start=recorder.states[-1])


@pytest.mark.parametrize("inner_schedule", [True, False])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_steps_are_those_of_the_library_bit_by_bit(memory_format: torch.memory_format, inner_schedule: bool) -> None:
    """Gradients from a hundredth to a hundred, which are clipped or not; two lookaheads; one parameter without any."""
    settings = OptimizerSettings(
        name="ranger21", lr=0.01, inner_schedule=inner_schedule, decay_norm_and_bias=False, weight_decay=0.1
    )
    options = settings.values()
    disabled = not options.pop("inner_schedule")
    own = build_model("resnet18-narrow", 2, seed=0).to(memory_format=memory_format)
    other = copy.deepcopy(own)
    library = Ranger21(
        parameter_groups(other, settings),
        num_iterations=12,
        disable_lr_scheduler=disabled,
        warm_down_min_lr=LOWEST_LR,
        **options,
    )
    optimizer = build_optimizer(own, settings, 12)
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        for one, two in zip(list(own.parameters())[1:], list(other.parameters())[1:], strict=True):
            one.grad = torch.randn(one.shape, generator=generator) * 10.0 ** (step % 5 - 2)
            two.grad = one.grad.clone()
        optimizer.step()
        library.step()
    assert same_state(copied_state(own), copied_state(other))
    assert rate_in_use(optimizer) == (settings.peak_lr if disabled else library.current_lr)
    for one, two in zip(own.parameters(), other.parameters(), strict=True):
        assert optimizer.state[one].keys() == library.state[two].keys()
        assert all(torch.equal(value, library.state[two][name]) for name, value in optimizer.state[one].items())
