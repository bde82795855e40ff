"""Evaluate a table of predictions, and write its page, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.lazy_imports import pd
from leukemia_models.evaluation.bootstrap import SubjectBootstrap, subject_bootstrap
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.classification import ClassificationMetrics, classification_metrics, majority_baseline
from leukemia_models.evaluation.evaluated_samples import (
    DEFAULT_THRESHOLD,
    MAX_LISTED_CLASSES,
    EvaluatedSamples,
    subject_counts_text,
)
from leukemia_models.evaluation.metrics import METRICS, metric_names, metric_title
from leukemia_models.evaluation.predictions import evaluated_samples, write_table
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.evaluation.subject_level import (
    MAJORITY,
    SubjectLevel,
    subject_level,
    subject_samples,
    with_class_names,
)
from leukemia_models.reports.evaluation_figures import draw_confusion, draw_reliability, draw_roc, draw_subjects
from leukemia_models.reports.results import (
    IMAGE,
    SUBJECT_MEAN,
    SUBJECT_VOTE,
    CalibratedResults,
    Results,
    SplitSummary,
    cautions,
    write_results,
)
from leukemia_models.reports.style import (
    code,
    flattened,
    interval_text,
    markdown_table,
    number_text,
    plain,
    quoted_paragraphs,
    save_figure,
    without_repeats,
)

MAX_LISTED_SUBJECTS = 80
SUBJECTS_FILE = "subjects.csv"
_EVALUATION_SHOWN = ("checkpoint", "precision", "tta", "batchnorm.mode", "batchnorm.chosen")
_CALIBRATION_SHOWN = ("calibration.temperature", "calibration.threshold", "calibration.fitted_on")
_CALIBRATED_ROWS = ("nll", "brier", "ece", "balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "mcc")


def summary_text(results: Results, figures: Sequence[str] = ()) -> str:
    """Return the page as Markdown; `figures` are file names beside it."""
    split = results.split
    sections = [
        f"# {plain(results.title)}",
        f"Split: **{split.stamp}** ({code(split.kind)})",
        _classes_line(results),
        quoted_paragraphs(cautions(results)),
        "\n\n".join(map(plain, results.notes)),
        f"## Results per image ({split.stamp})\n\n" + _image_section(results),
        f"## Each class against the rest ({split.stamp})\n\n" + _class_section(results)
        if len(results.classes) > 2
        else "",
        f"## Results per subject ({split.stamp})\n\n" + _subject_section(results, results.subjects)
        if results.subjects
        else "",
        f"## Calibrated ({split.stamp})\n\n" + _calibrated_section(results, results.calibrated)
        if results.calibrated
        else "",
        f"## Data ({split.stamp})\n\n" + _split_table(split, results.classes),
        "## Evaluated with\n\n" + markdown_table(("what", "how"), _evaluation_rows(results)) if results.judging else "",
        "## Settings\n\n" + markdown_table(("setting", "value"), _setting_rows(results)),
        "## Figures\n\n" + "\n".join(_figure_line(name) for name in figures) if figures else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _classes_line(results: Results) -> str:
    if results.positive is None:
        return f"{len(results.classes)} classes: {', '.join(map(code, results.classes))}"
    return f"Positive class: **{code(results.positive)}**; {code(results.classes[0])} is the negative one"


def _class_section(results: Results) -> str:
    header = ("class", "images", "recall", "precision", "F1", "specificity", "AUROC", "AUPRC")
    rows = [
        (
            plain(name),
            f"{each.support:,}",
            *map(number_text, (each.recall, each.precision, each.f1, each.specificity, each.auroc, each.auprc)),
        )
        for name, each in zip(results.classes, results.metrics.per_class, strict=True)
    ]
    return markdown_table(header, rows)


def _evaluation_rows(results: Results) -> Iterator[tuple[str, str]]:
    rows = dict(flattened(results.judging))
    is_usable = rows.get("calibration.is_usable") is not False
    shown = (*_EVALUATION_SHOWN, *_CALIBRATION_SHOWN) if is_usable else _EVALUATION_SHOWN
    return ((plain(name), _short(value)) for name, value in rows.items() if name.startswith(shown))


def _setting_rows(results: Results) -> Iterator[tuple[str, str]]:
    """Yield the settings with a value; notes describe changes of length and precision."""
    for name, value in flattened(results.settings):
        if value is not None and name not in ("extensions", "precision_changes"):
            yield plain(name), _short(value)


def _short(value: object) -> str:
    return plain(f"{value:.6g}" if isinstance(value, float) else value)


def _figure_line(name: str) -> str:
    vector = str(Path(name).with_suffix(".pdf").as_posix())
    return f"- [{name}]({name}), as vectors [{vector}]({vector})"


def _image_section(results: Results) -> str:
    metrics, bootstrap = results.metrics, results.intervals.get(IMAGE)
    constant = _majority_metrics(results)
    level = f"{_percent(bootstrap.settings.level)} interval" if bootstrap else "interval"
    always = f"always {code(results.classes[results.baseline.prediction])}"
    header = ("per image", plain(results.model_name), level, always)
    rows = [("images", f"{metrics.num_samples:,}", "", f"{metrics.num_samples:,}")]
    for name, number in metrics.values().items():
        value, interval = number_text(number), interval_text(results.interval(IMAGE, name))
        baseline = number_text(constant[name]) if name in constant else "-"
        rows.append((metric_title(name, results.classes, code), value, interval, baseline))
    return _paragraphs(markdown_table(header, rows), _interval_note(bootstrap, results.classes))


def _majority_metrics(results: Results) -> dict[str, float | None]:
    """Return the metrics of always predicting the largest class."""
    baseline, recalls = results.baseline, results.metrics.recall_per_class
    num_known = len(recalls) - recalls.count(None)
    is_defined = num_known > 1
    of_two = (
        {}
        if len(recalls) > 2
        else {
            "sensitivity": None if recalls[1] is None else float(baseline.prediction == 1),
            "specificity": None if recalls[0] is None else float(baseline.prediction == 0),
        }
    )
    return {
        "balanced_accuracy": 1 / num_known if is_defined else None,
        **of_two,
        "weighted_f1": baseline.weighted_f1,
        "macro_f1": baseline.macro_f1,
        "auroc": 0.5 if is_defined else None,
        "auprc": baseline.auprc if is_defined else None,
        "mcc": 0.0 if is_defined else None,
        "accuracy": baseline.accuracy,
    }


def _interval_note(bootstrap: SubjectBootstrap | None, classes: Sequence[str]) -> str:
    """Return how the intervals were computed, and their limits."""
    if bootstrap is None:
        return ""
    if not bootstrap.intervals or bootstrap.subjects_per_class is None:
        return plain(bootstrap.note or "")
    settings = bootstrap.settings
    counts = subject_counts_text(bootstrap.subjects_per_class, classes, code)
    made = (
        f"{_percent(settings.level)} intervals: percentiles over {settings.num_draws:,} resamples of the subjects "
        f"({counts}), seed {settings.seed}. ECE has none: resampling by itself makes it larger."
    )
    return _paragraphs(made, plain(bootstrap.note or ""))


def _subject_section(results: Results, subjects: SubjectLevel) -> str:
    columns = [
        (title, metrics, results.intervals.get(level))
        for title, metrics, level in (
            ("mean probability", subjects.mean, SUBJECT_MEAN),
            ("majority vote", subjects.vote, SUBJECT_VOTE),
        )
        if metrics is not None
    ]
    if not columns:
        return _paragraphs("No subject of the evaluated images is known.", *_left_out(subjects))
    notes = without_repeats(bootstrap.note for _, _, bootstrap in columns if bootstrap and bootstrap.note)
    table, subject_list = _subject_metrics(columns, results.classes), _subject_list(subjects, results.classes)
    return _paragraphs(table, *map(plain, notes), *_left_out(subjects), subject_list)


def _subject_metrics(
    columns: Sequence[tuple[str, ClassificationMetrics, SubjectBootstrap | None]], classes: Sequence[str]
) -> str:
    header = ["per subject"]
    for title, _, _ in columns:
        header += [title, "interval"]
    rows = [["subjects", *(cell for _, metrics, _ in columns for cell in (f"{metrics.num_samples:,}", ""))]]
    for name in metric_names(len(classes)):
        row = [metric_title(name, classes, code)]
        for _, metrics, bootstrap in columns:
            value = metrics.values()[name]
            is_absent = value is None and METRICS.get(name).needs_probabilities
            interval = bootstrap.intervals.get(name) if bootstrap and value is not None else None
            row += ["-" if is_absent else number_text(value), interval_text(interval)]
        rows.append(row)
    return markdown_table(header, rows)


def _left_out(subjects: SubjectLevel) -> Iterator[str]:
    if subjects.num_unknown_images:
        yield f"{subjects.num_unknown_images:,} images of unknown subjects are left out here."
    if subjects.mixed_subjects:
        names = ", ".join(code(name) for name in subjects.mixed_subjects[:10])
        several = "both" if subjects.share_errors is None else "several"
        yield f"{len(subjects.mixed_subjects):,} subjects with images of {several} classes are left out here: {names}."
    if subjects.share_errors is not None and subjects.mixed_subjects:
        yield (
            "Shares of the classes in a subject's images, true and predicted, differ by "
            f"{sum(subjects.share_errors) / len(subjects.share_errors):.3f} in the mean of subjects and classes."
        )


def _subject_list(subjects: SubjectLevel, classes: Sequence[str]) -> str:
    if len(subjects.table) > MAX_LISTED_SUBJECTS:
        return f"All subjects are in [{SUBJECTS_FILE}]({SUBJECTS_FILE})."
    if len(classes) > 2:
        return markdown_table(_MANY_HEADER, [_row_of_many(row, classes) for row in subjects.to_dict()["subjects"]])
    positive = code(classes[1])
    header = ("subject", "class", "images", "share right", f"mean P({positive})", f"votes for {positive}")
    rows = [
        (
            plain(row["subject"]),
            "both" if row["label"] is None else plain(classes[row["label"]]),
            row["images"],
            number_text(row["share_right"]),
            number_text(row["mean_probability"]),
            number_text(row["vote_share"]),
        )
        for row in subjects.to_dict()["subjects"]
    ]
    return markdown_table(header, rows)


_MANY_HEADER = ("subject", "class", "images", "share right", "mean probability", "votes")


def _row_of_many(row: Mapping[str, Any], classes: Sequence[str]) -> tuple[object, ...]:
    """Return a subject's row, with the class of the highest mean probability and that of most votes."""
    by_mean, by_vote = row["prediction_mean"], row["prediction_vote"]
    return (
        plain(row["subject"]),
        "several" if row["label"] is None else plain(classes[row["label"]]),
        row["images"],
        number_text(row["share_right"]),
        f"{plain(classes[by_mean])} {number_text(row[f'mean_probability_{by_mean}'])}",
        f"{plain(classes[by_vote])} {number_text(row[f'vote_share_{by_vote}'])}",
    )


