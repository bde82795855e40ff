"""What several runs were judged to be, in one figure each: compared runs in, matplotlib figures out.

One style a run in all figures: a colour, and a marker for readers and printers without colours. Where patients are
mixed, the name of the run says so in every legend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from leukemia_data.files.plain_text import printable
from leukemia_models.comparing.compared_run import ComparedRun
from leukemia_models.reports.figure_style import series_style, stamped_figure, wrapped_name
from leukemia_models.reports.judging_figures import AXIS_LETTERS, draw_confusion_on, legend_above

MAX_COLUMNS = 4
_INCHES_PER_SUBJECT = 0.24
_INCHES_PER_RUN = 0.16
_CLASS_LETTERS = 30
_MOST_SUBJECTS = 150


def draw_confusions(runs: Sequence[ComparedRun], *, title: str, stamp: str) -> Figure:
    """Draw the runs' confusion matrices side by side: shares of each true class, with the counts.

    Parameters
    ----------
    runs : sequence of ComparedRun
        One panel each, at most four in a row.
    title, stamp : str
        As for :func:`~leukemia_models.reports.figure_style.stamped_figure`.
    """
    num_columns = min(len(runs), MAX_COLUMNS)
    num_rows = math.ceil(len(runs) / num_columns)
    figure = stamped_figure((3.7 * num_columns + 0.9, 3.9 * num_rows + 0.5), title, stamp)
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
    """Draw the runs' ROC curves together, per image; runs judged on one class have none.

    Parameters
    ----------
    runs : sequence of ComparedRun
        The legend names each with its area and, where there is one, the interval by resampling subjects.
    title, stamp : str
        As for :func:`draw_confusions`.
    """
    classes = runs[0].classes
    figure = stamped_figure((6.2, 6.0 + _INCHES_PER_RUN * len(runs)), title, stamp)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="chance")
    for number, run in enumerate(runs):
        if run.metrics.auroc is not None:
            _draw_roc(axes, number, run, run.metrics.auroc)
    axes.set_xlabel(wrapped_name(f"share of '{classes[0]}' called '{classes[1]}' (1 - specificity)", AXIS_LETTERS))
    axes.set_ylabel(wrapped_name(f"share of '{classes[1]}' called '{classes[1]}' (sensitivity)", AXIS_LETTERS))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.grid(visible=True, color="0.9")
    legend_above(axes)
    return figure


def _draw_roc(axes: Axes, number: int, run: ComparedRun, auroc: float) -> None:
    style = series_style(number)
    false_shares, true_shares, _ = roc_curve(run.samples.labels_N, run.samples.probabilities_N)
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
    """Draw for every subject which share of its images each run got right; None where no subject is known.

    Parameters
    ----------
    runs : sequence of ComparedRun
        One mark each per subject that it was judged on.
    title, stamp : str
        As for :func:`draw_confusions`.
    """
    shares = [_shares_of(run) for run in runs]
    keys = sorted({key for each in shares for key in each}, key=lambda key: (key[0], _mean_share(key, shares), key[1]))
    if not keys:
        return None
    shown = keys if len(keys) <= _MOST_SUBJECTS else keys[:: math.ceil(len(keys) / _MOST_SUBJECTS)]
    figure = stamped_figure((max(7.0, 2.0 + _INCHES_PER_SUBJECT * len(shown)), 4.8), title, stamp)
    axes = figure.subplots()
    for number, (run, share_of) in enumerate(zip(runs, shares, strict=True)):
        _draw_marks(axes, number, len(runs), run.marked_label, [share_of.get(key, math.nan) for key in shown])
    _finish_subjects(figure, axes, shown, runs[0].classes)
    if len(shown) < len(keys):
        axes.set_xlabel(f"{axes.get_xlabel()}; {len(shown)} of {len(keys)} shown")
    return figure


def _shares_of(run: ComparedRun) -> dict[tuple[int, str], float]:
    """By class and subject: share of the images that were judged right."""
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
    # Side by side: marks of several runs on one subject would hide each other.
    aside = 0.5 * ((number + 0.5) / num_runs - 0.5)
    axes.plot(
        np.arange(len(values)) + aside,
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
            axes.axvspan(members[0] - 0.5, members[-1] + 0.5, color="0.5", alpha=0.10 * label, zorder=0, linewidth=0)
            middle, words = (members[0] + members[-1]) / 2, wrapped_name(f"true class {name}", _CLASS_LETTERS)
            place = axes.get_xaxis_transform()
            axes.text(middle, 1.01, words, ha="center", va="bottom", fontsize=9, transform=place)
    axes.axhline(0.5, color="0.45", linestyle=":", linewidth=1)
    axes.set_xticks(
        range(len(keys)), [printable(subject) for _, subject in keys], rotation=90, fontsize=8, parse_math=False
    )
    axes.set_xlim(-0.6, len(keys) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel("subject, in the order of the mean share right")
    axes.set_ylabel("share of the subject's images judged right")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
