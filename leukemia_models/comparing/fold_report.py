"""Page, tables and figure of an evaluated cross-validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leukemia_data.files.atomic import write_text
from leukemia_data.files.text import printable
from leukemia_data.lazy_imports import pd
from leukemia_models.comparing.fold_evaluation import (
    POOLED_NAME,
    CrossValidation,
    FoldMetrics,
    Spread,
    cross_validate,
    read_fold,
)
from leukemia_models.evaluation.metrics import main_metric_names, metric_title
from leukemia_models.evaluation.predictions import write_table
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.results import IMAGE, SUBJECT_MEAN, cautions
from leukemia_models.reports.style import (
    BLACK,
    BLUE,
    VERMILION,
    code,
    interval_text,
    markdown_table,
    number_text,
    plain,
    quoted_paragraphs,
    save_figure,
    stamped_figure,
    without_repeats,
    wrapped_name,
)
from leukemia_models.reports.summary_page import write_evaluated

_MAX_NUMBERED_FOLDS = 12
# Leaves room for the number of a fold whose metric is 1.
_TOP = 1.07
_TITLE_LETTERS = 19
_FOLDS_WIDTH, _MEAN_AT, _POOLED_AT = 0.36, 0.24, 0.36


def draw_folds(result: CrossValidation) -> Figure:
    """Draw the folds' metrics per image as dots, with mean, standard deviation and pooled value beside them."""
    title = f"{result.pooled.model_name}, {result.name}: each fold, mean and pooled"
    figure = stamped_figure((9.6, 4.8), title, result.stamp)
    axes = figure.subplots()
    shown = main_metric_names(len(result.pooled.classes))
    for position, name in enumerate(shown):
        values = [fold.values[name] for fold in result.folds]
        _draw_values(axes, position, values)
        _draw_mean(axes, position, result.spread[name])
        _draw_pooled(axes, position, name, result)
    axes.set_xticks(range(len(shown)), _titles(result.pooled.classes))
    axes.set_xlim(-0.5, len(shown) - 0.5)
    lowest, highest = axes.get_ylim()
    # A mean with its standard deviation may reach beyond 0 or 1.
    axes.set_yticks(np.arange(11) / 10)
    axes.set_ylim(min(0.5, lowest), max(_TOP, highest))
    axes.set_ylabel("per image")
    axes.grid(visible=True, axis="y", color="0.9")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside right center", fontsize=8)
    return figure


def _titles(classes: Sequence[str]) -> list[str]:
    """Return the titles of the metrics, with the class on separate lines."""
    names = main_metric_names(len(classes))
    titles = [printable(metric_title(name, classes)).partition(" (") for name in names]
    return [
        "\n".join([name, *([wrapped_name(f"({rest}", _TITLE_LETTERS)] if rest else [])]) for name, _, rest in titles
    ]


def _draw_values(axes: Axes, position: int, values: Sequence[float | None]) -> None:
    is_numbered = len(values) <= _MAX_NUMBERED_FOLDS
    xs = position + np.linspace(-_FOLDS_WIDTH, 0.1, len(values))
    for fold, (x, value) in enumerate(zip(xs, values, strict=True), 1):
        if is_numbered and value is not None:
            axes.annotate(
                str(fold), (x, value), xytext=(0, 5), textcoords="offset points", fontsize=7, ha="center", color="0.3"
            )
    axes.plot(
        xs,
        [np.nan if value is None else value for value in values],
        linestyle="none",
        marker="o",
        markersize=5 if is_numbered else 3.5,
        markerfacecolor="white",
        color=BLUE,
        label="one fold, its number" if is_numbered else "one fold",
    )


def _draw_mean(axes: Axes, position: int, spread: Spread) -> None:
    if spread.mean is None:
        return
    axes.errorbar(
        position + _MEAN_AT,
        spread.mean,
        yerr=spread.sd,
        color=BLACK,
        marker="s",
        markersize=5,
        capsize=4,
        label="mean over folds,\nstandard deviation",
    )


def _draw_pooled(axes: Axes, position: int, name: str, result: CrossValidation) -> None:
    value = result.pooled.metrics.values()[name]
    if value is None:
        return
    interval = result.pooled.interval(IMAGE, name)
    reach = [[value - interval.low], [interval.high - value]] if interval else None
    axes.errorbar(
        position + _POOLED_AT,
        value,
        # A percentile interval need not contain its value.
        yerr=np.maximum(reach, 0) if reach else None,
        color=VERMILION,
        marker="D",
        markersize=5.5,
        capsize=4,
        linestyle="none",
        elinewidth=1.6,
        label="pooled, interval by\nresampling subjects" if interval else "pooled",
    )


FORMAT = "leukemia-cells k-fold results"
FORMAT_VERSION = 1
FOLDS_FIGURE = "folds.png"
_READING = (
    "The standard deviation over the folds shows how much the result of one training differs with the people in it. It "
    "is no standard error: the folds share most of their training images. The pooled interval shows how much the "
    "result depends on which subjects are in the data; it does not include the randomness of training."
)


