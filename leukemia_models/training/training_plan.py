"""A training plan: the network, its stages, and how the result is evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.errors import UsageError
from leukemia_data.registry import did_you_mean
from leukemia_models.evaluation.settings import AUTO, NO_TTA, Tta, parse_tta, require_batchnorm_mode
from leukemia_models.networks.registry import NETWORKS
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a finished network is judged.

    Parameters
    ----------
    tta : Tta
        Views of each image whose answers are averaged.
    batchnorm : {"auto", "running", "reestimated"}
        Which BatchNorm statistics it answers with; auto re-estimates them where that helps.

    Raises
    ------
    UsageError
        If the mode is unknown.
    """

    tta: Tta = NO_TTA
    batchnorm: str = AUTO

    def __post_init__(self) -> None:
        require_batchnorm_mode(self.batchnorm)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return {"tta": self.tta.to_dict(), "batchnorm": self.batchnorm}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationSettings:
        """Return what :meth:`to_dict` wrote; what is missing (in runs of earlier versions) has its default.

        Raises
        ------
        UsageError
            If the values are something else, as in a damaged file.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"judging settings are stored by name, not as {values!r:.60}")
        tta = Tta.from_dict(values["tta"]) if "tta" in values else NO_TTA
        return cls(tta=tta, batchnorm=values.get("batchnorm", AUTO))


UNIFORM, CLASS_BALANCED, SUBJECT_BALANCED = "uniform", "class-balanced", "subject-balanced"
SAMPLINGS = (UNIFORM, CLASS_BALANCED, SUBJECT_BALANCED)
CLASS_WEIGHTINGS = ("none", "balanced")
SCRATCH: Literal["scratch"] = "scratch"
OPTIONS_STAGE = "options"
"""Name of the only stage of a plan that no file describes."""
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLAN_NAME = re.compile(r"(?![.\s-])[^\x00-\x1f\x7f-\x9f/\\<>:\"|?*]{1,100}")


@dataclass(frozen=True)
class StartWeights:
    """What a stage's weights are before its first step.

    Parameters
    ----------
    kind : {"scratch", "best", "last", "file"}
        Drawn from the seed; the best or the last epoch of an earlier stage; or read from a file.
    stage : str
        Name of the earlier stage.
    path : Path, optional
        The file: a checkpoint, or a safetensors file of a network's state.
    """

    kind: Literal["scratch", "best", "last", "file"] = SCRATCH
    stage: str = ""
    path: Path | None = None

    def __str__(self) -> str:
        if self.kind == "file":
            return str(self.path)
        return f"{self.kind}:{self.stage}" if self.stage else self.kind


def parse_start(text: str, folder: Path) -> StartWeights:
    """Read ``scratch``, ``best:STAGE``, ``last:STAGE`` or the name of a ``.safetensors`` file.

    Parameters
    ----------
    text : str
        What the user wrote.
    folder : Path
        Where a relative file name starts from.

    Raises
    ------
    UsageError
        If it is none of them, or the file does not exist.
    """
    if text == SCRATCH:
        return StartWeights()
    kind, _, stage = text.partition(":")
    if kind in ("best", "last") and stage:
        return StartWeights("best" if kind == "best" else "last", stage)
    if not text.endswith(".safetensors"):
        raise UsageError(f"start {text!r}: use scratch, best:STAGE, last:STAGE or a .safetensors file")
    path = folder / text
    if not path.is_file():
        raise UsageError(f"there is no file {path} to start from")
    return StartWeights("file", path=path)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training, with one cache and one optimizer.

    Parameters
    ----------
    name : str
        Of letters, digits, dots, hyphens and underscores: it names a folder.
    settings : TrainSettings
        Length, optimizer, schedule and all that moves the weights. Its seed and class weights are filled in by the run.
    augmentation : Augmentation
        Of the training images.
    size_px : int, optional
        Side of the cached images; not needed where only one cache is there.
    recipe : str, optional
        Name of the preprocessing recipe of the cache.
    batch_size : int
        Of all ranks together, at least 2.
    sampling : {"uniform", "class-balanced", "subject-balanced"}
        How often each training image is drawn.
    class_weights : {"none", "balanced"}
        Whether the loss weighs a class by the inverse of its share of the training images.
    start : StartWeights
        Where the weights come from.

    Raises
    ------
    UsageError
        If a value is outside its range.
    """

    name: str
    settings: TrainSettings
    augmentation: Augmentation
    size_px: int | None = None
    recipe: str | None = None
    batch_size: int = 64
    sampling: str = UNIFORM
    class_weights: str = "none"
    start: StartWeights = field(default_factory=StartWeights)

    def __post_init__(self) -> None:
        require_stage_name(self.name)
        if self.batch_size < 2:
            raise UsageError(f"batch_size must be at least 2, got {self.batch_size}")
        require_one_of("sampling", self.sampling, SAMPLINGS)
        require_one_of("class_weights", self.class_weights, CLASS_WEIGHTINGS)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "name": self.name,
            "size_px": self.size_px,
            "recipe": self.recipe,
            "batch_size": self.batch_size,
            "sampling": self.sampling,
            "class_weights": self.class_weights,
            "start": str(self.start),
            "augmentation": self.augmentation.to_dict(),
            "settings": self.settings.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A network, the stages it is trained in, and how it is judged.

    Parameters
    ----------
    name, description : str
        For people; the name is the beginning of a folder's name too, so it may hold no signs that part folders.
    model_name : str
        One of :func:`~leukemia_models.networks.registry.model_names`.
    stages : tuple of Stage
        At least one, in order; each starts from nothing, a file, or a stage before it.
    judging : EvaluationSettings
        Of every stage.
    num_folds : int, optional
        How many folds a cross-validation by this plan has, at least 2.
    source_text : str
        The file that it was read from; empty of a plan that was made otherwise.

    Raises
    ------
    UsageError
        If a name is unknown or used twice, or a stage starts from one that is not before it.
    """

    name: str
    model_name: str
    stages: tuple[Stage, ...]
    description: str = ""
    judging: EvaluationSettings = field(default_factory=EvaluationSettings)
    num_folds: int | None = None
    source_text: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        NETWORKS.get(self.model_name)
        require_plan_name(self.name)
        if not self.stages:
            raise UsageError("a plan needs at least one [[stage]]")
        if self.num_folds is not None and self.num_folds < 2:
            raise UsageError(f"folds must be at least 2, got {self.num_folds}")
        for number, stage in enumerate(self.stages):
            check_order(stage, [earlier.name for earlier in self.stages[:number]])

    @property
    def is_staged(self) -> bool:
        """Whether each stage is a run in a folder of its own; a plan made of options is one run."""
        return len(self.stages) > 1 or self.stages[0].name != OPTIONS_STAGE

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "name": self.name,
            "description": self.description,
            "model": self.model_name,
            "folds": self.num_folds,
            "judging": self.judging.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def warnings(self) -> list[str]:
        """Return what is doubtful about the stages' augmentation, once each."""
        return sorted({text for stage in self.stages for text in stage.augmentation.warnings()})


