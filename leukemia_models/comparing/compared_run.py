"""Read runs to compare: their epochs, settings and evaluated predictions.

A folder may hold a run, a plan of several stages (its last stage is compared), or a k-fold (compared by its
out-of-fold predictions; its curves are means over the folds).
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from leukemia_data.errors import RunError, UsageError
from leukemia_data.sources.positive_class import positive_of
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_models.comparing.fold_evaluation import OUT_OF_FOLD_PART, POOLED_NAME, find_folds
from leukemia_models.evaluation.bootstrap import SubjectBootstrap, subject_bootstrap
from leukemia_models.evaluation.classification import ClassificationMetrics, classification_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.predictions import evaluated_samples, read_predictions
from leukemia_models.evaluation.subject_level import SubjectLevel, subject_level, subject_samples
from leukemia_models.networks.registry import build_outline, count_parameters, model_names
from leukemia_models.reports.results import read_results
from leukemia_models.reports.style import flattened
from leukemia_models.runs.run_config import RunConfig, load_config
from leukemia_models.runs.run_folder import RunFolder, find_runs, is_kfold, last_run
from leukemia_models.runs.run_split import read_split

_PARTS = ("test", "valid")
_PREDICTIONS_NAME = "predictions.csv"
_NO_SETTINGS = {"format", "format_version", "cache_dir", "stage", "model_name", "positive", "seen_before"}


@dataclass(frozen=True, slots=True)
class EpochAccuracy:
    """Accuracy of one epoch, in [0, 1]; None without validation."""

    train: float
    valid: float | None


@dataclass(frozen=True)
class StageCurve:
    """The epochs of one stage, in order; a run without a plan has one stage without a name."""

    name: str
    epochs: tuple[EpochAccuracy, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedRun:
    """One run of a comparison.

    Parameters
    ----------
    path : Path
        Its folder, as it was named.
    label : str
        Unique name in tables and figures.
    classes : tuple of str
        Of two the negative and the positive class.
    part : str
        The evaluated part, such as ``test`` or ``out-of-fold``.
    stamp : str
        Of its split.
    settings : mapping of str to value
        Settings of the last stage with flat names, such as ``optimizer.lr``.
    samples : EvaluatedSamples
        Evaluated images and their predictions.
    pixel_digests : mapping of str to str
        Of the evaluated images by their ids, as far as ``split.csv`` has them.
    """

    path: Path
    label: str
    model_name: str
    classes: tuple[str, ...]
    part: str
    stamp: str
    stages: tuple[StageCurve, ...]
    settings: Mapping[str, Any]
    samples: EvaluatedSamples
    pixel_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def positive(self) -> str | None:
        """The positive class of two; None of more."""
        return positive_of(self.classes)

    @property
    def is_patient_mixed(self) -> bool:
        """Whether its split is not subject-disjoint."""
        return not is_disjoint_stamp(self.stamp)

    @property
    def marked_label(self) -> str:
        """Its label, marked if patients are mixed."""
        return f"{self.label} (patient-mixed)" if self.is_patient_mixed else self.label

    @cached_property
    def num_parameters(self) -> int | None:
        """Trainable parameters of its network; None for an unknown network."""
        if self.model_name not in model_names():
            return None
        return count_parameters(build_outline(self.model_name, len(self.classes)))

    @cached_property
    def metrics(self) -> ClassificationMetrics:
        """Per image, at the threshold 0.5."""
        return classification_metrics(self.samples.labels_N, self.samples.probabilities_NK, self.classes)

    @cached_property
    def intervals(self) -> SubjectBootstrap:
        """Intervals of the metrics per image, by resampling subjects."""
        return subject_bootstrap(self.samples, classes=self.classes)

    @cached_property
    def subject_level(self) -> SubjectLevel:
        """Metrics per subject."""
        return subject_level(self.samples, self.classes)

    @cached_property
    def subject_samples(self) -> EvaluatedSamples | None:
        """One row per subject, with its mean probability; None if no subject is known."""
        return subject_samples(self.samples, "mean")

    @cached_property
    def subject_intervals(self) -> SubjectBootstrap | None:
        """Intervals of the metrics per subject."""
        return subject_bootstrap(self.subject_samples, classes=self.classes) if self.subject_samples else None


def read_compared_runs(paths: Sequence[Path], part: str = "test") -> list[ComparedRun]:
    """Read two or more runs, plans and k-folds to compare.

    Parameters
    ----------
    part
        The evaluated part to compare; of a k-fold always its out-of-fold predictions.

    Raises
    ------
    UsageError
        If there are fewer than two, one is named twice, or a part holds no labelled image.
    RunError
        If a folder holds no run, or the part was not evaluated.
    """
    if len(paths) < 2:
        raise UsageError("name two runs or more to compare")
    resolved = [path.resolve() for path in paths]
    twice = [path for number, path in enumerate(paths) if resolved[number] in resolved[:number]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice")
    configs = [load_config(last_run(find_folds(path)[0] if is_kfold(path) else path)) for path in paths]
    labels = _labels(paths, [config.model_name for config in configs])
    return [
        _read_kfold(path, label, config) if is_kfold(path) else _read_run(path, label, config, part)
        for path, label, config in zip(paths, labels, configs, strict=True)
    ]


def _labels(paths: Sequence[Path], model_names: Sequence[str]) -> list[str]:
    """Return the networks' names if they are unique, else the shortest ends of the paths that are."""
    if len(set(model_names)) == len(model_names):
        return list(model_names)
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _read_run(path: Path, label: str, config: RunConfig, part: str) -> ComparedRun:
    stages = _read_curves(path)
    if not stages:
        raise RunError(f"{path} has no finished epoch to compare")
    folder = last_run(path)
    if not (folder.part(part) / _PREDICTIONS_NAME).is_file():
        others = [name for name in _PARTS if (folder.part(name) / _PREDICTIONS_NAME).is_file()]
        advice = f"compare by --part {others[0]}, or evaluate" if others else "evaluate"
        raise RunError(f"{folder.root} was not evaluated on its part {part}: {advice} it first, with `ltrain evaluate`")
    return _compared(path, label, config, folder.part(part), part, stages, [folder])


