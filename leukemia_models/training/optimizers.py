"""Optimizers by name: validated settings and a network in, an optimizer out.

Its learning rate is set before every step by whoever steps it, from :mod:`leukemia_models.training.schedules`. Only
Ranger21 can bring a schedule of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, cast

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from leukemia_data.errors import UsageError
from leukemia_models.training.named_options import ABOVE_ZERO, BELOW_ONE, NOT_NEGATIVE, Range, filled_in, known, require

OPTIMIZER_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sgd": {"lr": 0.005, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False},
        "adamw": {"lr": 1e-3, "weight_decay": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8},
        "ranger21": {"lr": 1e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "inner_schedule": True},
    }
)
"""Which options each optimizer knows, with their defaults: the first report's for SGD (A14), else its library's."""
OPTIMIZERS = tuple(OPTIMIZER_OPTIONS)
_COMMON = ("name", "decay_norm_and_bias")
_BETAS = Range(lambda values: len(values) == 2 and all(0 <= value < 1 for value in values), "two numbers in [0, 1)")
_ANY = Range(lambda value: True, "")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """An optimizer and its parameters.

    An option is None where the named optimizer does not know it; where it does, None stands for its default, which is
    filled in.

    Parameters
    ----------
    name : {"sgd", "adamw", "ranger21"}
        SGD with momentum; Adam with decoupled weight decay (Loshchilov and Hutter 2019); or Ranger21 (Wright and
        Demeure 2021): AdamW with positive-negative momentum, adaptive clipping, centred and normalised gradients, and
        lookahead.
    lr : float
        Peak learning rate, > 0.
    weight_decay : float
        At least 0. An L2 penalty for SGD, decoupled from the gradient for the others.
    decay_norm_and_bias : bool
        False leaves BatchNorm and all biases out of the weight decay; the reports decay everything.
    momentum : float
        Of SGD, in [0, 1).
    nesterov : bool
        Nesterov's momentum for SGD.
    betas : tuple of two floats
        Decay of the moving averages of gradient and squared gradient, for AdamW and Ranger21; in [0, 1).
    eps : float
        Added to the denominator by AdamW and Ranger21, > 0.
    inner_schedule : bool
        Let Ranger21 warm up and cool down by itself, on top of a constant rate. False for any other schedule.

    Raises
    ------
    UsageError
        If the name is unknown, an option does not belong to it, or a value is outside its range.
    """

    name: str = "sgd"
    lr: float | None = None
    weight_decay: float | None = None
    decay_norm_and_bias: bool = True
    momentum: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    inner_schedule: bool | None = None

    def __post_init__(self) -> None:
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _COMMON}
        for option, value in filled_in("optimizer", self.name, options, OPTIMIZER_OPTIONS).items():
            object.__setattr__(self, option, value)
            require(_RANGES[option], option, value)
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov needs a momentum above 0")

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of any warm-up."""
        return known(self.lr)

    @property
    def schedules_itself(self) -> bool:
        """Whether it has warm-up and cool-down of its own."""
        return bool(self.inner_schedule)


_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "lr": ABOVE_ZERO,
        "weight_decay": NOT_NEGATIVE,
        "momentum": BELOW_ONE,
        "nesterov": _ANY,
        "betas": _BETAS,
        "eps": ABOVE_ZERO,
        "inner_schedule": _ANY,
    }
)


def build_optimizer(model: nn.Module, settings: OptimizerSettings, num_steps: int) -> Optimizer:
    """Return the optimizer of a network's parameters.

    Parameters
    ----------
    model : torch.nn.Module
        Where it will run.
    settings : OptimizerSettings
        Which one, and its parameters.
    num_steps : int
        How many steps the whole run will take. Ranger21's own schedule is laid out by it, and does not come to its end
        where batches are left out.
    """
    groups = parameter_groups(model, settings)
    lr, weight_decay = settings.peak_lr, known(settings.weight_decay)
    if settings.name == "sgd":
        return SGD(
            groups,
            lr=lr,
            momentum=known(settings.momentum),
            weight_decay=weight_decay,
            nesterov=known(settings.nesterov),
        )
    betas, eps = known(settings.betas), known(settings.eps)
    if settings.name == "adamw":
        return AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    # By name, so that it is loaded only here: its package takes half a second and more.
    ranger21 = importlib.import_module("leukemia_models.training.ranger21")
    return cast(
        Optimizer,
        ranger21.build_ranger21(
            groups,
            num_steps,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            inner_schedule=settings.schedules_itself,
        ),
    )


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return the parameters in groups as torch's optimizers take them: all in one, or those without decay apart."""
    parameters = list(model.parameters())
    if settings.decay_norm_and_bias:
        return [{"params": parameters}]
    # All that is no matrix or kernel: scales and shifts of BatchNorm, and biases.
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: Sequence[dict[str, Any]] = ({"params": decayed}, {"params": others, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Let the next step go at this rate; an optimizer with a schedule of its own changes it yet."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def rate_in_use(optimizer: Optimizer) -> float:
    """Return the learning rate of the last step, by whichever schedule."""
    own = getattr(optimizer, "rate_in_use", None)
    return float(optimizer.param_groups[0]["lr"] if own is None else own)
