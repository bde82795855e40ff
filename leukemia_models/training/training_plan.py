"""Training plans: a network, its stages, and how it is evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.errors import UsageError
from leukemia_data.registry import did_you_mean
from leukemia_models.devices.precision import AMP
from leukemia_models.devices.precision import AUTO as AUTO_PRECISION
from leukemia_models.evaluation.settings import AUTO, NO_TTA, Tta, parse_tta, require_batchnorm_mode
from leukemia_models.networks.registry import NETWORKS
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.image_sizes import as_sizes, last_px, run_length, sizes_text
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a trained network is evaluated.

    Parameters
    ----------
    tta : Tta
        Test-time augmentation.
    batchnorm : {"auto", "running", "reestimated"}
        BatchNorm statistics; "auto" uses re-estimated ones where they are better. Otherwise UsageError is raised.
    """

    tta: Tta = NO_TTA
    batchnorm: str = AUTO

    def __post_init__(self) -> None:
        require_batchnorm_mode(self.batchnorm)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"tta": self.tta.to_dict(), "batchnorm": self.batchnorm}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationSettings:
        """Return what :meth:`to_dict` wrote, with defaults for missing values; raise UsageError for wrong values."""
        if not isinstance(values, Mapping):
            raise UsageError(f"evaluation settings must be a mapping, got {values!r:.60}")
        tta = Tta.from_dict(values["tta"]) if "tta" in values else NO_TTA
        return cls(tta=tta, batchnorm=values.get("batchnorm", AUTO))


UNIFORM, CLASS_BALANCED, SUBJECT_BALANCED = "uniform", "class-balanced", "subject-balanced"
SAMPLINGS = (UNIFORM, CLASS_BALANCED, SUBJECT_BALANCED)
CLASS_WEIGHTINGS = ("none", "balanced")
SCRATCH: Literal["scratch"] = "scratch"
SAFETENSORS, TORCH_SUFFIXES = ".safetensors", (".pth", ".pt", ".bin", ".ckpt")
"""Of files to start from; the latter are read as torch writes them, without running code."""
DEFAULT_EPOCHS = 30
OPTIONS_STAGE = "options"
"""Name of the only stage of a plan without a file."""
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLAN_NAME = re.compile(r"(?![.\s-])[^\x00-\x1f\x7f-\x9f/\\<>:\"|?*]{1,100}")


@dataclass(frozen=True)
class StartWeights:
    """The first weights of a stage.

    Parameters
    ----------
    kind : {"scratch", "best", "last", "file"}
        Drawn from the seed; of the best or the last epoch of an earlier stage; or of a file.
    stage : str
        Name of the earlier stage.
    path : Path, optional
        A checkpoint, or a file of a network's tensors, see :mod:`leukemia_models.training.start_file`.
    """

    kind: Literal["scratch", "best", "last", "file"] = SCRATCH
    stage: str = ""
    path: Path | None = None

    def __str__(self) -> str:
        if self.kind == "file":
            return str(self.path)
        return f"{self.kind}:{self.stage}" if self.stage else self.kind