def pool_folds(
    fold_dirs: Sequence[Path], out_dir: Path, bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
) -> CrossValidation:
    """Evaluate the trained folds of a cross-validation together, and write the result.

    Parameters
    ----------
    fold_dirs
        In their order, as for :func:`~leukemia_models.comparing.fold_evaluation.read_fold`.
    out_dir
        Gets ``summary.md``, ``results.json``, ``folds.csv``, ``folds.png``, ``predictions.csv`` (with a column
        ``fold``) and ``pooled/``, the evaluated out-of-fold predictions.
    bootstrap
        Settings of the pooled intervals.

    Raises
    ------
    RunError
        If a fold is missing or unfinished, or the folds do not hold out every labelled sample exactly once.
    """
    result = cross_validate([read_fold(path) for path in fold_dirs], bootstrap)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_evaluated(out_dir / POOLED_NAME, result.pooled, result.table.drop(columns="fold"))
    stamped = result.table.drop(columns="stamp", errors="ignore").assign(stamp=result.stamp)
    write_table(out_dir / "predictions.csv", stamped)
    write_table(out_dir / "folds.csv", folds_table(result))
    save_figure(draw_folds(result), out_dir / FOLDS_FIGURE)
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **result.to_dict()}
    write_text(out_dir / "results.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_text(out_dir / "summary.md", cross_validation_text(result))
    return result


def folds_table(result: CrossValidation) -> pd.DataFrame:
    """Return one row per fold: counts of held-out samples and metrics, missing if undefined."""
    rows = []
    for fold in result.folds:
        subjects = fold.subjects_per_class or (None,) * len(fold.images_per_class)
        counts = {
            f"{unit}_{name}": count
            for unit, numbers in (("images", fold.images_per_class), ("subjects", subjects))
            for name, count in zip(result.pooled.classes, numbers, strict=True)
        }
        rows.append(
            {
                "fold": fold.name,
                "split": fold.split,
                "epoch": fold.epoch,
                "positive": result.pooled.positive,
                **counts,
                **fold.values,
                "stamp": fold.stamp,
            }
        )
    return pd.DataFrame(rows)


def cross_validation_text(result: CrossValidation) -> str:
    """Return the page as Markdown."""
    stamp = result.stamp
    sections = [
        f"# {plain(result.pooled.model_name)}: cross-validation, {plain(result.name)}",
        f"Split: **{stamp}**" + (" (the counts are those of the worst fold)" if "(" in stamp else ""),
        "" if result.pooled.positive is None else f"Positive class: **{code(result.pooled.positive)}**",
        quoted_paragraphs(cautions(result.pooled)),
        f"## Mean and spread over the folds ({stamp})\n\n" + _spread_section(result),
        f"## Pooled out-of-fold predictions ({stamp})\n\n" + _pooled_section(result),
        f"## Every fold, per image ({stamp})\n\n" + _folds_section(result),
        "## How to read this\n\n" + _READING,
        f"## Files\n\n- [{FOLDS_FIGURE}]({FOLDS_FIGURE})\n"
        "- [predictions.csv](predictions.csv), [folds.csv](folds.csv)\n"
        f"- [{POOLED_NAME}/summary.md]({POOLED_NAME}/summary.md): confusion, ROC, reliability, subjects",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _spread_section(result: CrossValidation) -> str:
    rows = [
        (
            metric_title(name, result.pooled.classes, code),
            *map(number_text, (spread.mean, spread.sd, spread.low, spread.high)),
            f"{spread.num_folds} of {spread.num_folds + spread.num_undefined}",
        )
        for name, spread in result.spread.items()
    ]
    table = markdown_table(("per image", "mean", "sd", "lowest", "highest", "folds that define it"), rows)
    if not result.num_one_class_folds:
        return table
    return (
        f"{table}\n\n{result.num_one_class_folds} of {len(result.folds)} folds hold out one class alone. Of these, "
        "only its recall is averaged; all other metrics are left undefined."
    )


def _pooled_section(result: CrossValidation) -> str:
    pooled, subjects = result.pooled, result.pooled.subjects
    images, people = pooled.intervals.get(IMAGE), pooled.intervals.get(SUBJECT_MEAN)
    per_subject = subjects.mean.values() if subjects and subjects.mean else {}
    level = f"{100 * images.settings.level:g} % interval" if images else "interval"
    header = ("", "per image", level, "per subject", level, "mean over folds, per image")
    rows = [
        (
            metric_title(name, pooled.classes, code),
            number_text(pooled.metrics.values()[name]),
            interval_text(pooled.interval(IMAGE, name)),
            number_text(per_subject.get(name)),
            interval_text(pooled.interval(SUBJECT_MEAN, name)),
            number_text(result.spread[name].mean),
        )
        for name in result.spread
    ]
    notes = without_repeats(each.note for each in (images, people) if each is not None and each.note)
    return "\n\n".join([markdown_table(header, rows), *map(plain, notes), *map(plain, pooled.notes)])


def _folds_section(result: CrossValidation) -> str:
    classes = result.pooled.classes
    header = (
        "fold",
        "held out",
        *(f"images {code(name)}" for name in classes),
        *(f"subjects {code(name)}" for name in classes),
        "epoch",
        *(metric_title(name, classes, code) for name in main_metric_names(len(classes))),
        "split",
    )
    return markdown_table(header, _fold_rows(result.folds))


def _fold_rows(folds: Sequence[FoldMetrics]) -> Iterator[tuple[object, ...]]:
    for fold in folds:
        subjects = fold.subjects_per_class or ("unknown",) * len(fold.images_per_class)
        names = main_metric_names(len(fold.images_per_class))
        values = ("-" if (value := fold.values[name]) is None else f"{value:.3f}" for name in names)
        epoch = "-" if fold.epoch is None else fold.epoch
        yield plain(fold.name), code(fold.split), *fold.images_per_class, *subjects, epoch, *values, fold.stamp