def _read_kfold(path: Path, label: str, config: RunConfig) -> ComparedRun:
    folds = find_folds(path)
    curves, folders = mean_curves(list(map(_read_curves, folds))), list(map(last_run, folds))
    run = _compared(path, label, config, path / POOLED_NAME, OUT_OF_FOLD_PART, curves, folders)
    # Every fold is normalised with its own training images.
    shared = {name: value for name, value in run.settings.items() if not name.startswith("normalization.")}
    return replace(run, settings=shared)


def _read_curves(path: Path) -> tuple[StageCurve, ...]:
    runs = [run for run in find_runs(path) if run.history.is_file()]
    return tuple(StageCurve(load_config(run).stage, read_accuracies(run.history)) for run in runs)


def _compared(
    path: Path,
    label: str,
    config: RunConfig,
    part_dir: Path,
    part: str,
    stages: tuple[StageCurve, ...],
    folders: Sequence[RunFolder],
) -> ComparedRun:
    results = read_results(part_dir / "results.json")
    classes = tuple(results["classes"])
    table = read_predictions(part_dir / _PREDICTIONS_NAME, classes)
    try:
        samples = evaluated_samples(table, classes)
    except UsageError as error:
        raise UsageError(f"{part_dir}: {error}; compare by a part with labels, such as --part valid") from None
    settings = {name: results["settings"].get(name) for name in ("size_px", "recipe")} | _settings(config, stages)
    settings["split"] = results["split"]["kind"]
    return ComparedRun(
        path=path,
        label=label,
        model_name=config.model_name,
        classes=classes,
        part=part,
        stamp=results["split"]["stamp"],
        stages=stages,
        settings=settings,
        samples=samples,
        pixel_digests=_pixel_digests(folders, frozenset(samples.ids)),
    )


def _pixel_digests(folders: Sequence[RunFolder], ids: frozenset[str]) -> dict[str, str]:
    splits = (read_split(folder.split) for folder in folders if folder.split.is_file())
    known = (item for rows in splits for item in rows.items())
    return {record_id: row.pixel_digest for record_id, row in known if record_id in ids and row.pixel_digest}


def _settings(config: RunConfig, stages: Sequence[StageCurve]) -> dict[str, Any]:
    """Return the settings of a run with flat names, digests and lists of numbers shortened for a table."""
    values: dict[str, Any] = {
        "stages": ", ".join(f"{stage.name} ({len(stage.epochs)} epochs)".strip() for stage in stages)
    }
    for name, value in flattened({key: value for key, value in config.to_dict().items() if key not in _NO_SETTINGS}):
        short: Any = value
        if name in ("data_fingerprint", "data_digest"):
            short = str(value)[:12]
        elif isinstance(value, list | tuple):
            short = [round(item, 4) if isinstance(item, float) else item for item in value]
        values[name.removeprefix("settings.")] = short
    return values


def read_accuracies(path: Path) -> tuple[EpochAccuracy, ...]:
    """Read the accuracies of a run's ``history.csv``.

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return tuple(
            EpochAccuracy(
                _accuracy(row["train_accuracy"]), _accuracy(text) if (text := row["valid_accuracy"]) else None
            )
            for row in rows
        )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def _accuracy(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(f"an accuracy of {text}")
    return number


def mean_curves(folds: Sequence[Sequence[StageCurve]]) -> tuple[StageCurve, ...]:
    """Average the curves of several folds, stage by stage, over the epochs that all of them have."""
    stages = zip(*folds, strict=False)
    return tuple(
        StageCurve(
            same_stage[0].name, tuple(map(_mean_epoch, zip(*(fold.epochs for fold in same_stage), strict=False)))
        )
        for same_stage in stages
    )


def _mean_epoch(epochs: Sequence[EpochAccuracy]) -> EpochAccuracy:
    valid = [epoch.valid for epoch in epochs if epoch.valid is not None]
    return EpochAccuracy(
        statistics.fmean(epoch.train for epoch in epochs),
        statistics.fmean(valid) if len(valid) == len(epochs) else None,
    )
