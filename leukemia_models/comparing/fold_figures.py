"""The figure of a cross-validation: every fold's metrics, their mean and spread, and the pooled value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leukemia_data.files.plain_text import printable
from leukemia_models.comparing.cross_validation import SHOWN_METRICS, CrossValidation
from leukemia_models.comparing.fold_metrics import Spread
from leukemia_models.judging.metrics import metric_title
from leukemia_models.reports.figure_style import BLACK, BLUE, VERMILION, stamped_figure, wrapped_name
from leukemia_models.reports.report import IMAGE

_MOST_NUMBERED_FOLDS = 12
# Leaves room for the number of a fold whose metric is 1.
_TOP = 1.07
_TITLE_LETTERS = 19
_FOLDS_WIDTH, _MEAN_AT, _POOLED_AT = 0.36, 0.24, 0.36


def draw_folds(result: CrossValidation) -> Figure:
    """Draw the folds' metrics per image as dots, beside them mean and standard deviation, and the pooled value.

    Parameters
    ----------
    result : CrossValidation
        Metrics that no fold defines have a pooled value only.
    """
    title = f"{result.pooled.model_name}, {result.name}: each fold, mean and pooled"
    figure = stamped_figure((9.6, 4.8), title, result.stamp)
    axes = figure.subplots()
    for position, name in enumerate(SHOWN_METRICS):
        values = [fold.values[name] for fold in result.folds]
        _draw_values(axes, position, values)
        _draw_mean(axes, position, result.spread[name])
        _draw_pooled(axes, position, name, result)
    axes.set_xticks(range(len(SHOWN_METRICS)), _titles(result.pooled.classes))
    axes.set_xlim(-0.5, len(SHOWN_METRICS) - 0.5)
    lowest, highest = axes.get_ylim()
    # No metric is above 1 or below 0, and no tick, but a mean with its standard deviation may be.
    axes.set_yticks(np.arange(11) / 10)
    axes.set_ylim(min(0.5, lowest), max(_TOP, highest))
    axes.set_ylabel("per image")
    axes.grid(visible=True, axis="y", color="0.9")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside right center", fontsize=8)
    return figure


def _titles(classes: Sequence[str]) -> list[str]:
    """What the values are of, with the class on lines of its own."""
    titles = [printable(metric_title(name, classes)).partition(" (") for name in SHOWN_METRICS]
    return [
        "\n".join([name, *([wrapped_name(f"({rest}", _TITLE_LETTERS)] if rest else [])]) for name, _, rest in titles
    ]


def _draw_values(axes: Axes, position: int, values: Sequence[float | None]) -> None:
    is_numbered = len(values) <= _MOST_NUMBERED_FOLDS
    aside = np.linspace(-_FOLDS_WIDTH, 0.1, len(values))
    points = [
        (position + step, value, fold)
        for fold, (step, value) in enumerate(zip(aside, values, strict=True), 1)
        if value is not None
    ]
    for x, value, fold in points if is_numbered else ():
        axes.annotate(
            str(fold), (x, value), xytext=(0, 5), textcoords="offset points", fontsize=7, ha="center", color="0.3"
        )
    axes.plot(
        [x for x, _, _ in points],
        [value for _, value, _ in points],
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
    bootstrap = result.pooled.intervals.get(IMAGE)
    interval = bootstrap.intervals.get(name) if bootstrap else None
    reach = [[value - interval.low], [interval.high - value]] if interval else None
    axes.errorbar(
        position + _POOLED_AT,
        value,
        # A percentile interval may lie beside its value.
        yerr=np.maximum(reach, 0) if reach else None,
        color=VERMILION,
        marker="D",
        markersize=5.5,
        capsize=4,
        linestyle="none",
        elinewidth=1.6,
        label="pooled, interval by\nresampling subjects" if interval else "pooled",
    )