def single_stage_plan(
    *,
    model: str = "resnet18",
    epochs: int = 30,
    size_px: int | None = None,
    recipe: str | None = None,
    batch_size: int = 64,
    augment: str | Augmentation = "flips",
    sampling: str = UNIFORM,
    optimizer: str | OptimizerSettings = "sgd",
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    schedule: str | ScheduleSettings | None = None,
    warmup_epochs: float = 0.0,
    clip_norm: float | None = None,
    label_smoothing: float = 0.0,
    class_weights: str = "none",
    early_stopping: int | None = None,
    ema: float | None = None,
    start: str = SCRATCH,
) -> TrainingPlan:
    """Return the plan of one run, without a file.

    Parameters
    ----------
    model : str
        Name of a network.
    epochs : int
        At least 1.
    size_px, recipe
        Choose one of several caches.
    batch_size : int
        Of all processes together, at least 2.
    augment : str or Augmentation
        A preset's name or a file, see :func:`~leukemia_data.augmenting.augmentation.load_augmentation`.
    sampling : {"uniform", "class-balanced", "subject-balanced"}
        How often each training image is drawn.
    optimizer : str or OptimizerSettings
        Settings, or a name that `lr` (the highest learning rate), `momentum` and `weight_decay` belong to.
    schedule : str or ScheduleSettings, optional
        Settings, or a name that `warmup_epochs` belongs to; None is a cosine, or the optimizer's own schedule. One
        that is named takes the place of the optimizer's own.
    clip_norm : float, optional
        Longest gradient; longer ones are shortened to it.
    label_smoothing : float
        In [0, 1).
    class_weights : {"none", "balanced"}
        Whether an image of a rare class weighs more in the loss.
    early_stopping : int, optional
        End after this many epochs without a better one.
    ema : float, optional
        Decay of a moving average of the weights, which is evaluated in their place.
    start : str
        ``scratch``, or a ``.safetensors`` file with weights to start from.

    Raises
    ------
    UsageError
        If a value is unknown or outside its range.
    """
    if isinstance(optimizer, str):
        # A schedule that is named takes the place of Ranger21's own.
        own = False if optimizer == "ranger21" and schedule is not None else None
        optimizer = OptimizerSettings(
            name=optimizer, lr=lr, momentum=momentum, weight_decay=weight_decay, inner_schedule=own
        )
    settings = TrainSettings(
        epochs=epochs,
        optimizer=optimizer,
        schedule=_schedule(schedule, warmup_epochs, optimizer),
        clip_norm=clip_norm,
        label_smoothing=label_smoothing,
        early_stopping=EarlyStopping(patience_epochs=early_stopping) if early_stopping else None,
        ema_decay=ema,
    )
    stage = Stage(
        name=OPTIONS_STAGE,
        settings=settings,
        augmentation=load_augmentation(augment) if isinstance(augment, str) else augment,
        size_px=size_px,
        recipe=recipe,
        batch_size=batch_size,
        sampling=sampling,
        class_weights=class_weights,
        start=_single_start(start),
    )
    return TrainingPlan(name=OPTIONS_STAGE, model_name=model, stages=(stage,))


