"""Accuracy per epoch of several runs in one figure: compared runs in, matplotlib figures out.

One colour and one marker a run; the line style tells training (dashed, open markers) from validation (solid, filled).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leukemia_models.comparing.compared_run import ComparedRun, StageCurve
from leukemia_models.reports.figure_style import series_style, stamped_figure

MAX_MARKS = 12
# Heights of the stages' names as shares of the axes: above them, where no curve is.
_ABOVE_AXES, _LINE_SHARE = 1.01, 0.04


def draw_accuracies(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure:
    """Draw training and validation accuracy per epoch of all runs in one figure.

    The epochs of later stages follow those of earlier ones; a vertical line marks where a stage begins.

    Parameters
    ----------
    runs : sequence of ComparedRun
        Each is two lines, or one where nothing was validated.
    title, stamp : str
        As for :func:`~leukemia_models.reports.figure_style.stamped_figure`.
    """
    figure, axes = _curve_axes(title, stamp)
    for number, run in enumerate(runs):
        _draw_curves(axes, number, run.marked_label, run.stages)
    _mark_stages(axes, runs)
    _finish_curves(figure, axes, "epoch, counted through all stages" if _has_stages(runs) else "epoch")
    return figure


def draw_stage_accuracies(runs: Sequence[ComparedRun], stage: int, *, title: str, stamp: str) -> Figure:
    """Draw the same of one stage, counted from 0; its epochs are counted from 1.

    Parameters
    ----------
    runs : sequence of ComparedRun
        Those with fewer stages are left out, and keep their colours.
    stage : int
        Position of the stage.
    title, stamp : str
        As for :func:`draw_accuracies`.
    """
    figure, axes = _curve_axes(title, stamp)
    is_named_alike = len({run.stages[stage].name for run in runs if stage < len(run.stages)}) == 1
    for number, run in enumerate(runs):
        if stage < len(run.stages):
            name = run.stages[stage].name
            label = run.marked_label if is_named_alike or not name else f"{run.marked_label}, {name},"
            _draw_curves(axes, number, label, run.stages[stage : stage + 1])
    _finish_curves(figure, axes, "epoch of the stage")
    return figure


def stage_names(runs: Sequence[ComparedRun], stage: int) -> list[str]:
    """Different names that the runs give a stage, counted from 0; one without a plan has none."""
    return sorted({run.stages[stage].name for run in runs if stage < len(run.stages)} - {""})


def _has_stages(runs: Sequence[ComparedRun]) -> bool:
    return any(len(run.stages) > 1 for run in runs)


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
            # Marks of different runs on different epochs: they stay visible where lines coincide.
            markevery=(min(number, len(values) - 1) % step, step),
        )


def _mark_stages(axes: Axes, runs: Sequence[ComparedRun]) -> None:
    """Draw a line where a stage begins: one for all runs with stages where they agree, else one each in its colour."""
    staged = [(number, run) for number, run in enumerate(runs) if len(run.stages) > 1]
    boundaries = {tuple((stage.name, len(stage.epochs)) for stage in run.stages) for _, run in staged}
    if len(boundaries) == 1:
        _draw_boundaries(axes, staged[0][1].stages, "0.45", "", _ABOVE_AXES)
        return
    for row, (number, run) in enumerate(staged):
        _draw_boundaries(
            axes, run.stages, series_style(number).color, f"{run.label}: ", _ABOVE_AXES + _LINE_SHARE * row
        )


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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color="0.9")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8, handlelength=3.2)
