"""Out-of-fold judgement: the runs of a k-fold in, pooled predictions and the spread over the folds out.

Every labelled sample is judged once, by the network that did not see its subject in training. Two readings of the same
predictions answer two questions. The mean and spread over folds say what one training of this recipe gives on other
people. The pooled predictions hold every subject, so they are what intervals by subject come from; a pooled AUROC
however ranks probabilities of different networks against each other, so the mean of the folds' own AUROCs stands
beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leukemia_data.errors import RunError, listed
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_data.splitting.split_spec import SplitSpec
from leukemia_models.comparing.cross_validation_files import OUT_OF_FOLD_PART
from leukemia_models.comparing.fold_metrics import FoldMetrics, Spread, fold_metrics, spread_over_folds
from leukemia_models.comparing.fold_predictions import FoldPredictions
from leukemia_models.judging.metrics import metric_title
from leukemia_models.judging.predictions import UNKNOWN_CLASS, judged_samples
from leukemia_models.judging.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.judging.subject_counts import subjects_per_class
from leukemia_models.reports.judged_table import JudgedNetwork, results_of_table
from leukemia_models.reports.markdown import number_text
from leukemia_models.reports.report import IMAGE, Results, cautions
from leukemia_models.reports.split_summary import SplitCounts, SplitSummary

SHOWN_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")
"""What short texts and figures show; tables have all."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """A k-fold, judged fold by fold and as a whole.

    Parameters
    ----------
    name : str
        What the folds are, such as ``5 folds by subject``.
    folds : tuple of FoldMetrics
        In their order.
    spread : mapping of str to Spread
        By names of :data:`~leukemia_models.judging.metrics.METRIC_NAMES`: per image, over the folds.
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
    """Judge the folds of a cross-validation, each by itself and all together.

    Parameters
    ----------
    folds
        All of them, from :func:`~leukemia_models.comparing.fold_predictions.read_fold`.
    bootstrap
        How the pooled intervals are drawn.

    Raises
    ------
    RunError
        If the folds do not hold out every labelled sample exactly once, or do not belong together.
    """
    require_each_once(folds)
    judged = tuple(map(fold_metrics, folds))
    table = pooled_table(folds)
    network = JudgedNetwork(
        model_name=folds[0].model_name,
        classes=folds[0].classes,
        settings=_common([fold.settings for fold in folds]),
        judging=_common([fold.judging for fold in folds]),
        notes=(_pooling_note(judged),),
        warnings=tuple(text for text in folds[0].warnings if all(text in fold.warnings for fold in folds)),
    )
    return CrossValidation(
        name=cross_validation_name(folds),
        folds=judged,
        spread=spread_over_folds(judged),
        pooled=results_of_table(table, _pooled_split(folds, table), network, bootstrap=bootstrap),
        table=table,
    )


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings that all folds share."""
    first, *rest = settings
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in rest)}


def _pooling_note(judged: Sequence[FoldMetrics]) -> str:
    note = (
        f"Out-of-fold predictions of {len(judged)} networks, judged together. Accuracy, recall, F1 and MCC count each "
        "network's own answer at 0.5. AUROC, AUPRC and calibration compare the probabilities of different networks "
        "here, which may be scaled differently"
    )
    aurocs = Spread.of([fold.values["auroc"] for fold in judged])
    if aurocs.mean is None:
        return f"{note}; no fold holds both classes, so there is no AUROC within one network to set beside it."
    return f"{note}; within one network at a time, AUROC is {aurocs.mean:.3f} in the mean of {aurocs.num_folds} folds."


def _pooled_split(folds: Sequence[FoldPredictions], table: pd.DataFrame) -> SplitSummary:
    samples = judged_samples(table, folds[0].classes)
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
