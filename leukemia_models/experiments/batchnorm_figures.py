"""The figure of the BatchNorm experiment: four ways to judge the same weights in, three panels over the epochs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from leukemia_models.experiments.batchnorm_experiment import WAYS, EpochScores
from leukemia_models.reports.figure_style import BLUE, GREEN, ORANGE, VERMILION, stamped_figure

WAY_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "eval_at_once": "(i) eval mode at once",
        "train_mode": "(ii) training mode, 8 views",
        "eval_after_train_mode": "(iii) eval mode after (ii)",
        "eval_reestimated": "(iv) eval mode, re-estimated",
    }
)
_STYLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "eval_at_once": {"color": VERMILION, "linestyle": "-", "marker": "o"},
        "train_mode": {"color": BLUE, "linestyle": "--", "marker": "s"},
        "eval_after_train_mode": {"color": ORANGE, "linestyle": ":", "marker": "^"},
        "eval_reestimated": {"color": GREEN, "linestyle": "-.", "marker": "D"},
    }
)


def draw_batchnorm(epochs: Sequence[EpochScores], *, share_of_labels: float, title: str, stamp: str) -> Figure:
    """Draw validation accuracy, the share of class 1 among the answers and the cross-entropy, per epoch.

    Parameters
    ----------
    epochs : sequence of EpochScores
        At least one.
    share_of_labels : float
        Share of class 1 in the validation labels: what the answers' share should be near, and what always answering
        class 1 scores.
    title : str
        What was trained.
    stamp : str
        Kind of split, printed under the panels.
    """
    figure = stamped_figure((13.0, 4.4), title, stamp)
    accuracy_axes, share_axes, loss_axes = figure.subplots(1, 3)
    _draw_panel(accuracy_axes, epochs, "accuracy", "validation accuracy")
    _draw_panel(share_axes, epochs, "share_positive", "answers that are class 1 (ALL)")
    _draw_panel(loss_axes, epochs, "loss", "validation cross-entropy (log scale)")
    for axes, label in ((accuracy_axes, "always answering ALL"), (share_axes, "share of the labels")):
        line = axes.axhline(share_of_labels, color="0.45", linewidth=1, label=label)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(handles=[line], loc="lower right", fontsize=9)
    loss_axes.set_yscale("log")
    loss_axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
    return figure


def _draw_panel(axes: Axes, epochs: Sequence[EpochScores], quantity: str, label: str) -> None:
    numbers = [scores.epoch for scores in epochs]
    for way in WAYS:
        values = [getattr(getattr(scores, way), quantity) for scores in epochs]
        axes.plot(numbers, values, label=WAY_TITLES[way], markersize=6, markerfacecolor="none", **_STYLES[way])
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color="0.9")
