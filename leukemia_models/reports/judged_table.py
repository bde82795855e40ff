"""From a table of predictions to everything that is said of it: no network, no checkpoint, no torch.

A table may come from one network, or from the folds of a cross-validation, each of which predicted its own held-out
part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from leukemia_data.errors import RunError
from leukemia_models.judging.baseline import majority_baseline
from leukemia_models.judging.bootstrap import SubjectBootstrap, subject_bootstrap
from leukemia_models.judging.calibration import Calibration
from leukemia_models.judging.judged_samples import DEFAULT_THRESHOLD, JudgedSamples
from leukemia_models.judging.metrics import classification_metrics
from leukemia_models.judging.predictions import judged_samples, write_predictions, write_table
from leukemia_models.judging.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.judging.subject_level import MAJORITY, subject_level, subject_samples, with_class_names
from leukemia_models.reports.figure_style import save_figure
from leukemia_models.reports.judging_figures import draw_confusion, draw_reliability, draw_roc, draw_subjects
from leukemia_models.reports.report import IMAGE, SUBJECT_MEAN, SUBJECT_VOTE, CalibratedResults, Results, write_results
from leukemia_models.reports.split_summary import SplitSummary
from leukemia_models.reports.summary_page import SUBJECTS_FILE, write_summary

CONFUSION_FIGURE, ROC_FIGURE = "confusion.png", "roc.png"
RELIABILITY_FIGURE, SUBJECTS_FIGURE = "reliability.png", "subjects.png"


@dataclass(frozen=True, kw_only=True)
class JudgedNetwork:
    """Which network a table of predictions is from, for the report.

    Parameters
    ----------
    model_name : str
        Its name.
    classes : tuple of two str
        The negative and the positive class.
    settings : mapping
        What its run was told, as JSON values.
    epoch : int or None
        The epoch whose weights it has; None where the predictions come from several networks.
    judging : mapping
        How it was judged, as JSON values.
    calibration : Calibration or None
        Fitted on another part than the judged one.
    identity : mapping of str to str
        As in :class:`~leukemia_models.reports.report.Results`.
    notes, warnings : tuple of str
        As in :class:`~leukemia_models.reports.report.Results`.
    """

    model_name: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    epoch: int | None = None
    judging: Mapping[str, Any] | None = None
    calibration: Calibration | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def results_of_table(
    table: pd.DataFrame,
    split: SplitSummary,
    network: JudgedNetwork,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> Results:
    """Judge a table of predictions: per image and per subject, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`~leukemia_models.judging.predictions.predictions_table` or
        :func:`~leukemia_models.judging.predictions.read_predictions`; rows without a label are left out.
    split : SplitSummary
        How the data were split.
    network : JudgedNetwork
        What made the predictions.
    bootstrap : BootstrapSettings
        How intervals are drawn.

    Raises
    ------
    UsageError
        If no row has a label.
    RunError
        If the table is of other classes than the network.
    """
    samples, classes = judged_samples(table, network.classes), network.classes
    return Results(
        model_name=network.model_name,
        classes=classes,
        settings=network.settings,
        split=split,
        epoch=network.epoch,
        metrics=classification_metrics(samples.labels_N, samples.probabilities_NK, classes),
        baseline=majority_baseline(samples.labels_N),
        subjects=subject_level(samples, classes),
        intervals=_intervals(samples, bootstrap, classes),
        calibrated=_calibrated(samples, network.calibration, bootstrap, classes) if network.calibration else None,
        judging=network.judging or {},
        identity=network.identity,
        notes=network.notes,
        warnings=network.warnings,
    )


def _intervals(
    samples: JudgedSamples, settings: BootstrapSettings, classes: Sequence[str]
) -> dict[str, SubjectBootstrap]:
    judged = {
        IMAGE: (samples, DEFAULT_THRESHOLD),
        SUBJECT_MEAN: (subject_samples(samples, "mean"), DEFAULT_THRESHOLD),
        SUBJECT_VOTE: (subject_samples(samples, "vote"), MAJORITY),
    }
    return {
        level: subject_bootstrap(rows, threshold=threshold, settings=settings, classes=classes)
        for level, (rows, threshold) in judged.items()
        if rows is not None
    }


def _calibrated(
    samples: JudgedSamples, calibration: Calibration, settings: BootstrapSettings, classes: Sequence[str]
) -> CalibratedResults:
    scaled, threshold = calibration.apply(samples), calibration.threshold
    return CalibratedResults(
        calibration=calibration,
        metrics=classification_metrics(scaled.labels_N, scaled.probabilities_NK, classes, threshold=threshold),
        bootstrap=subject_bootstrap(scaled, threshold=threshold, settings=settings, classes=classes),
    )


def write_judged(
    out_dir: Path,
    results: Results,
    table: pd.DataFrame,
    more_figures: Sequence[str] = (),
    *,
    for_excel: bool = False,
) -> None:
    """Write ``results.json``, ``summary.md``, ``predictions.csv``, ``subjects.csv`` and the figures of a judged table.

    Parameters
    ----------
    out_dir : Path
        Is made if it does not exist.
    results : Results
        From :func:`results_of_table`.
    table : pandas.DataFrame
        What they are of; a column ``stamp`` with the split's stamp is put last.
    more_figures : sequence of str
        Other PNG files to name in the page, relative to it.
    for_excel : bool
        Whether CSV files begin with a byte order mark.

    Raises
    ------
    RunError
        If the folder is a link: a run from elsewhere could have its results written anywhere.
    """
    if out_dir.is_symlink():
        raise RunError(f"{out_dir} is a link to {out_dir.readlink()}, and would be written there: remove it first")
    out_dir.mkdir(parents=True, exist_ok=True)
    figures = _draw(out_dir, results, judged_samples(table, results.classes))
    stamp = results.split.stamp
    stamped = table.drop(columns="stamp", errors="ignore").assign(stamp=stamp)
    write_predictions(out_dir / "predictions.csv", stamped, for_excel=for_excel)
    if results.subjects is not None:
        subjects = with_class_names(results.subjects.table, results.classes)
        write_table(out_dir / SUBJECTS_FILE, subjects.assign(stamp=stamp), for_excel=for_excel)
    write_results(out_dir / "results.json", results)
    write_summary(out_dir / "summary.md", results, (*figures, *more_figures))


def _draw(out_dir: Path, results: Results, samples: JudgedSamples) -> list[str]:
    """Draw what the results hold numbers for, and return the names of the files."""
    classes, named = results.classes, {"title": results.title, "stamp": results.split.stamp}
    calibrated = results.calibrated.calibration.apply(samples) if results.calibrated else None
    figures = {
        CONFUSION_FIGURE: draw_confusion(results.metrics.confusion, classes, **named),
        RELIABILITY_FIGURE: draw_reliability(samples, classes, calibrated=calibrated, **named),
    }
    if results.metrics.auroc is not None:
        bootstrap = results.intervals.get(IMAGE)
        interval = bootstrap.intervals.get("auroc") if bootstrap else None
        figures[ROC_FIGURE] = draw_roc(samples, classes, interval=interval, **named)
    if results.subjects is not None and not results.subjects.table.empty:
        figures[SUBJECTS_FIGURE] = draw_subjects(results.subjects.table, classes, **named)
    for name, figure in figures.items():
        save_figure(figure, out_dir / name)
    return list(figures)
