"""Out-of-fold evaluation: files of the folds, pooled predictions, metrics of single folds."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from leukemia_data.errors import RunError, listed
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_data.splitting.split_spec import SplitSpec, parse_split
from leukemia_models.evaluation.evaluated_samples import subjects_per_class
from leukemia_models.evaluation.metrics import METRICS, classification_metrics, metric_title
from leukemia_models.evaluation.predictions import UNKNOWN_CLASS, evaluated_samples, read_predictions
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.results import IMAGE, Results, SplitCounts, SplitSummary, cautions, read_results
from leukemia_models.reports.style import number_text
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table
from leukemia_models.runs.run_folder import RunFolder, last_run
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
    """What one fold's network says of the samples it was not shown.

    Parameters
    ----------
    name : str
        For tables, such as ``fold-1``.
    split : SplitSpec
        What was held out.
    leaks : LeakCheck
        What stood on both sides of it.
    used_ids, held_out_ids : frozenset of str
        Labelled samples in any part of the split, and those in its test part.
    table : pandas.DataFrame
        Predictions of the test part, from :func:`~leukemia_models.evaluation.predictions.read_predictions`.
    model_name : str
        Name of the network.
    classes : tuple of two str
        The negative and the positive class.
    settings, judging : mapping
        What the run was told, and how it was evaluated, as JSON values.
    epoch : int or None
        The epoch whose weights were evaluated.
    warnings : tuple of str
        What the fold's results say against its numbers, beside what its split tells.
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
    """Read what a fold's run held out and said of it.

    Parameters
    ----------
    path
        The run's folder, or that of a plan, whose last stage counts. Its part ``test`` must have been evaluated.

    Raises
    ------
    RunError
        If a file is missing or damaged, or the predictions are not those of the part that was held out.
    """
    folder = last_run(path)
    part_dir = folder.part(HELD_OUT_PART)
    results = read_results(part_dir / "results.json")
    used_ids, held_out_ids = _read_split(folder)
    try:
        fold = FoldPredictions(
            name=path.name,
            split=parse_split(results["split"]["kind"]),
            leaks=_leak_check(results["split"]["leaks"]),
            used_ids=used_ids,
            held_out_ids=held_out_ids,
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
    _require_held_out(fold, part_dir)
    return fold


def _leak_check(counts: Mapping[str, Any]) -> LeakCheck:
    values = dict(counts)
    subjects_from = values.pop("subjects_from", "")
    if not all(isinstance(count, int) and count >= 0 for count in values.values()) or not isinstance(
        subjects_from, str
    ):
        raise ValueError(f"leaks are counts, not {dict(counts)}")
    return LeakCheck(**values, subjects_from=subjects_from)


def _read_split(folder: RunFolder) -> tuple[frozenset[str], frozenset[str]]:
    """Ids of the labelled samples in use, and of those held out."""
    rows = read_split(folder.split)
    used = {each: row.split for each, row in rows.items() if row.split != UNUSED_NAME and row.label != UNKNOWN_LABEL}
    return frozenset(used), frozenset(each for each, split in used.items() if split == HELD_OUT_PART)


def _require_held_out(fold: FoldPredictions, part_dir: Path) -> None:
    predicted = Counter(fold.table.loc[fold.table["label"] != UNKNOWN_CLASS, "id"])
    if predicted != Counter(fold.held_out_ids):
        raise RunError(
            f"{part_dir / 'predictions.csv'} holds {predicted.total():,} labelled images, which are not the "
            f"{len(fold.held_out_ids):,} that the fold's split.csv holds out: evaluate the run again, "
            f"with `ltrain evaluate --part {HELD_OUT_PART}`"
        )


DEFINED_WITH_ONE_CLASS = ("sensitivity", "specificity")


@dataclass(frozen=True, kw_only=True)
class FoldMetrics:
    """One fold, evaluated by itself.

    Parameters
    ----------
    name, split, stamp : str
        As in :class:`FoldPredictions`.
    epoch : int or None
        The epoch whose weights were evaluated.
    images_per_class : tuple of int
        Held out, one number per class.
    subjects_per_class : tuple of int or None
        None where the subject of an image is unknown.
    values : mapping of str to float or None
        By names of :data:`~leukemia_models.evaluation.metrics.METRICS`. Where one class alone was held out, its
        recall is the only number that says something; all others are None.
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
        Mean, standard deviation (divided by the number of folds less one), smallest and largest value; None where too
        few folds define them: none, or fewer than two for the standard deviation.
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
    """Evaluate one fold by itself, per image, at the threshold 0.5."""
    samples = evaluated_samples(fold.table, fold.classes)
    values = classification_metrics(samples.labels_N, samples.probabilities_NK, fold.classes).values()
    images = tuple(int((samples.labels_N == label).sum()) for label in range(len(fold.classes)))
    if not all(images):
        values = {name: values[name] if name in DEFINED_WITH_ONE_CLASS else None for name in METRICS}
    return FoldMetrics(
        name=fold.name,
        split=str(fold.split),
        stamp=fold.leaks.stamp,
        epoch=fold.epoch,
        images_per_class=images,
        subjects_per_class=subjects_per_class(samples.labels_N, samples.subjects),
        values=values,
    )


def spread_over_folds(folds: Sequence[FoldMetrics]) -> dict[str, Spread]:
    """Summarise every metric over the folds; each fold counts the same, whatever its size."""
    return {name: Spread.of([fold.values[name] for fold in folds]) for name in METRICS}


SHOWN_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")
"""What short texts and figures show; tables have all."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CrossValidation:
    """A k-fold, evaluated fold by fold and as a whole.

    Parameters
    ----------
    name : str
        What the folds are, such as ``5 folds by subject``.
    folds : tuple of FoldMetrics
        In their order.
    spread : mapping of str to Spread
        By names of :data:`~leukemia_models.evaluation.metrics.METRICS`: per image, over the folds.
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
        """Folds that held out one class alone."""
        return sum(not all(fold.images_per_class) for fold in self.folds)

    def text(self) -> str:
        """Return the essentials in a few lines, for people."""
        lines = [f"{self.name} ({len(self.table):,} images held out once, {self.stamp}):"]
        lines += [f"  {metric_title(name, self.pooled.classes)}: {self._metric_text(name)}" for name in SHOWN_METRICS]
        return "\n".join([*lines, *(f"  caution: {sentence}" for sentence in cautions(self.pooled))])

    def _metric_text(self, name: str) -> str:
        spread, value, bootstrap = (
            self.spread[name],
            self.pooled.metrics.values()[name],
            self.pooled.intervals.get(IMAGE),
        )
        over_folds = (
            "no fold alone defines it" if spread.mean is None else f"{spread.mean:.3f} in the mean of the folds"
        )
        sd = "" if spread.sd is None else f" (sd {spread.sd:.3f})"
        interval = bootstrap.intervals.get(name) if bootstrap else None
        reach = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
        return f"{over_folds}{sd}, pooled {number_text(value)}{reach}"

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
        All of them, from :func:`~leukemia_models.comparing.fold_evaluation.read_fold`.
    bootstrap
        How the pooled intervals are drawn.

    Raises
    ------
    RunError
        If the folds do not hold out every labelled sample exactly once, or do not belong together.
    """
    require_each_once(folds)
    metrics = tuple(map(fold_metrics, folds))
    table = pooled_table(folds)
    network = EvaluatedNetwork(
        model_name=folds[0].model_name,
        classes=folds[0].classes,
        settings=_common([fold.settings for fold in folds]),
        judging=_common([fold.judging for fold in folds]),
        notes=(_pooling_note(metrics),),
        warnings=tuple(text for text in folds[0].warnings if all(text in fold.warnings for fold in folds)),
    )
    return CrossValidation(
        name=cross_validation_name(folds),
        folds=metrics,
        spread=spread_over_folds(metrics),
        pooled=results_of_table(table, _pooled_split(folds, table), network, bootstrap=bootstrap),
        table=table,
    )


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings that all folds share."""
    first, *rest = settings
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in rest)}


def _pooling_note(folds: Sequence[FoldMetrics]) -> str:
    note = (
        f"Out-of-fold predictions of {len(folds)} networks, evaluated together. Accuracy, recall, F1 and MCC count "
        "each network's own answer at 0.5. AUROC, AUPRC and calibration compare the probabilities of different "
        "networks here, which may be scaled differently"
    )
    aurocs = Spread.of([fold.values["auroc"] for fold in folds])
    if aurocs.mean is None:
        return f"{note}; no fold holds both classes, so there is no AUROC within one network to set beside it."
    return f"{note}; within one network at a time, AUROC is {aurocs.mean:.3f} in the mean of {aurocs.num_folds} folds."


def _pooled_split(folds: Sequence[FoldPredictions], table: pd.DataFrame) -> SplitSummary:
    samples = evaluated_samples(table, folds[0].classes)
    images = tuple(int((samples.labels_N == label).sum()) for label in range(len(folds[0].classes)))
    counts = SplitCounts(images, subjects_per_class(samples.labels_N, samples.subjects))
    return SplitSummary(cross_validation_name(folds), worst_leaks(folds), OUT_OF_FOLD_PART, {OUT_OF_FOLD_PART: counts})


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
        for what in ("model_name", "classes"):
            if getattr(fold, what) != getattr(first, what):
                raise RunError(
                    f"{first.name} and {fold.name} do not belong together: {what.replace('_', ' ')} "
                    f"{getattr(first, what)} and {getattr(fold, what)}"
                )
        if _family(fold.split) != _family(first.split):
            raise RunError(f"{first.name} and {fold.name} do not belong together: split {first.split} and {fold.split}")
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
    """What the splits of one cross-validation have in common."""
    return split.kind, split.num_folds, split.with_valid, split.valid_share


def cross_validation_name(folds: Sequence[FoldPredictions]) -> str:
    """Describe the folds together, such as ``5 folds by subject`` or ``one subject out, 73 folds``."""
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


def pooled_table(folds: Sequence[FoldPredictions]) -> pd.DataFrame:
    """Join the folds' predictions, in their order, with a column ``fold`` at the end; unlabelled rows are left out."""
    tables = [fold.table[fold.table["label"] != UNKNOWN_CLASS].assign(fold=fold.name) for fold in folds]
    return pd.concat(tables, ignore_index=True)


def worst_leaks(folds: Sequence[FoldPredictions]) -> LeakCheck:
    """The largest of each count over the folds: the pooled numbers are no cleaner than their dirtiest fold."""
    return LeakCheck.worst([fold.leaks for fold in folds])
