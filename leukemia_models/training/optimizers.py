"""Optimizers by name: validated settings and a network in, an optimizer out.

The learning rate is set before every step, from :mod:`leukemia_models.training.schedules`. Only Ranger21 may bring a
schedule of its own. To add an optimizer: :func:`register_optimizer`. No torch before one is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry
from leukemia_models.training.named_options import (
    ABOVE_ZERO,
    ANY,
    BELOW_ONE,
    NOT_NEGATIVE,
    Kind,
    Range,
    fill_in_options,
    option_values,
    without_empty_options,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

BuildOptimizer = Callable[..., "Optimizer"]
"""``build(groups, num_steps, **options)``: parameter groups as torch takes them, the run's number of steps, options."""


@dataclass(frozen=True, kw_only=True)
class OptimizerKind(Kind):
    """An optimizer that settings may name, see :func:`register_optimizer`."""

    build: BuildOptimizer
    num_buffers: Callable[[Mapping[str, Any]], int] = field(default=lambda options: 2)


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer")


def register_optimizer(
    name: str,
    build: BuildOptimizer,
    options: Mapping[str, Any],
    *,
    ranges: Mapping[str, Range] | None = None,
    num_buffers: int | Callable[[Mapping[str, Any]], int] = 2,
) -> OptimizerKind:
    """Make an optimizer known by name to plans, the command line, and everything that trains.

    Parameters
    ----------
    name : str
        By which it is chosen.
    build : callable
        ``build(groups, num_steps, **options)`` returns a :class:`torch.optim.Optimizer`. Its state must be tensors and
        numbers by parameter, as that of torch's own; with further counters it has methods ``counters`` and
        ``set_counters`` as :class:`~leukemia_models.training.ranger21.CountingRanger21` has.
    options : mapping
        Every option that it takes, with its default, ``lr`` among them.
    ranges : mapping of str to Range, optional
        What values of options must be that are not fields of :class:`OptimizerSettings`.
    num_buffers : int or callable
        How many tensors of a parameter's shape it keeps, possibly as a function of the options: by this the room for
        checkpoints is estimated.

    Raises
    ------
    UsageError
        If the name is taken, or ``lr`` is not among the options.
    """
    if "lr" not in options:
        raise UsageError(f"optimizer {name!r} must have an option lr with a default: schedules set it")
    count = num_buffers if callable(num_buffers) else lambda options: num_buffers
    return OPTIMIZERS.register(
        OptimizerKind(name=name, build=build, options=dict(options), ranges=dict(ranges or {}), num_buffers=count)
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """An optimizer and its parameters.

    An option is None where the named optimizer does not know it; where it does, None stands for its default, which is
    filled in.

    Parameters
    ----------
    name : str
        One of :data:`OPTIMIZERS`. ``sgd`` has momentum; ``adamw`` is Adam with decoupled weight decay (Loshchilov and
        Hutter 2019); ``ranger21`` (Wright and Demeure 2021) is AdamW with positive-negative momentum, adaptive
        clipping, centred and normalised gradients, and lookahead.
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
    options : mapping
        Further options of an optimizer that was registered; None where it has none.

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
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        fill_in_options(self, OPTIMIZERS, _RANGES)
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov needs a momentum above 0")

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of any warm-up."""
        return float(self.values()["lr"])

    @property
    def schedules_itself(self) -> bool:
        """Whether it has warm-up and cool-down of its own."""
        return bool(self.inner_schedule)

    @property
    def num_buffers(self) -> int:
        """How many tensors of a parameter's shape it keeps."""
        return OPTIMIZERS.get(self.name).num_buffers(self.values())

    def values(self) -> dict[str, Any]:
        """Return the options of the named optimizer, defaults filled in."""
        return option_values(self, OPTIMIZERS.get(self.name))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return without_empty_options(asdict(self))


_BETAS = Range(lambda values: len(values) == 2 and all(0 <= value < 1 for value in values), "two numbers in [0, 1)")
_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "lr": ABOVE_ZERO,
        "weight_decay": NOT_NEGATIVE,
        "momentum": BELOW_ONE,
        "nesterov": ANY,
        "betas": _BETAS,
        "eps": ABOVE_ZERO,
        "inner_schedule": ANY,
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
    kind = OPTIMIZERS.get(settings.name)
    return kind.build(parameter_groups(model, settings), num_steps, **settings.values())


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
    """Set the rate of the next step; an optimizer with a schedule of its own scales it."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def rate_in_use(optimizer: Optimizer) -> float:
    """Return the learning rate of the last step, by whichever schedule."""
    own = getattr(optimizer, "rate_in_use", None)
    return float(optimizer.param_groups[0]["lr"] if own is None else own)


def _build_sgd(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    from torch.optim import SGD

    return SGD(groups, **options)


def _build_adamw(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    from torch.optim import AdamW

    return AdamW(groups, **options)


def _build_ranger21(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    # Its package takes half a second and more to load.
    from leukemia_models.training.ranger21 import build_ranger21

    return build_ranger21(groups, num_steps, **options)


# The first report's values for SGD, else those of its library.
register_optimizer(
    "sgd",
    _build_sgd,
    {"lr": 0.005, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False},
    num_buffers=lambda options: 1 if options["momentum"] else 0,
)
register_optimizer("adamw", _build_adamw, {"lr": 1e-3, "weight_decay": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8})
register_optimizer(
    "ranger21",
    _build_ranger21,
    {"lr": 1e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "inner_schedule": True},
    num_buffers=5,
)
