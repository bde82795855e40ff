"""Learning-rate schedules, as pure functions of the settings, the progress and the epochs done.

There is no scheduler to save: a resumed run computes the same rates. To add a schedule: :func:`register_schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry
from leukemia_models.training.history import EpochRecord, since_improvement
from leukemia_models.training.named_options import (
    ABOVE_ZERO,
    AT_LEAST_ONE,
    BETWEEN,
    NOT_NEGATIVE,
    Kind,
    NamedSettings,
    Range,
    require,
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The arguments of a schedule, at some time after the warm-up.

    Parameters
    ----------
    peak_lr, min_lr : float
        Highest and lowest rate of the run.
    progress : float
        Epochs done, with fractions, in [0, epochs].
    epochs, warmup_epochs : float
        Length of the run, and of its warm-up.
    records : sequence of EpochRecord
        The epochs done.
    """

    peak_lr: float
    min_lr: float
    progress: float
    epochs: float
    warmup_epochs: float = 0.0
    records: Sequence[EpochRecord] = ()

    @property
    def fraction(self) -> float:
        """Fraction done of the epochs after the warm-up, in [0, 1]."""
        left_epochs = self.epochs - self.warmup_epochs
        return (self.progress - self.warmup_epochs) / left_epochs if left_epochs > 0 else 0.0


Course = Callable[..., float]
"""``course(moment, **options)``: the rate at a :class:`Moment`, which is then raised to the lowest rate."""


@dataclass(frozen=True, kw_only=True)
class ScheduleKind(Kind):
    """A registered schedule, see :func:`register_schedule`."""

    course: Course
    depends_on_length: bool = True
    needs_validation: bool = False
    has_warmup: bool = False


SCHEDULES: Registry[ScheduleKind] = Registry("schedule")


