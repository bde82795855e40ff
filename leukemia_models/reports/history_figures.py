"""The figure of one run's training: its epochs in, accuracy and loss as curves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leukemia_models.learning.history import EpochRecord, TrainHistory
from leukemia_models.reports.figure_style import TRAIN_STYLE, VALID_STYLE, stamped_figure

MAX_MARKED_EPOCHS = 30


def draw_history(history: TrainHistory, *, title: str, stamp: str) -> Figure:
    """Draw accuracy and loss per epoch, for training and validation.

    Parameters
    ----------
    history : TrainHistory
        With at least one epoch.
    title : str
        For example the network's name.
    stamp : str
        Kind of split, printed under the panels; highlighted unless it is subject-disjoint.
    """
    figure = stamped_figure((9.0, 4.0), title, stamp)
    accuracy_axes, loss_axes = figure.subplots(1, 2)
    _draw_curves(accuracy_axes, history.records, "accuracy")
    _draw_curves(loss_axes, history.records, "loss")
    accuracy_axes.set_ylabel("accuracy (share of images)")
    loss_axes.set_ylabel("loss (cross-entropy)")
    accuracy_axes.set_ylim(min(0.5, accuracy_axes.get_ylim()[0]), 1.01)
    loss_axes.set_ylim(0, 1.05 * max(loss_axes.dataLim.ymax, 1e-3))
    best = history.best
    if best is not None and best.valid_accuracy is not None:
        for axes in (accuracy_axes, loss_axes):
            axes.axvline(best.epoch, color="0.4", linestyle=":", label=f"best epoch ({best.epoch})")
    accuracy_axes.legend(loc="lower right", framealpha=0.9)
    loss_axes.legend(loc="upper right", framealpha=0.9)
    return figure


def _draw_curves(axes: Axes, records: Sequence[EpochRecord], quantity: str) -> None:
    epochs = [record.epoch for record in records]
    for part, style in (("train", TRAIN_STYLE), ("valid", VALID_STYLE)):
        values = [getattr(record, f"{part}_{quantity}") for record in records]
        if all(value is None for value in values):
            continue
        marked = style if len(records) <= MAX_MARKED_EPOCHS else {**style, "marker": None}
        axes.plot(epochs, [np.nan if value is None else value for value in values], markersize=4, **marked)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color="0.9")