def _schedule(
    schedule: str | ScheduleSettings | None, warmup_epochs: float, optimizer: OptimizerSettings
) -> ScheduleSettings:
    """Without a name a cosine, unless the optimizer has a schedule of its own."""
    if isinstance(schedule, ScheduleSettings):
        return schedule
    if optimizer.schedules_itself and warmup_epochs:
        raise UsageError(f"--warmup-epochs: {optimizer.name} warms up by itself; add a --schedule in place of its own")
    name = schedule or ("constant" if optimizer.schedules_itself else "cosine")
    return ScheduleSettings(name=name, warmup_epochs=warmup_epochs)


def _single_start(text: str) -> StartWeights:
    start = parse_start(text, Path())
    if start.stage:
        raise UsageError(f"--start {text}: only a plan has stages; use scratch or a .safetensors file")
    return start


def with_evaluation(
    plan: TrainingPlan, *, tta: str | None = None, tta_average: str | None = None, batchnorm: str | None = None
) -> TrainingPlan:
    """Return a plan that is evaluated otherwise; None keeps what it says.

    Parameters
    ----------
    plan
        The plan.
    tta
        Views of each image: see :func:`~leukemia_models.evaluation.settings.parse_tta`.
    tta_average : {"logits", "probabilities"}, optional
        What is averaged over them.
    batchnorm : {"auto", "running", "reestimated"}, optional
        BatchNorm statistics.

    Raises
    ------
    UsageError
        If a value is unknown, or an average is asked for where there is one view.
    """
    judging = plan.judging
    views = parse_tta(tta or str(judging.tta), tta_average or judging.tta.average)
    if tta_average is not None and views.num_views == 1:
        raise UsageError(f"--tta-average {tta_average}: there is only one view of each image; add --tta d4")
    return replace(plan, judging=EvaluationSettings(tta=views, batchnorm=batchnorm or judging.batchnorm))


def with_settings(plan: TrainingPlan, **settings: bool | int) -> TrainingPlan:
    """Return a plan whose stages all have these values of :class:`~leukemia_models.training.run_state.TrainSettings`.

    For what depends on the machine: ``amp``, ``compile``, ``sync_batchnorm``, ``accumulate``.
    """
    changes: dict[str, Any] = settings
    stages = (replace(stage, settings=replace(stage.settings, **changes)) for stage in plan.stages)
    return replace(plan, stages=tuple(stages))


def require_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise UsageError unless `value` is among the known ones."""
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}{did_you_mean(value, known)}; known are {', '.join(known)}")


def require_stage_name(name: str) -> None:
    """Raise UsageError unless a text can name a stage, and its folder."""
    if not _STAGE_NAME.fullmatch(name):
        raise UsageError(
            f"a stage's name is letters, digits, dots, hyphens and underscores, 100 at most, got {name!r:.120}"
        )


def require_plan_name(name: str) -> None:
    """Raise UsageError unless a text can name a plan, and begin the name of its folder."""
    if not _PLAN_NAME.fullmatch(name):
        raise UsageError(
            "a plan's name is up to 100 signs that a file's name may hold, not beginning with a dot, hyphen or blank, "
            f"got {name!r:.120}"
        )


def check_order(stage: Stage, earlier: Sequence[str]) -> None:
    """Raise UsageError if a stage repeats a name, or starts from a stage that is not among those before it."""
    if stage.name in earlier:
        raise UsageError(f"two stages are named {stage.name!r}")
    if stage.start.stage and stage.start.stage not in earlier:
        known = f"before it: {', '.join(earlier)}" if earlier else "it is the first"
        raise UsageError(f"stage {stage.name!r} starts from {stage.start}, which is no stage before it ({known})")


def scaled(plan: TrainingPlan, factor: float) -> TrainingPlan:
    """Return a plan whose lengths in epochs are `factor` times as long, rounded up, for a trial.

    Epochs, warm-up, restarts and patience shrink alike, so that the trial goes through everything the plan would do.

    Raises
    ------
    UsageError
        Unless the factor is a number above 0.
    """
    if not 0 < factor < math.inf:
        raise UsageError(f"epochs-scale must be a number above 0, got {factor}")
    if factor == 1:
        return plan
    stages = tuple(replace(stage, settings=stage.settings.with_epochs_scaled(factor)) for stage in plan.stages)
    text = f"# epochs-scale {factor:g}\n{plan.source_text}" if plan.source_text else ""
    return replace(plan, stages=stages, source_text=text)
