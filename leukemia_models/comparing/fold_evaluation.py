"""Evaluate a cross-validation: each fold by itself, and the pooled out-of-fold predictions."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.errors import RunError, listed
from leukemia_data.lazy_imports import pd
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_data.splitting.split_spec import SplitSpec, parse_split
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples, subjects_per_class
from leukemia_models.evaluation.metrics import METRICS, main_metric_names, metric_names, metric_title
from leukemia_models.evaluation.predictions import UNKNOWN_CLASS, evaluated_samples, read_predictions
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.results import Results, SplitCounts, SplitSummary, cautions, metric_text, read_results
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table
from leukemia_models.runs.run_folder import last_run
from leukemia_models.runs.run_split import UNUSED_NAME, read_split

POOLED_NAME = "pooled"
OUT_OF_FOLD_PART = "out-of-fold"
HELD_OUT_PART = "test"
FOLD_NAME = re.compile(r"fold-([0-9]+)")
"""Name of a fold's folder."""


def find_folds(path: Path) -> list[Path]:
    """Return the folders of the folds, in order of their numbers; raises a RunError if there is none."""
    numbered = {
        int(match.group(1)): child
        for child in (path.iterdir() if path.is_dir() else ())
        if (match := FOLD_NAME.fullmatch(child.name)) and child.is_dir()
    }
    if not numbered:
        raise RunError(f"{path} holds no folds: there is no fold-1 in it")
    return [numbered[number] for number in sorted(numbered)]


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldPredictions:
    """Predictions of one fold's held-out samples.

    Parameters
    ----------
    name : str
        Such as ``fold-1``.
    used_ids, held_out_ids : frozenset of str
        Labelled samples in any part of the split, and those in its test part.
    table : pandas.DataFrame
        Predictions of the test part, from :func:`~leukemia_models.evaluation.predictions.read_predictions`.
    classes : tuple of str
        Of two the negative and the positive class.
    settings, judging, epoch, warnings
        As in the fold's ``results.json``.
    """

    name: str
    split: SplitSpec
    leaks: LeakCheck
    used_ids: frozenset[str]
    held_out_ids: frozenset[str]
    table: pd.DataFrame
    model_name: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    judging: Mapping[str, Any]
    epoch: int | None
    warnings: tuple[str, ...] = ()


