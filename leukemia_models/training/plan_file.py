"""Training plans in TOML files. Errors name file and line.

::

    description = "ResNet-50 at 128 px, then at 224 px from the best weights"
    model = "resnet50"
    folds = 5                      # for `ltrain kfold`

    [judging]
    tta = "d4"                     # none, d4, rotations:N
    batchnorm = "auto"             # auto, running, reestimated

    [defaults]                     # for stages that do not have the key
    recipe = "report-a"
    augment = "report-a"
    optimizer = { name = "sgd", lr = 0.005 }

    [[stage]]
    name = "small"
    size = 128
    epochs = 550

    [[stage]]
    name = "large"
    size = 224
    sizes = [[128, 40], [224, 60]]   # instead of epochs: at 128 px, then at 224, from the cache of 224
    start = "best:small"
    optimizer.lr = 0.0005
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.errors import UsageError
from leukemia_data.files.documents import KeyPath
from leukemia_data.files.typed_tables import TableFault, at, locate, parse_table, read_toml
from leukemia_models.devices.precision import AMP, AUTO, FP32
from leukemia_models.evaluation.settings import parse_tta
from leukemia_models.networks.registry import NETWORKS
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.image_sizes import run_length
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.training_plan import (
    SCRATCH,
    UNIFORM,
    EvaluationSettings,
    Stage,
    StartWeights,
    TrainingPlan,
    check_order,
    parse_start,
    require_one_of,
    require_plan_name,
)

PLANS_DIR = Path(__file__).parent / "plans"
_PAIRS = "a list of pairs [side in px, epochs]"


@dataclass(frozen=True, kw_only=True)
class _EvaluationTable:
    """The table ``[judging]``."""

    tta: str = "none"
    tta_average: str = "logits"
    batchnorm: str = "auto"

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> EvaluationSettings:
        return EvaluationSettings(tta=parse_tta(self.tta, self.tta_average), batchnorm=self.batchnorm)


@dataclass(frozen=True, kw_only=True)
class _StageTable:
    """A ``[[stage]]`` table over ``[defaults]``."""

    epochs: int | None = None
    sizes: Annotated[tuple[Annotated[tuple[int, int], _PAIRS], ...] | None, _PAIRS] = None
    name: str | None = None
    start: str = SCRATCH
    augment: str = "flips"
    size: int | None = None
    recipe: str | None = None
    batch_size: int = 64
    sampling: str = UNIFORM
    class_weights: str = "none"
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    early_stopping: EarlyStopping | None = None
    precision: str | None = None
    amp: bool | None = None  # of version 0.1
    tf32: bool = True
    channels_last: bool = True
    compile: bool = False
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    sync_batchnorm: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        # Checks all values but names of files, while errors can still name the key.
        self.stage(self.name or "stage", Augmentation(name="none"), StartWeights())

    def stage(self, name: str, augmentation: Augmentation, start: StartWeights) -> Stage:
        if self.amp is not None and self.precision is not None:
            raise UsageError("amp is an earlier name of precision: leave it out")
        precision = self.precision or {None: AUTO, True: AMP, False: FP32}[self.amp]
        epochs = run_length(self.epochs, self.sizes)
        if epochs is None:
            raise UsageError("epochs is missing: write epochs = 30, or sizes = [[64, 5], [96, 4], [128, 3]]")
        settings = {each.name for each in fields(TrainSettings)} - {"class_weights", "epochs", "precision"}
        own = {key: value for key, value in vars(self).items() if key in settings}
        return Stage(
            name=name,
            settings=TrainSettings(epochs=epochs, precision=precision, **own),
            augmentation=augmentation,
            size_px=self.size,
            recipe=self.recipe,
            batch_size=self.batch_size,
            sampling=self.sampling,
            class_weights=self.class_weights,
            start=start,
        )


@dataclass(frozen=True, kw_only=True)
class _PlanTable:
    """The file of a plan, with unparsed stages."""

    model: str
    name: str | None = None
    description: str = ""
    folds: int | None = None
    judging: _EvaluationTable = field(default_factory=_EvaluationTable)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    stage: tuple[Mapping[str, Any], ...] = ()


def plan_names() -> list[str]:
    """Return the names of the shipped plans."""
    return sorted(path.stem for path in PLANS_DIR.glob("*.toml"))


def plan_path(name_or_path: str) -> Path:
    """Return the path of a shipped plan, or the argument itself if it ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such plan or file.
    """
    if not name_or_path.endswith(".toml"):
        require_one_of("plan", name_or_path, [*plan_names(), "any file that ends in .toml"])
        return PLANS_DIR / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(f"plan file not found: {path}")
    return path


def load_plan(name_or_path: str) -> TrainingPlan:
    """Read a shipped plan by name, or a ``.toml`` file.

    Raises
    ------
    UsageError
        If there is no such plan, or a value is wrong; with file and line.
    """
    path = plan_path(name_or_path)
    document = read_toml(path)
    with locate(str(path), document.text):
        try:
            plan = _parse_plan(parse_table(_PlanTable, document.table), path)
        except TableFault as fault:
            raise TableFault(_written_at(fault.keys, document.table), str(fault)) from None
    return replace(plan, source_text=document.text)


def _parse_plan(table: _PlanTable, path: Path) -> TrainingPlan:
    with at("model"):
        NETWORKS.get(table.model)
    if not table.stage:
        raise TableFault(("stage",), "a plan needs its stages, each as a [[stage]] table")
    for key in ("name", "start"):
        if key in table.defaults:
            raise TableFault(("defaults", key), f"{key} cannot be the same for all stages: write it in a [[stage]]")
    stages: list[Stage] = []
    for number, own in enumerate(table.stage):
        with at("stage", number):
            stages.append(_parse_stage(_merged(table.defaults, own), path.parent, number, stages))
    name = path.stem if table.name is None else table.name
    with at("name"):
        require_plan_name(name)
    with at("folds"):
        return TrainingPlan(
            name=name,
            description=table.description,
            model_name=table.model,
            stages=tuple(stages),
            evaluation=table.judging.settings(),
            num_folds=table.folds,
        )


def _parse_stage(values: Mapping[str, Any], folder: Path, number: int, before: list[Stage]) -> Stage:
    table = parse_table(_StageTable, values)
    with at("augment"):
        # A file is relative to the plan; a preset has no ending.
        is_file = table.augment.endswith(".toml")
        augmentation = load_augmentation(str(folder / table.augment) if is_file else table.augment)
    with at("start"):
        start = parse_start(table.start, folder)
    stage = table.stage(f"stage{number + 1}" if table.name is None else table.name, augmentation, start)
    earlier = [each.name for each in before]
    with at("name" if stage.name in earlier else "start"):
        check_order(stage, earlier)
    return stage


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a stage's keys into the defaults; tables key by key, unless they name another optimizer or schedule."""
    merged = {**defaults, **own}
    for key in ("optimizer", "schedule", "early_stopping"):
        default, table = defaults.get(key), own.get(key)
        if isinstance(default, Mapping) and isinstance(table, Mapping):
            name = default.get("name")
            merged[key] = {**default, **table} if table.get("name", name) == name else table
    return merged


def _written_at(keys: KeyPath, table: Mapping[str, Any]) -> KeyPath:
    """Return the place of a stage's value: in the stage, or in the defaults."""
    if keys[:1] != ("stage",) or len(keys) < 3 or _holds(table, keys):
        return keys
    default = ("defaults", *keys[2:])
    return default if _holds(table, default) else keys


def _holds(table: Any, keys: KeyPath) -> bool:  # noqa: ANN401 - any TOML value
    for key in keys:
        if isinstance(key, str) and (not isinstance(table, Mapping) or key not in table):
            return False
        table = table[key]
    return True
