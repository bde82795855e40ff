"""Training plans as TOML: a shipped plan's name or a file in, a checked plan out; a fault is named by its line.

::

    description = "ResNet-50 at 128 px, then at 224 px from the best weights"
    model = "resnet50"
    folds = 5                      # for `ltrain kfold`

    [judging]
    tta = "d4"                     # none, d4, rotations:N
    batchnorm = "auto"             # auto, running, reestimated

    [defaults]                     # what every stage has unless it says otherwise
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
    epochs = 100
    start = "best:small"
    optimizer.lr = 0.0005
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.errors import UsageError
from leukemia_data.files.documents import KeyPath, find_line, parse_toml
from leukemia_models.evaluation.settings import parse_tta
from leukemia_models.networks.registry import NETWORKS
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.training_plan import (
    CLASS_WEIGHTINGS,
    SAMPLINGS,
    SCRATCH,
    EvaluationSettings,
    Stage,
    TrainingPlan,
    check_order,
    parse_start,
    require_one_of,
    require_plan_name,
    require_stage_name,
)

PLANS_DIR = Path(__file__).parent / "plans"
_PLAN_KEYS = ("name", "description", "model", "folds", "judging", "defaults", "stage")
_TABLES: Mapping[str, type[OptimizerSettings] | type[ScheduleSettings] | type[EarlyStopping]] = {
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "early_stopping": EarlyStopping,
}
_SWITCHES: Mapping[str, Any] = {
    "epochs": int,
    "amp": bool,
    "channels_last": bool,
    "compile": bool,
    "clip_norm": float,
    "label_smoothing": float,
    "ema_decay": float,
    "sync_batchnorm": bool,
    "accumulate": int,
}
_STREAM_KEYS: Mapping[str, Any] = {"size": int, "recipe": str, "batch_size": int, "sampling": str, "class_weights": str}
_STAGE_KEYS = ("name", "start", "augment", *_STREAM_KEYS, *_SWITCHES, *_TABLES)
_Settings = OptimizerSettings | ScheduleSettings | EarlyStopping


def plan_names() -> list[str]:
    """Names of the shipped plans."""
    return sorted(path.stem for path in PLANS_DIR.glob("*.toml"))


def plan_path(name_or_path: str) -> Path:
    """Return the file of a shipped plan by name, or the user's own when the argument ends in ``.toml``.

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
    """Read and check a plan.

    Raises
    ------
    UsageError
        With the file, the line and what is wrong there.
    """
    path = plan_path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = parse_toml(text)
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    try:
        return replace(_parse_plan(table, path), source_text=text)
    except _Fault as fault:
        line = find_line(text, _written_at(fault.keys, table))
        where = f"{path}, line {line}" if line is not None else str(path)
        raise UsageError(f"{where}: {fault}") from None


class _Fault(UsageError):
    """What is wrong with the value at `keys`."""

    def __init__(self, keys: KeyPath, message: str) -> None:
        super().__init__(message)
        self.keys = keys


@contextmanager
def _at(*keys: str | int) -> Iterator[None]:
    """Give an error of the block the place it belongs to, unless it knows one already."""
    try:
        yield
    except _Fault:
        raise
    except UsageError as error:
        raise _Fault(keys, str(error)) from None


def _written_at(keys: KeyPath, table: Mapping[str, Any]) -> KeyPath:
    """Where a stage's value is written: in the stage, or in the defaults."""
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


def _parse_plan(table: Mapping[str, Any], path: Path) -> TrainingPlan:
    _check_keys(table, _PLAN_KEYS, ())
    _require_key(table, "model", ())
    with _at("model"):
        model_name = _coerced(table["model"], str, "model")
        NETWORKS.get(model_name)
    defaults = _table(table.get("defaults", {}), ("defaults",))
    _check_keys(defaults, [key for key in _STAGE_KEYS if key not in ("name", "start")], ("defaults",))
    stages: list[Stage] = []
    for number, own in enumerate(_entries(table)):
        keys = ("stage", number)
        _check_keys(own, _STAGE_KEYS, keys)
        stage = _parse_stage(_merged(defaults, own), path.parent, number)
        earlier = [stage.name for stage in stages]
        with _at(*keys, "name" if stage.name in earlier else "start"):
            check_order(stage, earlier)
        stages.append(stage)
    with _at("name"):
        name = _coerced(table.get("name", path.stem), str, "name")
        require_plan_name(name)
    with _at("folds"):
        num_folds = _coerced(table["folds"], int, "folds") if "folds" in table else None
        return TrainingPlan(
            name=name,
            description=str(table.get("description", "")),
            model_name=model_name,
            stages=tuple(stages),
            judging=_parse_evaluation(_table(table.get("judging", {}), ("judging",))),
            num_folds=num_folds,
        )


