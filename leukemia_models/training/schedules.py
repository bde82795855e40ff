"""The course of the learning rate: validated settings and how far a run has come in, a rate out.

A pure function of the settings, the progress and the epochs behind. There is no scheduler object and hence no state to
save: a resumed run computes the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_models.training.history import EpochRecord, improvements
from leukemia_models.training.named_options import (
    ABOVE_ZERO,
    AT_LEAST_ONE,
    BETWEEN,
    NOT_NEGATIVE,
    Range,
    filled_in,
    known,
    require,
)

SCHEDULE_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "constant": {},
        "step": {"step_fractions": (0.5, 0.75), "step_factor": 0.1},
        "cosine": {},
        "warm-restarts": {"restart_period_epochs": 10.0, "restart_factor": 2.0},
        "one-cycle": {"cycle_rise_share": 0.3, "cycle_start_divisor": 25.0, "cycle_final_divisor": 1e4},
        "plateau": {"plateau_factor": 0.1, "plateau_patience_epochs": 10, "plateau_min_delta": 1e-4},
    }
)
"""Which options each schedule knows, with their defaults."""
SCHEDULES = tuple(SCHEDULE_OPTIONS)


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate runs between its peak and `min_lr`.

    An option is None where the named schedule does not know it; where it does, None stands for its default, which is
    filled in.

    Parameters
    ----------
    name : {"cosine", "constant", "step", "warm-restarts", "one-cycle", "plateau"}
        Course after the warm-up: half a cosine; always the peak; a drop at each of `step_fractions`; a half cosine
        again and again (Loshchilov and Hutter 2017, SGDR); up and down once (Smith 2018), by half cosines; or a drop
        whenever the validation loss stops to fall.
    warmup_epochs : float
        Epochs of linear rise from 0 to the peak; they are part of the run's epochs. One-cycle has its own rise.
    min_lr : float
        The rate never falls below it after the warm-up, and cosines end in it. At least 0, at most the peak.
    step_fractions : tuple of float
        Fractions of the whole run, rising, in (0, 1). Half and three quarters are He et al.'s for CIFAR-10.
    step_factor : float
        In (0, 1).
    restart_period_epochs : float
        Length of the first cosine, > 0.
    restart_factor : float
        Each cosine is so many times as long as the one before; at least 1.
    cycle_rise_share : float
        Share of the run in which the rate rises, in (0, 1).
    cycle_start_divisor, cycle_final_divisor : float
        The rate starts at the peak divided by the first, and ends at that divided by the second; at least 1. Momentum
        stays as it is.
    plateau_factor : float
        In (0, 1).
    plateau_patience_epochs : int
        So many epochs in a row without an improvement bring a drop; at least 1. (In torch's ReduceLROnPlateau it is one
        epoch more.) Epochs of the warm-up do not count.
    plateau_min_delta : float
        By how much the validation loss must fall below the lowest before, to count as an improvement; >= 0.

    Raises
    ------
    UsageError
        If the name is unknown, an option does not belong to it, or a value is outside its range.
    """

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

    def __post_init__(self) -> None:
        options = {field.name: getattr(self, field.name) for field in fields(self)[3:]}
        for option, value in filled_in("schedule", self.name, options, SCHEDULE_OPTIONS).items():
            object.__setattr__(self, option, value)
            require(_RANGES[option], option, value)
        require(NOT_NEGATIVE, "warmup_epochs", self.warmup_epochs)
        require(NOT_NEGATIVE, "min_lr", self.min_lr)
        if self.name == "one-cycle" and self.warmup_epochs:
            raise UsageError("schedule one-cycle has its own rise: leave out warmup_epochs, or set cycle_rise_share")

    @property
    def needs_validation(self) -> bool:
        """Whether the rate depends on what the validation split says."""
        return self.name == "plateau"

    def with_epochs_scaled(self, factor: float) -> ScheduleSettings:
        """Return the same course for a run that is `factor` times as long."""
        changes: dict[str, Any] = {"warmup_epochs": self.warmup_epochs * factor}
        if self.restart_period_epochs is not None:
            changes["restart_period_epochs"] = self.restart_period_epochs * factor
        if self.plateau_patience_epochs is not None:
            changes["plateau_patience_epochs"] = max(1, round(self.plateau_patience_epochs * factor))
        return replace(self, **changes)