def read_fold(path: Path) -> FoldPredictions:
    """Read the held-out samples of a fold and their predictions.

    Parameters
    ----------
    path
        Folder of a run, or of a plan, whose last stage counts; its part ``test`` is evaluated.

    Raises
    ------
    RunError
        If a file is missing or damaged, or the predictions are not those of the held-out samples.
    """
    folder = last_run(path)
    part_dir = folder.part(HELD_OUT_PART)
    results = read_results(part_dir / "results.json")
    used = {
        record_id: row.split
        for record_id, row in read_split(folder.split).items()
        if row.split != UNUSED_NAME and row.label != UNKNOWN_LABEL
    }
    try:
        fold = FoldPredictions(
            name=path.name,
            split=parse_split(results["split"]["kind"]),
            leaks=_leak_check(results["split"]["leaks"]),
            used_ids=frozenset(used),
            held_out_ids=frozenset(each for each, split in used.items() if split == HELD_OUT_PART),
            table=read_predictions(part_dir / "predictions.csv", results["classes"]),
            model_name=results["model_name"],
            classes=tuple(results["classes"]),
            settings=results["settings"],
            judging=dict(results.get("judging", {})),
            epoch=results["epoch"],
            warnings=tuple(map(str, results.get("warnings", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{part_dir / 'results.json'} is damaged ({error!r}): evaluate the run again") from error
    predicted = Counter(fold.table.loc[fold.table["label"] != UNKNOWN_CLASS, "id"])
    if predicted != Counter(fold.held_out_ids):
        raise RunError(
            f"{part_dir / 'predictions.csv'} holds {predicted.total():,} labelled images, which are not the "
            f"{len(fold.held_out_ids):,} that the fold's split.csv holds out: evaluate the run again, "
            f"with `ltrain evaluate --part {HELD_OUT_PART}`"
        )
    return fold


def _leak_check(values: Mapping[str, Any]) -> LeakCheck:
    for name, value in values.items():
        is_valid = isinstance(value, str) if name == "subjects_from" else isinstance(value, int) and value >= 0
        if not is_valid:
            raise ValueError(f"leaks: {name} is {value!r}")
    return LeakCheck(**values)


@dataclass(frozen=True, kw_only=True)
class FoldMetrics:
    """Metrics of one fold.

    Parameters
    ----------
    name, split, stamp, epoch
        As in :class:`FoldPredictions`.
    images_per_class : tuple of int
        Held-out images.
    subjects_per_class : tuple of int or None
        None if the subject of an image is unknown.
    values : mapping of str to float or None
        By names of :data:`~leukemia_models.evaluation.metrics.METRICS`. If one class alone was held out, all but its
        recall are None.
    """

    name: str
    split: str
    stamp: str
    epoch: int | None
    images_per_class: tuple[int, ...]
    subjects_per_class: tuple[int, ...] | None
    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One metric over the folds in which it is defined.

    Parameters
    ----------
    mean, sd, low, high : float or None
        Mean, sample standard deviation, minimum and maximum; None if too few folds define the metric.
    num_folds, num_undefined : int
        Folds that define the metric, and folds that do not.
    """

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    num_folds: int
    num_undefined: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Summarise one metric's values, one per fold."""
        defined = [value for value in values if value is not None]
        return cls(
            mean=statistics.fmean(defined) if defined else None,
            sd=statistics.stdev(defined) if len(defined) > 1 else None,
            low=min(defined, default=None),
            high=max(defined, default=None),
            num_folds=len(defined),
            num_undefined=len(values) - len(defined),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def fold_metrics(fold: FoldPredictions) -> FoldMetrics:
    """Evaluate one fold, per image, at the threshold 0.5."""
    samples = evaluated_samples(fold.table, fold.classes)
    values = classification_metrics(samples.labels_N, samples.probabilities_NK, fold.classes).values()
    counts = _counts(samples)
    if sum(map(bool, counts.images_per_class)) < 2:
        values = {name: value if METRICS.get(name).of_class is not None else None for name, value in values.items()}
    return FoldMetrics(
        name=fold.name,
        split=str(fold.split),
        stamp=fold.leaks.stamp,
        epoch=fold.epoch,
        images_per_class=counts.images_per_class,
        subjects_per_class=counts.subjects_per_class,
        values=values,
    )


def _counts(samples: EvaluatedSamples) -> SplitCounts:
    images = tuple(np.bincount(samples.labels_N, minlength=samples.num_classes).tolist())
    return SplitCounts(images, subjects_per_class(samples.labels_N, samples.subjects, samples.num_classes))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CrossValidation:
    """An evaluated k-fold.

    Parameters
    ----------
    name : str
        Such as ``5 folds by subject``.
    spread : mapping of str to Spread
        By names of :data:`~leukemia_models.evaluation.metrics.METRICS`: per image, over the folds, each with the same
        weight.
    pooled : Results
        Of all out-of-fold predictions together, per image and per subject.
    table : pandas.DataFrame
        The out-of-fold predictions, with a column ``fold``.
    """

    name: str
    folds: tuple[FoldMetrics, ...]
    spread: Mapping[str, Spread]
    pooled: Results
    table: pd.DataFrame

    def __repr__(self) -> str:
        return self.text()

    @property
    def stamp(self) -> str:
        """The stamp of the worst fold."""
        return self.pooled.split.stamp

    @property
    def num_one_class_folds(self) -> int:
        """Number of folds that held out one class alone."""
        return sum(sum(map(bool, fold.images_per_class)) < 2 for fold in self.folds)

    def text(self) -> str:
        """Return the main results in a few lines."""
        lines = [f"{self.name} ({len(self.table):,} images held out once, {self.stamp}):"]
        classes = self.pooled.classes
        lines += [
            f"  {metric_title(name, classes)}: {self._metric_text(name)}" for name in main_metric_names(len(classes))
        ]
        return "\n".join([*lines, *(f"  caution: {sentence}" for sentence in cautions(self.pooled))])

    def _metric_text(self, name: str) -> str:
        mean, sd = self.spread[name].mean, self.spread[name].sd
        over_folds = "no fold alone defines it" if mean is None else f"{mean:.3f} in the mean of the folds"
        spread = "" if sd is None else f" (sd {sd:.3f})"
        return f"{over_folds}{spread}, pooled {metric_text(self.pooled, name)}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the table as JSON can hold it."""
        return {
            "name": self.name,
            "stamp": self.stamp,
            "model_name": self.pooled.model_name,
            "classes": list(self.pooled.classes),
            "positive": self.pooled.positive,
            "folds": [fold.to_dict() for fold in self.folds],
            "num_one_class_folds": self.num_one_class_folds,
            "spread": {name: spread.to_dict() for name, spread in self.spread.items()},
            "pooled": self.pooled.to_dict(),
        }


def cross_validate(
    folds: Sequence[FoldPredictions], bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
) -> CrossValidation:
    """Evaluate the folds of a cross-validation, each by itself and all together.

    Parameters
    ----------
    folds
        All of them, from :func:`read_fold`.
    bootstrap
        Settings of the pooled intervals.

    Raises
    ------
    RunError
        If the folds do not hold out every labelled sample exactly once, or are of different cross-validations.
    """
    require_each_once(folds)
    metrics, name = tuple(map(fold_metrics, folds)), cross_validation_name(folds)
    tables = [fold.table[fold.table["label"] != UNKNOWN_CLASS].assign(fold=fold.name) for fold in folds]
    table = pd.concat(tables, ignore_index=True)
    counts = _counts(evaluated_samples(table, folds[0].classes))
    leaks = LeakCheck.worst([fold.leaks for fold in folds])
    split = SplitSummary(name, leaks, OUT_OF_FOLD_PART, {OUT_OF_FOLD_PART: counts})
    network = EvaluatedNetwork(
        model_name=folds[0].model_name,
        classes=folds[0].classes,
        settings=_common([fold.settings for fold in folds]),
        judging=_common([fold.judging for fold in folds]),
        notes=(_pooling_note(metrics),),
        warnings=tuple(text for text in folds[0].warnings if all(text in fold.warnings for fold in folds)),
    )
    return CrossValidation(
        name=name,
        folds=metrics,
        spread={
            metric: Spread.of([fold.values[metric] for fold in metrics])
            for metric in metric_names(len(folds[0].classes))
        },
        pooled=results_of_table(table, split, network, bootstrap=bootstrap),
        table=table,
    )


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *rest = settings
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in rest)}


def _pooling_note(folds: Sequence[FoldMetrics]) -> str:
    note = (
        f"Out-of-fold predictions of {len(folds)} networks, evaluated together. Accuracy, recall, F1 and MCC use "
        "each network's predictions at 0.5. AUROC, AUPRC and calibration compare the probabilities of different "
        "networks here, which may be scaled differently"
    )
    aurocs = Spread.of([fold.values["auroc"] for fold in folds])
    if aurocs.mean is None:
        held = "both" if len(folds[0].images_per_class) == 2 else "several"
        return f"{note}; no fold holds {held} classes, so there is no AUROC within one network to set beside it."
    return f"{note}; within one network at a time, AUROC is {aurocs.mean:.3f} in the mean of {aurocs.num_folds} folds."


def require_each_once(folds: Sequence[FoldPredictions]) -> None:
    """Check that the folds together hold out every labelled sample exactly once.

    Raises
    ------
    RunError
        If there are fewer than two folds, they are of different networks, classes or kinds, or a sample is held out
        in none or in several of them.
    """
    if len(folds) < 2:
        raise RunError(f"a cross-validation has two folds at least; {len(folds)} given")
    first = folds[0]
    for fold in folds[1:]:
        different = [name for name in ("model_name", "classes") if getattr(fold, name) != getattr(first, name)]
        different += ["split"] if _family(fold.split) != _family(first.split) else []
        for name in different:
            raise RunError(
                f"{first.name} and {fold.name} do not belong together: {name.replace('_', ' ')} "
                f"{getattr(first, name)} and {getattr(fold, name)}"
            )
    times = Counter(sample_id for fold in folds for sample_id in fold.held_out_ids)
    repeated = sorted(sample_id for sample_id, count in times.items() if count > 1)
    if repeated:
        names = [fold.name for fold in folds if repeated[0] in fold.held_out_ids]
        raise RunError(
            f"{len(repeated):,} images are held out more than once, first {repeated[0]} in {listed(names)}: "
            "the folds are not of one cross-validation (one seed, one cache)"
        )
    absent = sorted(frozenset().union(*(fold.used_ids for fold in folds)) - times.keys())
    if absent:
        raise RunError(
            f"{len(absent):,} labelled images are held out in none of the {len(folds)} folds, first {absent[0]}: "
            "a fold is missing, or the folds are not of one cross-validation"
        )


def _family(split: SplitSpec) -> tuple[str, int, bool, float]:
    """Return the parameters that are equal in all splits of a cross-validation."""
    return split.kind, split.num_folds, split.with_valid, split.valid_share


def cross_validation_name(folds: Sequence[FoldPredictions]) -> str:
    """Return ``5 folds by subject``, ``one subject out, 73 folds`` or the like."""
    split = folds[0].split
    match split.kind:
        case "official":
            name = f"official folds {', '.join(str(fold.split.fold) for fold in folds)}"
        case "leave-out":
            name = f"one subject out, {len(folds)} folds"
        case "test-fold":
            name = f"{len(folds)} folds by subject"
        case _:
            name = f"{len(folds)} folds, {split.kind}"
    return f"{name}, with validation beside" if split.with_valid else name
