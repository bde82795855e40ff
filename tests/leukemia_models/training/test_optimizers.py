from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from leukemia_data.errors import UsageError
from leukemia_models.training.optimizers import (
    OPTIMIZERS,
    OptimizerSettings,
    build_optimizer,
    parameter_groups,
    rate_in_use,
    set_learning_rate,
)

from ..fakes import tiny_network


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))


def weight_after_two_steps(settings: OptimizerSettings) -> float:
    """Of the loss 3 w, from w = 2."""
    model = OneWeight()
    optimizer = build_optimizer(model, settings, num_steps=2)
    for _ in range(2):
        optimizer.zero_grad()
        (3 * model.weight).backward()
        optimizer.step()
    return model.weight.item()


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_sgd_steps_by_hand(nesterov: bool) -> None:
    settings = OptimizerSettings(lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    velocity, by_hand = 0.0, 2.0
    for _ in range(2):
        gradient = 3 + 0.1 * by_hand
        velocity = 0.9 * velocity + gradient
        by_hand -= 0.5 * (gradient + 0.9 * velocity if nesterov else velocity)
    assert weight_after_two_steps(settings) == pytest.approx(by_hand)


def test_two_adamw_steps_by_hand() -> None:
    settings = OptimizerSettings(name="adamw", lr=0.5, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3)
    first, second, by_hand = 0.0, 0.0, 2.0
    for step in (1, 2):
        by_hand *= 1 - 0.5 * 0.1
        first, second = 0.8 * first + 0.2 * 3, 0.95 * second + 0.05 * 9
        by_hand -= 0.5 * (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.95**step)) + 1e-3)
    assert weight_after_two_steps(settings) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_are_spared_the_decay_on_request(name: str) -> None:
    """With a gradient of 0, decay is all that moves a weight; Ranger21 has a norm penalty besides, and is left out."""
    model = tiny_network()
    settings = OptimizerSettings(name=name, decay_norm_and_bias=False, weight_decay=0.5)
    decayed, others = parameter_groups(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(parameter)] for parameter in decayed["params"]] == ["0.weight", "6.weight"]
    assert [names[id(parameter)] for parameter in others["params"]] == ["1.weight", "1.bias", "6.bias"]
    optimizer = build_optimizer(model, settings, num_steps=10)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    if name == "ranger21":
        return
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"0.weight", "6.weight"}


def test_the_rate_that_is_set_is_the_one_in_use() -> None:
    model = tiny_network()
    optimizer = build_optimizer(model, OptimizerSettings(decay_norm_and_bias=False), num_steps=10)
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]
    assert rate_in_use(optimizer) == 0.125


def test_defaults_are_the_first_reports_or_the_librarys() -> None:
    sgd, adamw = OptimizerSettings(), OptimizerSettings(name="adamw")
    assert (sgd.lr, sgd.momentum, sgd.weight_decay, sgd.nesterov) == (0.005, 0.9, 1e-4, False)
    assert (sgd.betas, sgd.eps, sgd.inner_schedule) == (None, None, None)
    defaults = torch.optim.AdamW(tiny_network().parameters()).defaults
    assert {name: getattr(adamw, name) for name in ("lr", "betas", "eps", "weight_decay")} == {
        name: defaults[name] for name in ("lr", "betas", "eps", "weight_decay")
    }
    assert OptimizerSettings(name="ranger21").schedules_itself
    assert not sgd.schedules_itself


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"name": "adamw", "betas": (0.9, 1.0)}, "betas"),
        ({"name": "adamw", "betas": (0.9,)}, "betas"),
        ({"name": "adamw", "eps": 0.0}, "eps"),
        ({"name": "lion"}, "unknown optimizer 'lion'; known are sgd, adamw, ranger21"),
        ({"name": "adamw", "momentum": 0.9}, r"adamw has no option momentum \(it belongs to sgd\)"),
        ({"betas": (0.9, 0.99)}, r"sgd has no option betas \(it belongs to adamw, ranger21\)"),
        ({"name": "adamw", "inner_schedule": False}, "no option inner_schedule"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        OptimizerSettings(**settings)