def _calibrated_section(results: Results, calibrated: CalibratedResults) -> str:
    calibration = calibrated.calibration
    fitted_on = f"{calibration.num_images:,} {plain(calibration.fitted_on)} images"
    text, trained = _calibration_texts(results, calibration)
    text += f" fitted on {fitted_on}. All other tables and files are without them."
    header = ("per image", trained, "calibrated", "interval")
    rows = [
        (
            metric_title(name, results.classes, code),
            number_text(results.metrics.values()[name]),
            number_text(calibrated.metrics.values()[name]),
            interval_text(calibrated.bootstrap.intervals.get(name)),
        )
        for name in _CALIBRATED_ROWS
        if name in metric_names(len(results.classes))
    ]
    return _paragraphs(text, markdown_table(header, rows))


def _calibration_texts(results: Results, calibration: Calibration) -> tuple[str, str]:
    """Return how predictions are calibrated, and the title of those that are not."""
    text = f"The same predictions with the temperature {calibration.temperature:.3f}"
    if results.positive is None:
        return f"{text},", "as trained"
    threshold = f"and then the threshold {calibration.threshold:.3f} of P({code(results.positive)}), both"
    return f"{text} {threshold}", "as trained, threshold 0.5"


def _split_table(split: SplitSummary, classes: Sequence[str]) -> str:
    """Return the sizes of the parts; many classes have a row each instead of a column."""
    if len(classes) > MAX_LISTED_CLASSES:
        return _split_table_of_many(split, classes)
    header = ["part", *(f"images {code(name)}" for name in classes), *(f"subjects {code(name)}" for name in classes)]
    rows = []
    for name, counts in split.parts.items():
        subjects = counts.subjects_per_class or ("unknown",) * len(classes)
        label = f"{name} (evaluated)" if name == split.judged else name
        rows.append([label, *(f"{count:,}" for count in counts.images_per_class), *map(str, subjects)])
    return markdown_table(header, rows)


