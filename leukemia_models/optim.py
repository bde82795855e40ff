"""The optimizer and its learning rate: validated settings in, an SGD and a rate for any moment out.

The learning rate is a pure function of how far the training has come. There is no scheduler object and hence
no scheduler state to save: a resumed run computes the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from leukemia_data.errors import UsageError

SCHEDULES = ("cosine", "step", "constant")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """SGD with momentum, and the course of its learning rate. The defaults are the first report's (A14).

    Parameters
    ----------
    lr : float
        Peak learning rate, > 0.
    momentum : float
        In [0, 1).
    weight_decay : float
        L2 penalty on all parameters, >= 0.
    schedule : {"cosine", "step", "constant"}
        Course after the warm-up: half a cosine down to 0; times `step_factor` at each of `step_fractions`;
        or always `lr`.
    warmup_epochs : float
        Epochs of linear rise from 0 to `lr`; they are part of the run's epochs.
    step_fractions : tuple of float
        Fractions of the whole run, rising, in (0, 1). Half and three quarters are He et al.'s for CIFAR-10.
    step_factor : float
        In (0, 1).

    Raises
    ------
    UsageError
        If a value is outside its range.
    """

    lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    step_fractions: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"unknown schedule {self.schedule!r}; known schedules: {', '.join(SCHEDULES)}")
        _require(0 < self.lr < math.inf, "lr", "a finite number above 0", self.lr)
        _require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        _require(0 <= self.weight_decay < math.inf, "weight_decay", "finite and not below 0", self.weight_decay)
        _require(0 <= self.warmup_epochs < math.inf, "warmup_epochs", "not below 0", self.warmup_epochs)
        _require(0 < self.step_factor < 1, "step_factor", "between 0 and 1", self.step_factor)
        rising = all(a < b for a, b in pairwise((0.0, *self.step_fractions, 1.0)))
        _require(rising, "step_fractions", "rising numbers between 0 and 1", self.step_fractions)


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise UsageError(f"{name} must be {expected}, got {value}")


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.SGD:
    """Return SGD over `parameters`; who steps it sets its rate from :func:`learning_rate`."""
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def learning_rate(settings: OptimizerSettings, epoch_progress: float, epochs: int) -> float:
    """Return the learning rate after `epoch_progress` of `epochs` epochs.

    Parameters
    ----------
    settings : OptimizerSettings
        Peak rate, schedule and warm-up.
    epoch_progress : float
        Epochs done, with fractions, in [0, epochs]. A step is best asked at its middle,
        ``epochs done + (step + 0.5) / steps``: so the first step of a warm-up and the last of a cosine still move.
    epochs : int
        Length of the run.

    Returns
    -------
    float
        In [0, settings.lr].
    """
    if not 0 <= epoch_progress <= epochs:
        raise UsageError(f"epoch_progress must be in [0, {epochs}], got {epoch_progress}")
    if epoch_progress < settings.warmup_epochs:
        return settings.lr * epoch_progress / settings.warmup_epochs
    if settings.schedule == "cosine":
        left_epochs = epochs - settings.warmup_epochs
        done = (epoch_progress - settings.warmup_epochs) / left_epochs if left_epochs > 0 else 0.0
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "step":
        drops = sum(epoch_progress >= fraction * epochs for fraction in settings.step_fractions)
        return settings.lr * settings.step_factor**drops
    return settings.lr
