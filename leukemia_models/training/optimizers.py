"""Optimizers by name: their settings, and how they are built.

The learning rate is set before every step by :mod:`leukemia_models.training.schedules`; only Ranger21 may have its own
schedule. To add an optimizer: :func:`register_optimizer`. torch is imported when an optimizer is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry
from leukemia_models.training.named_options import ABOVE_ZERO, ANY, BELOW_ONE, NOT_NEGATIVE, Kind, NamedSettings, Range

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

BuildOptimizer = Callable[..., "Optimizer"]
"""``build(groups, num_steps, **options)``: parameter groups as torch takes them, the run's number of steps, options."""


@dataclass(frozen=True, kw_only=True)
class OptimizerKind(Kind):
    """A registered optimizer, see :func:`register_optimizer`."""

    build: BuildOptimizer
    has_fused: bool = False
    num_buffers: Callable[[Mapping[str, Any]], int] = field(default=lambda options: 2)


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer")


def register_optimizer(
    name: str,
    build: BuildOptimizer,
    options: Mapping[str, Any],
    *,
    ranges: Mapping[str, Range] | None = None,
    num_buffers: int | Callable[[Mapping[str, Any]], int] = 2,
    has_fused: bool = False,
) -> OptimizerKind:
    """Register an optimizer for training plans, the command line and the library.

    Parameters
    ----------
    name : str
    build : callable
        ``build(groups, num_steps, **options)`` returns a :class:`torch.optim.Optimizer`. Its state must be tensors and
        numbers by parameter, as torch's are; further counters need methods ``counters`` and ``set_counters``, as in
        :class:`~leukemia_models.training.ranger21.CountingRanger21`.
    options : mapping
        All its options with their defaults, including ``lr``.
    ranges : mapping of str to Range, optional
        Ranges of options that are not fields of :class:`OptimizerSettings`.
    num_buffers : int or callable
        Number of tensors of a parameter's shape in its state, possibly as a function of the options, to estimate the
        size of checkpoints.
    has_fused : bool
        Whether `build` takes ``fused=True``, for an update in few kernels on CUDA.

    Raises
    ------
    UsageError
        If the name is taken, or ``lr`` is not among the options.
    """
    if "lr" not in options:
        raise UsageError(f"optimizer {name!r} must have an option lr with a default: schedules set it")
    count = num_buffers if callable(num_buffers) else lambda options: num_buffers
    return OPTIMIZERS.register(
        OptimizerKind(
            name=name,
            build=build,
            options=dict(options),
            ranges=dict(ranges or {}),
            num_buffers=count,
            has_fused=has_fused,
        )
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(NamedSettings):
    """An optimizer and its options. None stands for the default, and stays where the optimizer has no such option.

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
        Whether weight decay applies to BatchNorm and biases, as in the reports.
    momentum : float
        For SGD, in [0, 1).
    nesterov : bool
        Nesterov's momentum for SGD.
    betas : tuple of two floats
        Decay of the moving averages of gradient and squared gradient, for AdamW and Ranger21; in [0, 1).
    eps : float
        Added to the denominator by AdamW and Ranger21, > 0.
    inner_schedule : bool
        Whether Ranger21 applies its own warm-up and cool-down to a constant rate.
    options : mapping
        Further options of a registered optimizer; None without any.

    Raises
    ------
    UsageError
        If the name is unknown, an option does not belong to it, or a value is outside its range.
    """

    kinds = OPTIMIZERS
    ranges = MappingProxyType(
        {
            "lr": ABOVE_ZERO,
            "weight_decay": NOT_NEGATIVE,
            "momentum": BELOW_ONE,
            "nesterov": ANY,
            "betas": Range(
                lambda values: len(values) == 2 and all(0 <= v < 1 for v in values), "two numbers in [0, 1)"
            ),
            "eps": ABOVE_ZERO,
            "inner_schedule": ANY,
        }
    )
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
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise UsageError("nesterov needs a momentum above 0")

    @property
    def peak_lr(self) -> float:
        """The learning rate after any warm-up."""
        return float(self.values()["lr"])

    @property
    def schedules_itself(self) -> bool:
        """Whether it has its own schedule."""
        return bool(self.inner_schedule)

    @property
    def num_buffers(self) -> int:
        """Number of tensors of a parameter's shape in its state."""
        return OPTIMIZERS.get(self.name).num_buffers(self.values())


def build_optimizer(model: nn.Module, settings: OptimizerSettings, num_steps: int, *, fused: bool = False) -> Optimizer:
    """Return the optimizer of a network, which is on its device, for a run of `num_steps` steps.

    `fused` asks for an update in few kernels, where the optimizer has one.
    Ranger21's own schedule depends on `num_steps`, and does not reach its end if steps are skipped.
    """
    kind = OPTIMIZERS.get(settings.name)
    options = {"fused": True} if fused and kind.has_fused else {}
    return kind.build(parameter_groups(model, settings), num_steps, **settings.values(), **options)


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return parameter groups for torch's optimizers: one, or two by weight decay."""
    parameters = list(model.parameters())
    if settings.decay_norm_and_bias:
        return [{"params": parameters}]
    # Scales and shifts of BatchNorm, and biases, have one dimension.
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the next step, which an optimizer's own schedule scales."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def rate_in_use(optimizer: Optimizer) -> float:
    """Return the learning rate of the last step, by the optimizer's own schedule if it has one."""
    own = getattr(optimizer, "rate_in_use", None)
    return float(optimizer.param_groups[0]["lr"] if own is None else own)


def _build_sgd(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    from torch.optim import SGD

    return SGD(groups, **options)


def _build_adamw(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    from torch.optim import AdamW

    return AdamW(groups, **options)


def _build_ranger21(groups: Sequence[dict[str, Any]], num_steps: int, **options: Any) -> Optimizer:  # noqa: ANN401
    from leukemia_models.training.ranger21 import build_ranger21

    return build_ranger21(groups, num_steps, **options)


# Defaults of the first report for SGD, of the libraries for the others.
register_optimizer(
    "sgd",
    _build_sgd,
    {"lr": 0.005, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False},
    num_buffers=lambda options: 1 if options["momentum"] else 0,
    has_fused=True,
)
register_optimizer(
    "adamw",
    _build_adamw,
    {"lr": 1e-3, "weight_decay": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8},
    has_fused=True,
)
register_optimizer(
    "ranger21",
    _build_ranger21,
    {"lr": 1e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "inner_schedule": True},
    num_buffers=5,
)