def _split_table_of_many(split: SplitSummary, classes: Sequence[str]) -> str:
    parts = split.parts.items()
    titles = [f"{name} (evaluated)" if name == split.judged else name for name, _ in parts]
    header = ["class", *(f"{title}: images" for title in titles), *(f"{title}: subjects" for title in titles)]
    rows = [
        [
            code(name),
            *(f"{counts.images_per_class[label]:,}" for _, counts in parts),
            *(str((counts.subjects_per_class or ("unknown",) * len(classes))[label]) for _, counts in parts),
        ]
        for label, name in enumerate(classes)
    ]
    return markdown_table(header, rows)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


@dataclass(frozen=True, kw_only=True)
class EvaluatedNetwork:
    """The network of a table of predictions; fields as in :class:`~leukemia_models.reports.results.Results`.

    ``calibration`` was fitted on another part than the evaluated one.
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
    network: EvaluatedNetwork,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> Results:
    """Evaluate a table of predictions: per image and per subject, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`~leukemia_models.evaluation.predictions.predictions_table` or
        :func:`~leukemia_models.evaluation.predictions.read_predictions`; rows without a label are left out.
    bootstrap : BootstrapSettings
        Settings of the intervals.

    Raises
    ------
    UsageError
        If no row has a label.
    RunError
        If the table is of other classes than the network.
    """
    samples, classes = evaluated_samples(table, network.classes), network.classes
    return Results(
        model_name=network.model_name,
        classes=classes,
        settings=network.settings,
        split=split,
        epoch=network.epoch,
        metrics=classification_metrics(samples.labels_N, samples.probabilities_NK, classes),
        baseline=majority_baseline(samples.labels_N, samples.num_classes),
        subjects=subject_level(samples, classes),
        intervals=_intervals(samples, bootstrap, classes),
        calibrated=_calibrated(samples, network.calibration, bootstrap, classes) if network.calibration else None,
        judging=network.judging or {},
        identity=network.identity,
        notes=network.notes,
        warnings=network.warnings,
    )


def _intervals(
    samples: EvaluatedSamples, settings: BootstrapSettings, classes: Sequence[str]
) -> dict[str, SubjectBootstrap]:
    evaluated = {
        IMAGE: (samples, DEFAULT_THRESHOLD),
        SUBJECT_MEAN: (subject_samples(samples, "mean"), DEFAULT_THRESHOLD),
        SUBJECT_VOTE: (subject_samples(samples, "vote"), MAJORITY),
    }
    return {
        level: subject_bootstrap(rows, threshold=threshold, settings=settings, classes=classes)
        for level, (rows, threshold) in evaluated.items()
        if rows is not None
    }


def _calibrated(
    samples: EvaluatedSamples, calibration: Calibration, settings: BootstrapSettings, classes: Sequence[str]
) -> CalibratedResults:
    scaled, threshold = calibration.apply(samples), calibration.threshold
    return CalibratedResults(
        calibration=calibration,
        metrics=classification_metrics(scaled.labels_N, scaled.probabilities_NK, classes, threshold=threshold),
        bootstrap=subject_bootstrap(scaled, threshold=threshold, settings=settings, classes=classes),
    )


def write_evaluated(
    out_dir: Path,
    results: Results,
    table: pd.DataFrame,
    more_figures: Sequence[str] = (),
    *,
    for_excel: bool = False,
) -> None:
    """Write ``results.json``, ``summary.md``, ``predictions.csv``, ``subjects.csv`` and figures of an evaluated table.

    Parameters
    ----------
    results, table
        From :func:`results_of_table`, and its argument.
    more_figures : sequence of str
        Other PNG files to name in the page, relative to it.
    for_excel : bool
        Begin CSV files with a byte order mark.

    Raises
    ------
    RunError
        If the folder is a link, by which a run from elsewhere could write anywhere.
    """
    if out_dir.is_symlink():
        raise RunError(f"{out_dir} is a link to {out_dir.readlink()}, and would be written there: remove it first")
    out_dir.mkdir(parents=True, exist_ok=True)
    figures = _draw(out_dir, results, evaluated_samples(table, results.classes))
    stamp = results.split.stamp
    stamped = table.drop(columns="stamp", errors="ignore").assign(stamp=stamp)
    write_table(out_dir / "predictions.csv", stamped, for_excel=for_excel)
    if results.subjects is not None:
        subjects = with_class_names(results.subjects.table, results.classes)
        write_table(out_dir / SUBJECTS_FILE, subjects.assign(stamp=stamp), for_excel=for_excel)
    write_results(out_dir / "results.json", results)
    write_text(out_dir / "summary.md", summary_text(results, (*figures, *more_figures)))


def _draw(out_dir: Path, results: Results, samples: EvaluatedSamples) -> list[str]:
    """Draw the figures for which there are values, and return their file names."""
    classes, named = results.classes, {"title": results.title, "stamp": results.split.stamp}
    calibrated = results.calibrated.calibration.apply(samples) if results.calibrated else None
    figures = {
        "confusion.png": draw_confusion(results.metrics.confusion, classes, **named),
        "reliability.png": draw_reliability(samples, classes, calibrated=calibrated, **named),
    }
    if results.metrics.auroc is not None:
        figures["roc.png"] = draw_roc(samples, classes, interval=results.interval(IMAGE, "auroc"), **named)
    if results.subjects is not None and not results.subjects.table.empty:
        figures["subjects.png"] = draw_subjects(results.subjects.table, classes, **named)
    for name, figure in figures.items():
        save_figure(figure, out_dir / name)
    return list(figures)
