"""Figures of one run: epochs and confusion matrices in, matplotlib figures and PNG files out.

Drawn through matplotlib's objects with its Agg canvas, so no window, no display and no global state is involved. The
two colours are those of Okabe and Ito, told apart by colour-blind readers; line style and marker tell them apart
on a black-and-white print. Every figure carries its split's stamp: a number without it cannot be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leukemia_data.atomic import atomic_path
from leukemia_data.splits import DISJOINT_STAMP
from leukemia_models.history import EpochRecord, TrainHistory

TRAIN_STYLE: dict[str, Any] = {"color": "#0072B2", "linestyle": "--", "marker": "o", "label": "training"}
VALID_STYLE: dict[str, Any] = {"color": "#D55E00", "linestyle": "-", "marker": "s", "label": "validation"}
MAX_MARKED_EPOCHS = 30
DOTS_PER_INCH = 160


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
    figure = _stamped_figure((9.0, 4.0), title, stamp)
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


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], *, title: str, stamp: str) -> Figure:
    """Draw a confusion matrix: shares of each true class, with the counts.

    Parameters
    ----------
    confusion : sequence of sequences of int
        ``confusion[label][prediction]``.
    classes : sequence of str
        Name of each label.
    title, stamp : str
        As for :func:`draw_history`.
    """
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure = _stamped_figure((4.8, 4.3), title, stamp)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{shares[row, column]:.1%}" if totals[row, 0] else "none"
        ink = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{share}\n({count:,})", ha="center", va="center", color=ink, fontsize=12)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(
        range(len(classes)), [f"{name}\n(n = {total:,})" for name, total in zip(classes, totals[:, 0], strict=True)]
    )
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.04)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically; the same figure gives the same bytes."""
    with atomic_path(path) as partial:
        # The canvas binds itself to the figure; without "Software" the bytes do not name matplotlib's version.
        FigureCanvasAgg(figure)
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def _stamped_figure(size_inches: tuple[float, float], title: str, stamp: str) -> Figure:
    figure = Figure(figsize=size_inches, layout="constrained")
    figure.suptitle(title, fontsize=12)
    is_warning = stamp != DISJOINT_STAMP
    box = {"boxstyle": "round", "facecolor": "#F0E442" if is_warning else "white", "edgecolor": "0.4"}
    figure.supxlabel(f"split: {stamp}", fontsize=9, fontweight="bold" if is_warning else "normal", bbox=box)
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