def register_schedule(
    name: str,
    course: Course,
    options: Mapping[str, Any] | None = None,
    *,
    ranges: Mapping[str, Range] | None = None,
    depends_on_length: bool = True,
    needs_validation: bool = False,
    has_warmup: bool = False,
) -> ScheduleKind:
    """Register a schedule for training plans, the command line and the library.

    Parameters
    ----------
    name : str
    course : callable
        ``course(moment, **options)`` returns the learning rate at a :class:`Moment`, as a pure function.
    options : mapping, optional
        All its options with their defaults. Those that end in ``_epochs`` are scaled with a run's length.
    ranges : mapping of str to Range, optional
        Ranges of options that are not fields of :class:`ScheduleSettings`.
    depends_on_length : bool
        Whether all rates change with the length of the run.
    needs_validation : bool
        Whether it uses the validation of the epochs done.
    has_warmup : bool
        Whether it has its own warm-up, so that ``warmup_epochs`` is refused.

    Raises
    ------
    UsageError
        If the name is taken.
    """
    return SCHEDULES.register(
        ScheduleKind(
            name=name,
            course=course,
            options=dict(options or {}),
            ranges=dict(ranges or {}),
            depends_on_length=depends_on_length,
            needs_validation=needs_validation,
            has_warmup=has_warmup,
        )
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(NamedSettings):
    """A schedule and its options. None stands for the default, and stays where the schedule has no such option.

    Parameters
    ----------
    name : str
        One of :data:`SCHEDULES`. After the warm-up, ``cosine`` is half a cosine; ``constant`` the peak; ``step`` drops
        at each of `step_fractions`; ``warm-restarts`` repeats half cosines (Loshchilov and Hutter 2017, SGDR);
        ``one-cycle`` rises and falls once (Smith 2018), by half cosines; ``plateau`` drops when the validation loss
        stops falling, at any of progressive sizes.
    warmup_epochs : float
        Epochs of linear rise from 0 to the peak, at the beginning of the run. One-cycle has its own rise.
    min_lr : float
        Lowest rate after the warm-up, and end of cosines. At least 0, at most the peak.
    step_fractions : tuple of float
        Fractions of the whole run, rising, in (0, 1). The default is that of He et al. for CIFAR-10.
    step_factor : float
        In (0, 1).
    restart_period_epochs : float
        Length of the first cosine, > 0.
    restart_factor : float
        Factor between the lengths of successive cosines, at least 1.
    cycle_rise_share : float
        Fraction of the run in which the rate rises, in (0, 1).
    cycle_start_divisor, cycle_final_divisor : float
        The first rate is the peak divided by the former, the last rate is that divided by the latter; at least 1.
    plateau_factor : float
        In (0, 1).
    plateau_patience_epochs : int
        Epochs in a row without an improvement before a drop; at least 1. (torch's ReduceLROnPlateau waits one epoch
        more.) Epochs of the warm-up do not count.
    plateau_min_delta : float
        Smallest fall of the validation loss that counts as an improvement; >= 0.
    options : mapping
        Further options of a registered schedule; None without any.

    Raises
    ------
    UsageError
        If the name is unknown, an option does not belong to it, or a value is outside its range.
    """

    kinds = SCHEDULES
    ranges = MappingProxyType(
        {
            "step_fractions": Range(
                lambda values: all(a < b for a, b in pairwise((0.0, *values, 1.0))), "rising numbers between 0 and 1"
            ),
            "step_factor": BETWEEN,
            "restart_period_epochs": ABOVE_ZERO,
            "restart_factor": AT_LEAST_ONE,
            "cycle_rise_share": BETWEEN,
            "cycle_start_divisor": AT_LEAST_ONE,
            "cycle_final_divisor": AT_LEAST_ONE,
            "plateau_factor": BETWEEN,
            "plateau_patience_epochs": AT_LEAST_ONE,
            "plateau_min_delta": NOT_NEGATIVE,
        }
    )
    name: str = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    step_fractions: tuple[float, ...] | None = None
    step_factor: float | None = None
    restart_period_epochs: float | None = None
    restart_factor: float | None = None
    cycle_rise_share: float | None = None
    cycle_start_divisor: float | None = None
    cycle_final_divisor: float | None = None
    plateau_factor: float | None = None
    plateau_patience_epochs: int | None = None
    plateau_min_delta: float | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(NOT_NEGATIVE, "warmup_epochs", self.warmup_epochs)
        require(NOT_NEGATIVE, "min_lr", self.min_lr)
        if self.kind.has_warmup and self.warmup_epochs:
            raise UsageError(f"schedule {self.name} has its own rise: leave out warmup_epochs, or set cycle_rise_share")

    @property
    def kind(self) -> ScheduleKind:
        """The registered schedule."""
        return SCHEDULES.get(self.name)

    @property
    def needs_validation(self) -> bool:
        """Whether the rate depends on validation."""
        return self.kind.needs_validation

    def with_epochs_scaled(self, factor: float) -> ScheduleSettings:
        """Return the same schedule for a run that is `factor` times as long."""
        values = {option: value for option, value in self.values().items() if option.endswith("_epochs")}
        scaled = {option: _scaled_epochs(value, factor) for option, value in values.items()}
        own = {option: scaled.get(option, value) for option, value in (self.options or {}).items()}
        fields: dict[str, Any] = {option: value for option, value in scaled.items() if option in self.ranges}
        return replace(self, warmup_epochs=self.warmup_epochs * factor, options=own or None, **fields)


def _scaled_epochs(epochs: float, factor: float) -> float:
    """Return a scaled number of epochs; an int stays an int, at least 1."""
    return max(1, round(epochs * factor)) if isinstance(epochs, int) else epochs * factor


def learning_rate(
    peak_lr: float, settings: ScheduleSettings, epoch_progress: float, epochs: int, records: Sequence[EpochRecord] = ()
) -> float:
    """Return the learning rate, in [0, peak_lr], after `epoch_progress` of `epochs` epochs.

    Parameters
    ----------
    peak_lr : float
        Highest rate of the run, > 0.
    settings : ScheduleSettings
    epoch_progress : float
        Epochs done, with fractions, in [0, epochs]. Use the middle of a step, ``epochs done + (step + 0.5) / steps``,
        where the rate is above 0 at both ends of a schedule.
    epochs : int
        Length of the run.
    records : sequence of EpochRecord
        The epochs done, for schedules that need validation.

    Raises
    ------
    UsageError
        If `epoch_progress` is outside the run.
    """
    if not 0 <= epoch_progress <= epochs:
        raise UsageError(f"epoch_progress must be in [0, {epochs}], got {epoch_progress}")
    if epoch_progress < settings.warmup_epochs:
        return peak_lr * epoch_progress / settings.warmup_epochs
    moment = Moment(
        peak_lr=peak_lr,
        min_lr=settings.min_lr,
        progress=epoch_progress,
        epochs=epochs,
        warmup_epochs=settings.warmup_epochs,
        records=records,
    )
    return max(settings.kind.course(moment, **settings.values()), settings.min_lr)


def _cosine(now: Moment) -> float:
    return _half_cosine(now.peak_lr, now.min_lr, now.fraction)


def _constant(now: Moment) -> float:
    return now.peak_lr


def _step(now: Moment, step_fractions: Sequence[float], step_factor: float) -> float:
    drops = sum(now.progress >= fraction * now.epochs for fraction in step_fractions)
    return float(now.peak_lr * step_factor**drops)


def _warm_restarts(now: Moment, restart_period_epochs: float, restart_factor: float) -> float:
    since_restart, period = now.progress - now.warmup_epochs, restart_period_epochs
    if restart_factor == 1:
        since_restart %= period
    while since_restart >= period:
        since_restart -= period
        period *= restart_factor
    return _half_cosine(now.peak_lr, now.min_lr, since_restart / period)


def _one_cycle(now: Moment, cycle_rise_share: float, cycle_start_divisor: float, cycle_final_divisor: float) -> float:
    rise_epochs = cycle_rise_share * now.epochs
    start_lr = now.peak_lr / cycle_start_divisor
    if now.progress < rise_epochs:
        return _half_cosine(start_lr, now.peak_lr, now.progress / rise_epochs)
    final_lr = max(start_lr / cycle_final_divisor, now.min_lr)
    return _half_cosine(now.peak_lr, final_lr, (now.progress - rise_epochs) / (now.epochs - rise_epochs))


def _plateau(now: Moment, plateau_factor: float, plateau_patience_epochs: int, plateau_min_delta: float) -> float:
    losses = [record.valid_loss for record in now.records if record.epoch > now.warmup_epochs]
    rate = now.peak_lr
    for count in since_improvement(losses, plateau_min_delta):
        if count and count % plateau_patience_epochs == 0:
            rate *= plateau_factor
    return rate


def _half_cosine(start: float, end: float, done: float) -> float:
    """Return the value after a fraction `done` of half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


register_schedule("cosine", _cosine)
register_schedule("constant", _constant, depends_on_length=False)
register_schedule("step", _step, {"step_fractions": (0.5, 0.75), "step_factor": 0.1})
register_schedule(
    "warm-restarts", _warm_restarts, {"restart_period_epochs": 10.0, "restart_factor": 2.0}, depends_on_length=False
)
register_schedule(
    "one-cycle",
    _one_cycle,
    {"cycle_rise_share": 0.3, "cycle_start_divisor": 25.0, "cycle_final_divisor": 1e4},
    has_warmup=True,
)
register_schedule(
    "plateau",
    _plateau,
    {"plateau_factor": 0.1, "plateau_patience_epochs": 10, "plateau_min_delta": 1e-4},
    depends_on_length=False,
    needs_validation=True,
)