_RANGES: Mapping[str, Range] = MappingProxyType(
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


def learning_rate(
    peak_lr: float,
    settings: ScheduleSettings,
    epoch_progress: float,
    epochs: int,
    records: Sequence[EpochRecord] = (),
) -> float:
    """Return the learning rate after `epoch_progress` of `epochs` epochs.

    Parameters
    ----------
    peak_lr : float
        Highest rate of the run, > 0.
    settings : ScheduleSettings
        Course and warm-up.
    epoch_progress : float
        Epochs done, with fractions, in [0, epochs]. A step is best asked at its middle,
        ``epochs done + (step + 0.5) / steps``: so the first step of a warm-up and the last of a cosine still move.
    epochs : int
        Length of the run.
    records : sequence of EpochRecord
        The epochs done; only ``plateau`` looks at them.

    Returns
    -------
    float
        In [0, peak_lr].

    Raises
    ------
    UsageError
        If `epoch_progress` is outside the run.
    """
    if not 0 <= epoch_progress <= epochs:
        raise UsageError(f"epoch_progress must be in [0, {epochs}], got {epoch_progress}")
    if epoch_progress < settings.warmup_epochs:
        return peak_lr * epoch_progress / settings.warmup_epochs
    course = _COURSES[settings.name]
    return max(course(peak_lr, settings, epoch_progress, epochs, records), settings.min_lr)


_Course = Callable[[float, ScheduleSettings, float, int, Sequence[EpochRecord]], float]
"""The arguments of :func:`learning_rate` after the warm-up -> a rate, which may still be below the lowest."""


def _constant(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    return peak_lr


def _step(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    drops = sum(progress >= fraction * epochs for fraction in known(settings.step_fractions))
    return float(peak_lr * known(settings.step_factor) ** drops)


def _cosine(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    left_epochs = epochs - settings.warmup_epochs
    done = (progress - settings.warmup_epochs) / left_epochs if left_epochs > 0 else 0.0
    return _half_cosine(peak_lr, settings.min_lr, done)


def _warm_restarts(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    since_restart, period = progress - settings.warmup_epochs, known(settings.restart_period_epochs)
    if known(settings.restart_factor) == 1:
        since_restart %= period
    while since_restart >= period:
        since_restart -= period
        period *= known(settings.restart_factor)
    return _half_cosine(peak_lr, settings.min_lr, since_restart / period)


def _one_cycle(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    rise_epochs = known(settings.cycle_rise_share) * epochs
    start_lr = peak_lr / known(settings.cycle_start_divisor)
    if progress < rise_epochs:
        return _half_cosine(start_lr, peak_lr, progress / rise_epochs)
    final_lr = start_lr / known(settings.cycle_final_divisor)
    return _half_cosine(peak_lr, max(final_lr, settings.min_lr), (progress - rise_epochs) / (epochs - rise_epochs))


def _plateau(
    peak_lr: float, settings: ScheduleSettings, progress: float, epochs: int, records: Sequence[EpochRecord]
) -> float:
    losses = [record.valid_loss for record in records if record.epoch > settings.warmup_epochs]
    rate, num_without = peak_lr, 0
    for improved in improvements((loss for loss in losses if loss is not None), known(settings.plateau_min_delta)):
        num_without = 0 if improved else num_without + 1
        if num_without == settings.plateau_patience_epochs:
            rate, num_without = rate * known(settings.plateau_factor), 0
    return rate


def _half_cosine(start: float, end: float, done: float) -> float:
    """Return the value after a share `done`, in [0, 1], of half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


_COURSES: Mapping[str, _Course] = MappingProxyType(
    {
        "constant": _constant,
        "step": _step,
        "cosine": _cosine,
        "warm-restarts": _warm_restarts,
        "one-cycle": _one_cycle,
        "plateau": _plateau,
    }
)
