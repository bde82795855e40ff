"""Figures of several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leukemia_data.files.text import printable
from leukemia_models.comparing.compared_run import ComparedRun, StageCurve
from leukemia_models.evaluation.curves import mean_roc
from leukemia_models.evaluation.evaluated_samples import MAX_LISTED_CLASSES
from leukemia_models.reports.evaluation_figures import confusion_inches, draw_confusion_on, finish_roc, legend_above
from leukemia_models.reports.style import series_style, stamped_figure, tick_whole_numbers, wrapped_name

MAX_COLUMNS = 4
_INCHES_PER_SUBJECT = 0.24
_INCHES_PER_RUN = 0.16
_CLASS_LETTERS = 30
_MAX_SUBJECTS = 150


def draw_confusions(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure:
    """Draw the confusion matrices of runs side by side, at most four in a row.

    `title` and `stamp` as for :func:`~leukemia_models.reports.style.stamped_figure`, here and below.
    """
    num_columns = min(len(runs), MAX_COLUMNS)
    num_rows = math.ceil(len(runs) / num_columns)
    side = confusion_inches(len(runs[0].classes)) - 0.9
    figure = stamped_figure((side * num_columns + 0.9, (side + 0.2) * num_rows + 0.5), title, stamp)
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    used = panels.ravel()[: len(runs)]
    for axes, run in zip(used, runs, strict=True):
        image = draw_confusion_on(axes, run.metrics.confusion, run.classes)
        axes.set_title(run.marked_label.replace(" (", "\n("), fontsize=10)
    for axes in panels.ravel()[len(runs) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=panels, label="share of the true class", fraction=0.03, pad=0.02)
    return figure


def draw_rocs(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure:
    """Draw the ROC curves of runs per image, without runs evaluated on one class.

    The legend has each area with its interval by resampling subjects.
    """
    figure = stamped_figure((6.2, 6.0 + _INCHES_PER_RUN * len(runs)), title, stamp)
    axes = figure.subplots()
    for number, run in enumerate(runs):
        if run.metrics.auroc is not None:
            _draw_roc(axes, number, run, run.metrics.auroc)
    finish_roc(axes, runs[0].classes)
    legend_above(axes)
    return figure


def _draw_roc(axes: Axes, number: int, run: ComparedRun, auroc: float) -> None:
    style = series_style(number)
    false_shares, true_shares = mean_roc(run.samples)
    interval = run.intervals.intervals.get("auroc")
    spread = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
    axes.plot(
        false_shares,
        true_shares,
        color=style.color,
        linestyle=("-", "--", "-.", (0, (1, 1)))[number % 4],
        linewidth=1.8,
        marker=style.marker,
        markersize=5,
        markevery=(0.03 + 0.02 * number, 0.15),
        label=f"{run.marked_label}: AUROC {auroc:.3f}{spread}",
    )


def draw_subject_shares(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure | None:
    """Draw the fraction of each subject's images that each run predicts right; None if no subject is known."""
    shares = [_shares_of(run) for run in runs]
    keys = sorted({key for each in shares for key in each}, key=lambda key: (key[0], _mean_share(key, shares), key[1]))
    if not keys:
        return None
    shown = keys if len(keys) <= _MAX_SUBJECTS else keys[:: math.ceil(len(keys) / _MAX_SUBJECTS)]
    figure = stamped_figure((max(7.0, 2.0 + _INCHES_PER_SUBJECT * len(shown)), 4.8), title, stamp)
    axes = figure.subplots()
    for number, (run, share_of) in enumerate(zip(runs, shares, strict=True)):
        _draw_marks(axes, number, len(runs), run.marked_label, [share_of.get(key, math.nan) for key in shown])
    _finish_subjects(figure, axes, shown, runs[0].classes)
    if len(shown) < len(keys):
        axes.set_xlabel(f"{axes.get_xlabel()}; {len(shown)} of {len(keys)} shown")
    return figure


def _shares_of(run: ComparedRun) -> dict[tuple[int, str], float]:
    """Return the fraction of images predicted right by class and subject."""
    table = run.subject_level.table
    table = table[table["label"].notna()]
    return {
        (int(label), str(subject)): float(share)
        for label, subject, share in zip(table["label"], table["subject"], table["share_right"], strict=True)
    }


def _mean_share(key: tuple[int, str], shares: Sequence[dict[tuple[int, str], float]]) -> float:
    return float(np.mean([each[key] for each in shares if key in each]))


def _draw_marks(axes: Axes, number: int, num_runs: int, label: str, values: Sequence[float]) -> None:
    style = series_style(number)
    # Side by side, because marks of several runs on one subject would hide each other.
    offset = 0.5 * ((number + 0.5) / num_runs - 0.5)
    axes.plot(
        np.arange(len(values)) + offset,
        values,
        linestyle="none",
        marker=style.marker,
        markersize=5.5,
        color=style.color,
        markeredgecolor="black",
        markeredgewidth=0.4,
        label=label,
        zorder=3,
    )