def _entries(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = table.get("stage", [])
    if not isinstance(entries, list) or not entries:
        raise _Fault(("stage",), "a plan needs its stages, each as a [[stage]] table")
    return [_table(entry, ("stage", number)) for number, entry in enumerate(entries)]


def _parse_evaluation(table: Mapping[str, Any]) -> EvaluationSettings:
    _check_keys(table, ("tta", "tta_average", "batchnorm"), ("judging",))
    with _at("judging", "tta_average" if "tta_average" in table else "tta"):
        tta = parse_tta(
            _coerced(table.get("tta", "none"), str, "tta"),
            _coerced(table.get("tta_average", "logits"), str, "tta_average"),
        )
    with _at("judging", "batchnorm"):
        return EvaluationSettings(tta=tta, batchnorm=_coerced(table.get("batchnorm", "auto"), str, "batchnorm"))


def _parse_stage(table: Mapping[str, Any], folder: Path, number: int) -> Stage:
    keys: KeyPath = ("stage", number)
    _require_key(table, "epochs", keys)
    stream = {key: _value(table, key, hint, keys) for key, hint in _STREAM_KEYS.items() if key in table}
    for key, known in (("sampling", SAMPLINGS), ("class_weights", CLASS_WEIGHTINGS)):
        with _at(*keys, key):
            require_one_of(key, stream.get(key, known[0]), known)
    with _at(*keys, "augment"):
        augmentation = load_augmentation(_augment_file(_coerced(table.get("augment", "flips"), str, "augment"), folder))
    with _at(*keys, "start"):
        start = parse_start(_coerced(table.get("start", SCRATCH), str, "start"), folder)
    size_px = stream.pop("size", None)
    settings = _parse_settings(table, keys)
    name = _value(table, "name", str, keys) if "name" in table else f"stage{number + 1}"
    with _at(*keys, "name"):
        require_stage_name(name)
    with _at(*keys, "batch_size"):
        return Stage(name=name, settings=settings, augmentation=augmentation, start=start, size_px=size_px, **stream)


def _augment_file(name: str, folder: Path) -> str:
    """A file of augmentations lies beside the plan; a preset has no ending."""
    return str(folder / name) if name.endswith(".toml") else name


def _parse_settings(table: Mapping[str, Any], keys: KeyPath) -> TrainSettings:
    parts: dict[str, Any] = {
        key: _parse_fields(kind, table[key], (*keys, key)) for key, kind in _TABLES.items() if key in table
    }
    switches = {key: _value(table, key, hint, keys) for key, hint in _SWITCHES.items() if key in table}
    # Each alone first, so that the line at fault is its own; then all together.
    for key, value in switches.items():
        with _at(*keys, key):
            TrainSettings(**{"epochs": 1, key: value})
    with _at(*keys, next((key for key in ("schedule", "optimizer") if key in table), "epochs")):
        return TrainSettings(**parts, **switches)


def _parse_fields(kind: type[_Settings], table: object, keys: KeyPath) -> _Settings:
    """Build a settings object from a table, naming the key at fault."""
    given = _table(table, keys)
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    _check_keys(given, known, keys)
    for field in fields(kind):
        if field.default is MISSING and field.default_factory is MISSING:
            _require_key(given, field.name, keys)
    values = {key: _value(given, key, hints[key], keys) for key in given}
    blame = next((key for key in values if key != "name" and _is_at_fault(kind, values, key)), None)
    with _at(*keys, *([blame] if blame else ["name"] if "name" in values else [])):
        return kind(**values)


def _is_at_fault(kind: type[_Settings], values: Mapping[str, Any], key: str) -> bool:
    """Whether the values are refused, and accepted without this one."""
    return not _is_accepted(kind, values) and _is_accepted(kind, {k: v for k, v in values.items() if k != key})


def _is_accepted(kind: type[_Settings], values: Mapping[str, Any]) -> bool:
    try:
        kind(**values)
    except (UsageError, TypeError):
        return False
    return True


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's own keys over the defaults; in tables key by key, unless another optimizer or schedule is named."""
    merged = {**defaults, **own}
    for key in _TABLES:
        default, table = defaults.get(key), own.get(key)
        if (
            isinstance(default, Mapping)
            and isinstance(table, Mapping)
            and table.get("name", default.get("name")) == default.get("name")
        ):
            merged[key] = {**default, **table}
    return merged


def _check_keys(table: Mapping[str, Any], known: list[str] | tuple[str, ...], keys: KeyPath) -> None:
    for key in table:
        if key not in known:
            raise _Fault((*keys, key), f"unknown key {key!r}; known here are {', '.join(known)}")


def _require_key(table: Mapping[str, Any], key: str, keys: KeyPath) -> None:
    if key not in table:
        raise _Fault(keys, f"{key} is missing")


def _table(value: object, keys: KeyPath) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Fault(keys, f"expected a table, got {value!r}")
    return cast(Mapping[str, Any], value)


def _value(table: Mapping[str, Any], key: str, hint: object, keys: KeyPath) -> Any:  # noqa: ANN401 - as the hint says
    with _at(*keys, key):
        return _coerced(table[key], hint, key)


def _coerced(value: object, hint: object, name: str) -> Any:  # noqa: ANN401 - as the hint says
    """Return a TOML value as the type its field has, or say what was expected."""
    if get_origin(hint) in (Union, UnionType):
        [hint] = [option for option in get_args(hint) if option is not NoneType]
    if hint is float and isinstance(value, float):
        return value
    # TOML's whole numbers have 64 bits; Python's parser reads longer ones, which cannot become floats.
    if hint in (int, float) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value) if hint is float else value
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_coerced(item, get_args(hint)[0], name) for item in value)
    if hint in (bool, str) and isinstance(value, cast(type, hint)):
        return value
    expected = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise UsageError(f"{name} must be {expected.get(cast(type, hint), 'a list of numbers')}, got {value!r:.60}")