def parse_start(text: str, folder: Path) -> StartWeights:
    """Parse ``scratch``, ``best:STAGE``, ``last:STAGE`` or a file of weights, relative to `folder`.

    Raises
    ------
    UsageError
        If the text is none of them, or the file does not exist.
    """
    if text == SCRATCH:
        return StartWeights()
    kind, _, stage = text.partition(":")
    if kind in ("best", "last") and stage:
        return StartWeights("best" if kind == "best" else "last", stage)
    suffixes = (SAFETENSORS, *TORCH_SUFFIXES)
    if not text.lower().endswith(suffixes):
        known = ", ".join(suffixes)
        raise UsageError(f"start {text!r}: use scratch, best:STAGE, last:STAGE or a file of weights ({known})")
    path = folder / text
    if not path.is_file():
        raise UsageError(f"there is no file {path} to start from")
    return StartWeights("file", path=path)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of a training plan, with one cache and one optimizer.

    Parameters
    ----------
    name : str
        Letters, digits, dots, hyphens and underscores; also the name of a folder.
    settings : TrainSettings
        The run sets its seed and class weights.
    augmentation : Augmentation
        For training images.
    size_px, recipe : int and str, optional
        Image side and recipe of the cache, to choose among several.
    batch_size : int
        Images per step over all ranks, at least 2.
    sampling : {"uniform", "class-balanced", "subject-balanced"}
        How often each training image is drawn.
    class_weights : {"none", "balanced"}
        Whether the loss weights classes by the inverse of their frequency in the training images.
    start : StartWeights

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
        if not _STAGE_NAME.fullmatch(self.name):
            raise UsageError(
                f"a stage's name is letters, digits, dots, hyphens and underscores, 100 at most, got {self.name!r:.120}"
            )
        if self.batch_size < 2:
            raise UsageError(f"batch_size must be at least 2, got {self.batch_size}")
        require_one_of("sampling", self.sampling, SAMPLINGS)
        require_one_of("class_weights", self.class_weights, CLASS_WEIGHTINGS)
        sizes = self.settings.sizes
        if sizes is not None and self.size_px not in (None, last_px(sizes)):
            raise UsageError(
                f"sizes {sizes_text(sizes)} end at {last_px(sizes)} px, and size is {self.size_px}: the last of sizes "
                "is the cache's size, so leave size out"
            )

    @property
    def cache_size_px(self) -> int | None:
        """Image side of the cache; None if any will do."""
        sizes = self.settings.sizes
        return self.size_px if sizes is None else last_px(sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
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
    """A network, the stages of its training, and how it is evaluated.

    Parameters
    ----------
    name, description : str
        The name also begins the name of a folder.
    model_name : str
        One of :func:`~leukemia_models.networks.registry.model_names`.
    stages : tuple of Stage
        At least one, in order; each starts from scratch, a file, or an earlier stage.
    evaluation : EvaluationSettings
        For every stage.
    num_folds : int, optional
        Number of folds of a cross-validation, at least 2.
    source_text : str
        Content of the plan's file; empty without one.

    Raises
    ------
    UsageError
        If a name is unknown or used twice, or a stage starts from one that is not before it.
    """

    name: str
    model_name: str
    stages: tuple[Stage, ...]
    description: str = ""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
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
        """Whether each stage is a run in its own folder; a plan without a file is a single run."""
        return len(self.stages) > 1 or self.stages[0].name != OPTIONS_STAGE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields but `source_text` as JSON values."""
        return {
            "name": self.name,
            "description": self.description,
            "model": self.model_name,
            "folds": self.num_folds,
            "judging": self.evaluation.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def warnings(self) -> list[str]:
        """Return the warnings of the stages, each once."""
        found = {text for stage in self.stages for text in stage.augmentation.warnings()}
        if any(stage.settings.precision == AMP for stage in self.stages):
            found.add('amp is deprecated and will go: write precision = "auto", or --precision auto')
        return sorted(found)


class StageArguments(TypedDict, total=False):
    """Arguments of :class:`Stage`."""

    size_px: int | None
    recipe: str | None
    batch_size: int
    sampling: str
    class_weights: str


def single_stage_plan(
    *,
    model: str = "resnet18",
    epochs: int | None = None,
    sizes: str | Sequence[Sequence[int]] | None = None,
    augment: str | Augmentation = "flips",
    optimizer: str | OptimizerSettings = "sgd",
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    schedule: str | ScheduleSettings | None = None,
    warmup_epochs: float = 0.0,
    clip_norm: float | None = None,
    label_smoothing: float = 0.0,
    early_stopping: int | None = None,
    ema: float | None = None,
    precision: str = AUTO_PRECISION,
    tf32: bool = True,
    start: str = SCRATCH,
    **stage: Unpack[StageArguments],
) -> TrainingPlan:
    """Return a plan of one stage without a file; raise UsageError for wrong values.

    Parameters
    ----------
    epochs : int, optional
        The sum of `sizes` by default, else 30.
    sizes : str or pairs of ints, optional
        Progressive sizes, such as ``64:5,96:4,128:3`` or ``[(64, 5), (96, 4), (128, 3)]``: side in px, and epochs.
    augment : str or Augmentation
        Preset or file, see :func:`~leukemia_data.augmenting.augmentation.load_augmentation`.
    optimizer, schedule : str or settings
        A name takes `lr`, `momentum` and `weight_decay`, or `warmup_epochs`. The default schedule is the optimizer's
        own, else a cosine.
    early_stopping : int, optional
        Patience in epochs.
    start : str
        ``scratch`` or a ``.safetensors`` file.
    model, clip_norm, label_smoothing, ema, precision, tf32, **stage
        As in :class:`TrainingPlan`, :class:`TrainSettings` and :class:`Stage`.
    """
    if isinstance(optimizer, str):
        own = False if optimizer == "ranger21" and schedule is not None else None
        optimizer = OptimizerSettings(
            name=optimizer, lr=lr, momentum=momentum, weight_decay=weight_decay, inner_schedule=own
        )
    steps = as_sizes(sizes)
    length = run_length(epochs, steps)
    settings = TrainSettings(
        epochs=DEFAULT_EPOCHS if length is None else length,
        sizes=steps,
        optimizer=optimizer,
        schedule=_schedule(schedule, warmup_epochs, optimizer),
        clip_norm=clip_norm,
        label_smoothing=label_smoothing,
        early_stopping=EarlyStopping(patience_epochs=early_stopping) if early_stopping else None,
        ema_decay=ema,
        precision=precision,
        tf32=tf32,
    )
    weights = parse_start(start, Path())
    if weights.stage:
        raise UsageError(f"--start {start}: only a plan has stages; use scratch or a file of weights")
    augmentation = load_augmentation(augment) if isinstance(augment, str) else augment
    only = Stage(name=OPTIONS_STAGE, settings=settings, augmentation=augmentation, start=weights, **stage)
    return TrainingPlan(name=OPTIONS_STAGE, model_name=model, stages=(only,))


def _schedule(
    schedule: str | ScheduleSettings | None, warmup_epochs: float, optimizer: OptimizerSettings
) -> ScheduleSettings:
    if isinstance(schedule, ScheduleSettings):
        return schedule
    if optimizer.schedules_itself and warmup_epochs:
        raise UsageError(f"--warmup-epochs: {optimizer.name} warms up by itself; add a --schedule to replace its own")
    name = schedule or ("constant" if optimizer.schedules_itself else "cosine")
    return ScheduleSettings(name=name, warmup_epochs=warmup_epochs)


def with_evaluation(
    plan: TrainingPlan, *, tta: str | None = None, tta_average: str | None = None, batchnorm: str | None = None
) -> TrainingPlan:
    """Return a plan with other :class:`EvaluationSettings`; None keeps a value.

    Parameters
    ----------
    plan : TrainingPlan
    tta, tta_average : str, optional
        Arguments of :func:`~leukemia_models.evaluation.settings.parse_tta`.
    batchnorm : {"auto", "running", "reestimated"}, optional

    Raises
    ------
    UsageError
        If a value is unknown, or `tta_average` is given for a single view.
    """
    before = plan.evaluation
    views = parse_tta(tta or str(before.tta), tta_average or before.tta.average)
    if tta_average is not None and views.num_views == 1:
        raise UsageError(f"--tta-average {tta_average}: there is only one view of each image; add --tta d4")
    return replace(plan, evaluation=EvaluationSettings(tta=views, batchnorm=batchnorm or before.batchnorm))


def with_settings(plan: TrainingPlan, **settings: bool | int | str) -> TrainingPlan:
    """Return a plan with these :class:`~leukemia_models.training.run_state.TrainSettings` in all stages.

    For settings that depend on the machine: ``precision``, ``tf32``, ``compile``, ``sync_batchnorm``, ``accumulate``.
    """
    changes: dict[str, Any] = settings
    stages = (replace(stage, settings=replace(stage.settings, **changes)) for stage in plan.stages)
    return replace(plan, stages=tuple(stages))


def require_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise UsageError unless `value` is one of the known ones."""
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}{did_you_mean(value, known)}; known are {', '.join(known)}")


def require_plan_name(name: str) -> None:
    """Raise UsageError unless a plan, and the beginning of a folder's name, may have this name."""
    if not _PLAN_NAME.fullmatch(name):
        raise UsageError(
            "a plan's name is up to 100 characters of a file name, not beginning with a dot, hyphen or blank, got "
            f"{name!r:.120}"
        )


def check_order(stage: Stage, earlier: Sequence[str]) -> None:
    """Raise UsageError if a stage has the name of an earlier one, or starts from a stage that is not earlier."""
    if stage.name in earlier:
        raise UsageError(f"two stages are named {stage.name!r}")
    if stage.start.stage and stage.start.stage not in earlier:
        known = f"before it: {', '.join(earlier)}" if earlier else "it is the first"
        raise UsageError(f"stage {stage.name!r} starts from {stage.start}, which is no stage before it ({known})")


def scaled(plan: TrainingPlan, factor: float) -> TrainingPlan:
    """Return a plan with epochs, warm-up, restarts and patience scaled by `factor`, such as for a short trial.

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