def _finish_subjects(figure: Figure, axes: Axes, keys: Sequence[tuple[int, str]], classes: Sequence[str]) -> None:
    for position in range(len(keys)):
        axes.axvline(position, color="0.92", linewidth=0.8, zorder=0)
    for label, name in enumerate(classes):
        members = [position for position, key in enumerate(keys) if key[0] == label]
        if members:
            axes.axvspan(
                members[0] - 0.5, members[-1] + 0.5, color="0.5", alpha=0.10 * (label % 2), zorder=0, linewidth=0
            )
            middle, place = (members[0] + members[-1]) / 2, axes.get_xaxis_transform()
            if len(classes) <= MAX_LISTED_CLASSES:
                words = wrapped_name(f"true class {name}", _CLASS_LETTERS)
                axes.text(middle, 1.01, words, ha="center", va="bottom", fontsize=9, transform=place)
            else:
                words = wrapped_name(name, _CLASS_LETTERS)
                axes.text(middle, 1.01, words, ha="left", va="bottom", fontsize=8, rotation=45, transform=place)
    axes.axhline(0.5, color="0.45", linestyle=":", linewidth=1)
    axes.set_xticks(
        range(len(keys)), [printable(subject) for _, subject in keys], rotation=90, fontsize=8, parse_math=False
    )
    axes.set_xlim(-0.6, len(keys) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel("subject, in the order of the mean share right")
    axes.set_ylabel("share of the subject's images predicted right")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)


MAX_MARKS = 12
# Height of the first line of stage names and distance of the next ones, as fractions of the axes.
_NAMES_HEIGHT, _LINE_HEIGHT = 1.01, 0.04


def draw_accuracies(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure:
    """Draw training and validation accuracy per epoch; a vertical line marks where a stage begins."""
    figure, axes = _curve_axes(title, stamp)
    for number, run in enumerate(runs):
        _draw_curves(axes, number, run.marked_label, run.stages)
    _mark_stages(axes, runs)
    has_stages = any(len(run.stages) > 1 for run in runs)
    _finish_curves(figure, axes, "epoch, counted through all stages" if has_stages else "epoch")
    return figure


def draw_stage_accuracies(runs: Sequence[ComparedRun], stage: int, *, title: str, stamp: str) -> Figure:
    """Draw the accuracies of one stage, counted from 0; runs without it are left out."""
    figure, axes = _curve_axes(title, stamp)
    has_one_name = len({run.stages[stage].name for run in runs if stage < len(run.stages)}) == 1
    for number, run in enumerate(runs):
        if stage < len(run.stages):
            name = run.stages[stage].name
            label = run.marked_label if has_one_name or not name else f"{run.marked_label}, {name},"
            _draw_curves(axes, number, label, run.stages[stage : stage + 1])
    _finish_curves(figure, axes, "epoch of the stage")
    return figure


def stage_names(runs: Sequence[ComparedRun], stage: int) -> list[str]:
    """Return the different names of a stage, counted from 0; runs without a plan have none."""
    return sorted({run.stages[stage].name for run in runs if stage < len(run.stages)} - {""})


def _curve_axes(title: str, stamp: str) -> tuple[Figure, Axes]:
    figure = stamped_figure((9.0, 5.0), title, stamp)
    return figure, figure.subplots()


def _draw_curves(axes: Axes, number: int, label: str, stages: Sequence[StageCurve]) -> None:
    epochs = [epoch for stage in stages for epoch in stage.epochs]
    style = series_style(number)
    lines = (
        ("train", [epoch.train for epoch in epochs], (0, (4, 2)), "white"),
        ("valid", [math.nan if epoch.valid is None else epoch.valid for epoch in epochs], "-", style.color),
    )
    step = max(1, math.ceil(len(epochs) / MAX_MARKS))
    for part, values, line_style, inside in lines:
        if all(map(math.isnan, values)):
            continue
        axes.plot(
            range(1, len(values) + 1),
            values,
            label=f"{label} {part}",
            color=style.color,
            linestyle=line_style,
            linewidth=1.6,
            marker=style.marker,
            markersize=5.5,
            markerfacecolor=inside,
            # On different epochs for different runs, so that they are visible on equal lines.
            markevery=(min(number, len(values) - 1) % step, step),
        )


def _mark_stages(axes: Axes, runs: Sequence[ComparedRun]) -> None:
    """Draw a line where a stage begins: for all staged runs if they are equal, else for each in its colour."""
    staged = [(number, run) for number, run in enumerate(runs) if len(run.stages) > 1]
    boundaries = {tuple((stage.name, len(stage.epochs)) for stage in run.stages) for _, run in staged}
    if len(boundaries) == 1:
        _draw_boundaries(axes, staged[0][1].stages, "0.45", "", _NAMES_HEIGHT)
        return
    for row, (number, run) in enumerate(staged):
        color, height = series_style(number).color, _NAMES_HEIGHT + _LINE_HEIGHT * row
        _draw_boundaries(axes, run.stages, color, f"{run.label}: ", height)


def _draw_boundaries(axes: Axes, stages: Sequence[StageCurve], color: str, prefix: str, height: float) -> None:
    starts = [0, *accumulate(len(stage.epochs) for stage in stages[:-1])]
    for stage, start in zip(stages, starts, strict=True):
        if start:
            axes.axvline(start + 0.5, color=color, linestyle=":", linewidth=1.4, zorder=0)
        axes.annotate(
            f"{prefix}{stage.name}",
            (start + 0.5, height),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=8,
            color="0.25",
        )


def _finish_curves(figure: Figure, axes: Axes, x_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel("accuracy (share of images)")
    axes.set_xlim(0.5, max(1.0, axes.dataLim.xmax) + 0.5)
    axes.set_ylim(min(0.5, axes.get_ylim()[0]), 1.01)
    tick_whole_numbers(axes.xaxis)
    axes.grid(visible=True, color="0.9")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8, handlelength=3.2)
