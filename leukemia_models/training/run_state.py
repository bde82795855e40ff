"""The settings and the state of a run, and changes of its length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_whole
from leukemia_models.devices.precision import AMP, AUTO, FP16, FP32, decide_precision, require_precision_name
from leukemia_models.training.history import EarlyStopping, EpochRecord, TrainHistory, has_stopped
from leukemia_models.training.image_sizes import (
    ImageSizes,
    require_sizes,
    scaled_sizes,
    size_at,
    sizes_with_length,
    total_epochs,
)
from leukemia_models.training.named_options import ABOVE_ZERO, BELOW_ONE, BETWEEN, require
from leukemia_models.training.optimizers import OPTIMIZERS, OptimizerSettings
from leukemia_models.training.schedules import SCHEDULES, ScheduleSettings, learning_rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STRETCH, RESTART = "stretch", "restart"
EXTENSIONS = (STRETCH, RESTART)
FUSED_DEVICES = ("cuda", "cpu")
"""Where an optimizer that updates in one pass was found faster, or is known to be."""
SCALED_PRECISIONS = (FP16, AMP)
"""Their gradients may overflow. The step is skipped then, and torch's SGD would spoil its momentum in a fused one."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One change of a run's length.

    Parameters
    ----------
    after_epochs : int
        Number of epochs done before the change, at least 0.
    from_epochs, to_epochs : int
        The length before and after, at least 1.
    schedule : {"stretch", "restart"}
        Stretch the schedule over the new length, or restart it after `after_epochs`.

    Raises
    ------
    UsageError
        If a value is outside its range, or the schedule would restart before its end.
    """

    after_epochs: int
    from_epochs: int
    to_epochs: int
    schedule: str = STRETCH

    def __post_init__(self) -> None:
        as_whole(self.after_epochs, "after_epochs", at_least=0)
        as_whole(self.from_epochs, "from_epochs", at_least=1)
        as_whole(self.to_epochs, "to_epochs", at_least=1)
        require_extension(self.schedule)
        if self.schedule == RESTART and not self.after_epochs == self.from_epochs < self.to_epochs:
            raise UsageError(
                f"a schedule restarts at its end, after {self.from_epochs} epochs, and not after {self.after_epochs} "
                f"of {self.to_epochs}"
            )

    def text(self, schedule_name: str) -> str:
        """Return a sentence on the change in a run with this schedule."""
        word = "extended" if self.to_epochs > self.from_epochs else "shortened"
        return (
            f"After {self.after_epochs} epochs the run was {word} from {self.from_epochs} to {self.to_epochs} epochs: "
            f"{self.course(schedule_name)}."
        )

    def course(self, schedule_name: str) -> str:
        """Return a clause on what the schedule does after the change."""
        if self.schedule == RESTART:
            return f"a new {schedule_name} schedule goes over the {self.to_epochs - self.after_epochs} further epochs"
        if not SCHEDULES.get(schedule_name).depends_on_length:
            return f"the {schedule_name} schedule goes on, it does not depend on the length"
        word = "stretched" if self.to_epochs > self.from_epochs else "shortened"
        return f"the {schedule_name} schedule is {word} from {self.from_epochs} to {self.to_epochs} epochs"


def require_extension(name: str) -> None:
    """Raise UsageError unless `name` is one of :data:`EXTENSIONS`."""
    if name not in EXTENSIONS:
        raise UsageError(f"unknown extension {name!r}: use {' or '.join(EXTENSIONS)}")


@dataclass(frozen=True, kw_only=True)
class PrecisionChange:
    """One change of a run's precision, for a device that lacks the earlier one.

    Parameters
    ----------
    after_epochs : int
        Number of epochs done before the change, at least 0.
    from_precision, to_precision : str
    """

    after_epochs: int
    from_precision: str
    to_precision: str

    def text(self) -> str:
        """Return a sentence on the change."""
        return (
            f"After {self.after_epochs} epochs the run went on in {self.to_precision} instead of {self.from_precision}."
        )


OptimizerState = Mapping[int, Mapping[str, Any]]
"""The optimizer's tensors by name, of each parameter by its index in the network."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a run, apart from its data. The defaults are the first report's training (A14).

    Parameters
    ----------
    epochs : int
        At least 1.
    optimizer : OptimizerSettings
    schedule : ScheduleSettings
        Must be ``constant`` without a warm-up for an optimizer that has its own schedule.
    num_classes : int
        Labels are 0 to num_classes - 1.
    seed : int
        Seed of the network's random layers. Weights, order and augmentation have their own.
    precision : {"fp32", "bf16", "fp16", "auto"}
        Of forward and backward pass; weights, pooling and classifier are always float32. ``auto`` is not decided yet,
        see :meth:`decided`; runs of version 0.1 may have ``amp``.
    tf32 : bool
        Whether convolutions in float32 may round to TF32, on CUDA.
    cudnn_benchmark : bool or None
        Whether cuDNN tries its algorithms and takes the fastest, on CUDA; None is not decided yet.
    fused : bool or None
        Whether the optimizer updates each parameter, or all, in one pass, where it can; None is not decided yet.
    channels_last : bool
        Memory format of weights and activations; results are the same within rounding.
    compile : bool
        Train through torch.compile; results are the same within rounding.
    clip_norm : float or None
        Largest Euclidean norm of the gradient over all parameters; > 0.
    label_smoothing : float
        Fraction of each target that is spread evenly over all classes (Szegedy et al. 2016), in [0, 1).
    class_weights : tuple of float or None
        Weight of each class in the loss, > 0. The loss of a batch is the weighted mean over the samples of all ranks.
    early_stopping : EarlyStopping or None
    ema_decay : float or None
        Decay, in (0, 1), of a :class:`~leukemia_models.training.weights.WeightAverage`, which is evaluated.
    sync_batchnorm : bool
        Whether BatchNorm normalises over all ranks, which costs two exchanges a layer and step, or each rank by the
        moments of its own rows.
    accumulate : int
        Micro-batches of a rank before each step of the optimizer; at least 1. BatchNorm normalises each by itself.
    extensions : tuple of Extension or None
        Changes of the length since the run began, in order; None without any.
    precision_changes : tuple of PrecisionChange or None
        Changes of the precision since the run began, in order; None without any.
    sizes : tuple of (int, int) or None
        Side in px to which images are reduced, and for how many of the epochs; sides ascend, the last is that of the
        cache. None trains at the cache's size throughout.

    Raises
    ------
    UsageError
        If a value is outside its range, or two contradict each other.
    """

    epochs: int
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    num_classes: int = 2
    seed: int = 0
    precision: str = FP32
    tf32: bool = True
    cudnn_benchmark: bool | None = None
    fused: bool | None = None
    channels_last: bool = True
    compile: bool = False
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    early_stopping: EarlyStopping | None = None
    ema_decay: float | None = None
    sync_batchnorm: bool = False
    accumulate: int = 1
    extensions: tuple[Extension, ...] | None = None
    precision_changes: tuple[PrecisionChange, ...] | None = None
    sizes: ImageSizes | None = None

    def __post_init__(self) -> None:
        as_whole(self.epochs, "epochs", at_least=1)
        as_whole(self.num_classes, "num_classes", at_least=1)
        as_whole(self.seed, "seed")
        if not self.course_start < self.epochs:
            raise UsageError(f"a schedule cannot begin after {self.course_start} of {self.epochs} epochs")
        as_whole(self.accumulate, "accumulate", at_least=1)
        require_precision_name(self.precision)
        require(BELOW_ONE, "label_smoothing", self.label_smoothing)
        if self.clip_norm is not None:
            require(ABOVE_ZERO, "clip_norm", self.clip_norm)
        if self.ema_decay is not None:
            require(BETWEEN, "ema_decay", self.ema_decay)
        if self.class_weights is not None:
            _require_class_weights(self.class_weights, self.num_classes)
        if self.fused and self.precision in SCALED_PRECISIONS:
            raise UsageError(f"fused updates cannot skip steps as {self.precision} must: leave fused out, or False")
        if self.sizes is not None:
            require_sizes(self.sizes, self.epochs)
        _require_fitting_schedule(self.optimizer, self.schedule, self.epochs - self.course_start)

    def decided(self, device: torch.device, *, has_bf16: bool | None = None) -> TrainSettings:
        """Return the settings with everything decided that depends on the device; decided ones stay as they are.

        For `has_bf16` see :func:`~leukemia_models.devices.precision.decide_precision`.
        """
        precision = decide_precision(AUTO, device, has_bf16=has_bf16) if self.precision == AUTO else self.precision
        has_fused = device.type in FUSED_DEVICES and OPTIMIZERS.get(self.optimizer.name).has_fused
        return replace(
            self,
            precision=precision,
            cudnn_benchmark=device.type == "cuda" if self.cudnn_benchmark is None else self.cudnn_benchmark,
            fused=has_fused and precision not in SCALED_PRECISIONS if self.fused is None else self.fused,
        )

    @property
    def left_to_device(self) -> tuple[str, ...]:
        """Names of the settings that the device decides."""
        undecided = {"precision": (AUTO, AMP), "cudnn_benchmark": (None,), "fused": (None,)}
        return tuple(name for name, values in undecided.items() if getattr(self, name) in values)

    def smallest_px(self, cache_px: int) -> int:
        """Return the side of the smallest images to train on, from a cache of this size."""
        return self.sizes[0][0] if self.sizes else cache_px

    @property
    def course_start(self) -> int:
        """Number of epochs before the schedule last started: 0 without a restart."""
        return max((each.after_epochs for each in self.extensions or () if each.schedule == RESTART), default=0)

    def learning_rate(self, epoch_progress: float, records: Sequence[EpochRecord]) -> float:
        """Return the learning rate after `epoch_progress` epochs, with the records of those done.

        As :func:`leukemia_models.training.schedules.learning_rate`, with restarts.
        """
        start = self.course_start
        if start:
            records = [replace(record, epoch=record.epoch - start) for record in records[start:]]
        peak_lr, epochs = self.optimizer.peak_lr, self.epochs - start
        return learning_rate(peak_lr, self.schedule, epoch_progress - start, epochs, records)

    def require_validation(self, has_validation: bool) -> None:
        """Raise UsageError if early stopping or the schedule needs validation and there is none."""
        if has_validation:
            return
        if self.early_stopping is not None:
            raise UsageError("early stopping watches the validation part, and there is none: leave early_stopping out")
        if self.schedule.needs_validation:
            raise UsageError(
                f"schedule {self.schedule.name} watches the validation part, and there is none: choose another schedule"
            )

    def size_at(self, epoch: int) -> int | None:
        """Return the side in px to which the images of an epoch, counted from 1, are reduced; None for the cache's."""
        return None if self.sizes is None else size_at(self.sizes, epoch)

    def stops_after(self, records: Sequence[EpochRecord]) -> bool:
        """Return whether a run ends after these epochs, by its length or by early stopping.

        Early stopping watches the epochs at the last size: smaller images give other values.
        """
        smaller = 0 if self.sizes is None else total_epochs(self.sizes[:-1])
        return len(records) >= self.epochs or has_stopped(self.early_stopping, records[smaller:])

    def stopped_early(self, records: Sequence[EpochRecord]) -> bool:
        """Return whether early stopping ends a run after these epochs."""
        return len(records) < self.epochs and self.stops_after(records)

    def with_epochs_scaled(self, factor: float) -> TrainSettings:
        """Return settings with everything counted in epochs scaled: the length rounded up, patience at least 1."""
        stopping = self.early_stopping
        if stopping is not None:
            stopping = replace(stopping, patience_epochs=max(1, round(stopping.patience_epochs * factor)))
        sizes = None if self.sizes is None else scaled_sizes(self.sizes, factor)
        return replace(
            self,
            # 550 x 0.02 may be slightly above 11.
            epochs=max(1, math.ceil(self.epochs * factor - 1e-9)) if sizes is None else total_epochs(sizes),
            sizes=sizes,
            schedule=self.schedule.with_epochs_scaled(factor),
            early_stopping=stopping,
        )

    def with_epochs(self, epochs: int) -> TrainSettings:
        """Return settings of another length; of progressive sizes the last one is longer or shorter.

        Raises
        ------
        UsageError
            If it leaves no epoch at the last size.
        """
        sizes = None if self.sizes is None else sizes_with_length(self.sizes, epochs)
        return replace(self, epochs=epochs, sizes=sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested JSON values."""
        return {**asdict(self), "optimizer": self.optimizer.to_dict(), "schedule": self.schedule.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return the settings that :meth:`to_dict` wrote, also after JSON and by earlier versions."""
        values = _of_earlier(values)
        optimizer = _tuples(values["optimizer"])
        schedule = _tuples(values["schedule"]) if "schedule" in values else _schedule_of_earlier(optimizer)
        stopping, extensions = values.get("early_stopping"), values.get("extensions")
        changes = values.get("precision_changes")
        sizes = values.get("sizes")
        return cls(
            **{
                # Runs of version 0.1 synchronised it.
                "sync_batchnorm": True,
                **_tuples(values),
                "optimizer": OptimizerSettings(**optimizer),
                "schedule": ScheduleSettings(**schedule),
                "early_stopping": None if stopping is None else EarlyStopping(**stopping),
                "extensions": tuple(Extension(**each) for each in extensions) if extensions else None,
                "precision_changes": tuple(PrecisionChange(**each) for each in changes) if changes else None,
                "sizes": None if sizes is None else tuple(map(tuple, sizes)),
            }
        )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _of_earlier(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings of version 0.1, which had ``amp``, in today's terms, and others as they are."""
    if "precision" in values:
        return values
    rest = {name: value for name, value in values.items() if name != "amp"}
    return {"precision": AMP if values.get("amp") else FP32, "cudnn_benchmark": False, "fused": False, **rest}


def _schedule_of_earlier(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Remove the schedule from the optimizer's settings, where early versions kept it, and return it."""
    schedule = {"name": optimizer.pop("schedule"), "warmup_epochs": optimizer.pop("warmup_epochs")}
    steps = {name: optimizer.pop(name) for name in ("step_fractions", "step_factor")}
    return {**schedule, **steps} if schedule["name"] == "step" else schedule


def _require_class_weights(weights: tuple[float, ...], num_classes: int) -> None:
    if len(weights) != num_classes:
        raise UsageError(f"class_weights must be one number for each of {num_classes} classes, got {len(weights)}")
    for weight in weights:
        require(ABOVE_ZERO, "each of class_weights", weight)


def _require_fitting_schedule(optimizer: OptimizerSettings, schedule: ScheduleSettings, epochs: int) -> None:
    if schedule.warmup_epochs > epochs:
        raise UsageError(f"schedule: a warm-up of {schedule.warmup_epochs} epochs is longer than {epochs} epochs")
    if schedule.min_lr > optimizer.peak_lr:
        raise UsageError(f"schedule: min_lr {schedule.min_lr} is above the peak learning rate {optimizer.peak_lr}")
    if optimizer.schedules_itself and (schedule.name != "constant" or schedule.warmup_epochs):
        raise UsageError(
            f"schedule {schedule.name} does not go with {optimizer.name}, which warms up and cools down by itself: "
            "give it schedule constant without warmup_epochs, or switch its own off (inner_schedule = false)"
        )


@dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """Progress inside an epoch, with sums over the samples of all ranks.

    Parameters
    ----------
    steps_done : int
    lr : float
        Learning rate of the last step.
    loss_sum : float
        Sum of the samples' losses, each with the weights of its step.
    weight_sum : float
        Denominator of the mean loss: the number of samples, or the sum of their class weights.
    num_correct, num_samples : int
    wait_s : float
        Seconds spent waiting for batches; the maximum over the ranks.
    train_s : float
        Seconds of training, including waiting.
    """

    steps_done: int = 0
    lr: float = 0.0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    num_correct: int = 0
    num_samples: int = 0
    wait_s: float = 0.0
    train_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochProgress:
        """Return what :meth:`to_dict` wrote, also in versions without class weights."""
        return cls(**{"weight_sum": float(values["num_samples"]), **values})


@dataclass(frozen=True)
class WeightAverageState:
    """The running average of a network's weights.

    Parameters
    ----------
    tensors : mapping of str to tensor
        The averaged parameters by name, with their BatchNorm statistics if these were estimated.
    num_updates : int
        Number of steps in the average.
    """

    tensors: Mapping[str, Tensor]
    num_updates: int


@dataclass(frozen=True)
class TrainState:
    """The state of a training at an epoch's end or inside one, apart from the network's weights.

    Parameters
    ----------
    history : TrainHistory
        The epochs done.
    optimizer_state : mapping or None
        None in a checkpoint for evaluation only.
    scaler_state : mapping
        State of the gradient scaler; empty without float16.
    progress : EpochProgress or None
        Progress inside the next epoch; None at its beginning.
    optimizer_counters : mapping of str to float
        The optimizer's counters for all parameters together.
    average : WeightAverageState or None
        In a run that keeps an average of the weights.
    """

    history: TrainHistory
    optimizer_state: OptimizerState | None
    scaler_state: Mapping[str, Any] = field(default_factory=dict)
    progress: EpochProgress | None = None
    optimizer_counters: Mapping[str, float] = field(default_factory=dict)
    average: WeightAverageState | None = None

    @property
    def epochs_done(self) -> int:
        """Number of epochs done."""
        return len(self.history.records)


@dataclass(frozen=True)
class ChangedLength:
    """Settings of a run with another length, and a sentence on the change."""

    settings: TrainSettings
    note: str


def with_length(settings: TrainSettings, state: TrainState | None, epochs: int, extend: str = STRETCH) -> ChangedLength:
    """Return the settings of a run with another length.

    Parameters
    ----------
    settings : TrainSettings
        The present settings.
    state : TrainState or None
        Its state; None before it begins, when only the length changes.
    epochs : int
        The new length, at least the number of epochs begun.
    extend : {"stretch", "restart"}
        Stretch the schedule over the new length, as if the run had had it from the beginning; or, after the last epoch,
        restart it with its warm-up and peak rate over the added epochs.

    Raises
    ------
    UsageError
        If the run has begun more epochs, was ended by early stopping, its schedule cannot restart, or no epoch at the
        last of its sizes is left.
    """
    require_extension(extend)
    changed = f"the run now ends after {epochs} epochs instead of {settings.epochs}"
    done = state.epochs_done if state is not None else 0
    begun = done + (1 if state is not None and state.progress else 0)
    _require_possible(settings, state, epochs, begun, extend)
    if state is None:
        return ChangedLength(settings.with_epochs(epochs), changed)
    extension = Extension(after_epochs=done, from_epochs=settings.epochs, to_epochs=epochs, schedule=extend)
    longer = replace(settings.with_epochs(epochs), extensions=(*(settings.extensions or ()), extension))
    return ChangedLength(longer, f"{changed}; {_rates(settings, longer, extension, state, begun)}")


def require_extended(settings: TrainSettings, extend: str) -> None:
    """Raise UsageError unless the last extension of a run, whose length stays the same, was of this kind."""
    if not settings.extensions or settings.extensions[-1].schedule != extend:
        raise UsageError(f"--extend {extend}: the run has {settings.epochs} epochs; give the new number by --epochs")


def _require_possible(settings: TrainSettings, state: TrainState | None, epochs: int, begun: int, extend: str) -> None:
    # Only the weights of the last step are kept, not those of the end of an earlier epoch.
    if epochs < begun:
        raise UsageError(f"--epochs {epochs}: the run has begun {begun} epochs already")
    if state is not None and settings.stopped_early(state.history.records):
        raise UsageError(
            f"--epochs {epochs}: the run was ended by early stopping after {state.epochs_done} epochs, and would end "
            "there again; start a new run"
        )
    if extend != RESTART:
        return
    if settings.optimizer.schedules_itself:
        raise UsageError(
            f"--extend {RESTART}: {settings.optimizer.name} has its own schedule over the whole run; use --extend "
            f"{STRETCH}"
        )
    if state is None or state.epochs_done < settings.epochs or epochs <= settings.epochs:
        raise UsageError(
            f"--extend {RESTART}: the schedule restarts at its end, and the run has done "
            f"{state.epochs_done if state else 0} of {settings.epochs} epochs; resume it first, or use --extend "
            f"{STRETCH}"
        )


def _rates(before: TrainSettings, after: TrainSettings, extension: Extension, state: TrainState, begun: int) -> str:
    """Return a clause on the learning rate before and after the change, and on the other kind of extension."""
    if after.epochs <= begun:
        return "the epoch under way is its last one"
    name, records = before.schedule.name, state.history.records
    course = extension.course(name)
    if before.optimizer.schedules_itself:
        ended = f"epoch {len(records)} ended at learning rate {records[-1].lr:.2g}, and " if records else ""
        return f"{ended}{before.optimizer.name} has its own schedule, now over {after.epochs} epochs"
    following = after.learning_rate(begun, records)
    if begun < before.epochs:
        earlier = before.learning_rate(begun, records)
        return f"learning rate: epoch {begun + 1} begins at {following:.2g} instead of {earlier:.2g}, as {course}"
    text = f"learning rate: epoch {begun} ended at {records[-1].lr:.2g}; epoch {begun + 1} begins at {following:.2g}, "
    if extension.schedule == RESTART or not after.schedule.kind.depends_on_length:
        return f"{text}as {course}"
    further = after.epochs - begun
    return f"{text}as {course} (--extend {RESTART} is for a new one over the {further} further epochs)"
