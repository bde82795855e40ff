"""Figures of an evaluated part, and of the epochs of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leukemia_data.files.atomic import write_text
from leukemia_data.files.text import printable
from leukemia_data.lazy_imports import pd
from leukemia_models.evaluation.curves import mean_roc, reliability_bins, roc_of_class, sklearn_metrics
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, MAX_LISTED_CLASSES, EvaluatedSamples
from leukemia_models.evaluation.resampling import Interval
from leukemia_models.evaluation.subject_level import subject_samples
from leukemia_models.reports.style import (
    COLORS,
    LINE_STYLES,
    TRAIN_STYLE,
    VALID_STYLE,
    series_style,
    stamped_figure,
    tick_whole_numbers,
    wrapped_name,
)
from leukemia_models.training.history import EPOCH_FIELDS, EpochRecord, TrainHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

BOTH_CLASSES = -1
MAX_SUBJECTS_IN_A_COLUMN = 30
MAX_NAMED_SUBJECTS = 60
INCHES_PER_SUBJECT = 0.165
"""Of a readable name in print; the 47 and 26 subjects of C-NMC then fit on a page."""
UNNAMED_HEIGHT_INCHES = 7.0
TICK_LETTERS, AXIS_LETTERS, LEGEND_LETTERS = 14, 50, 60
"""Letters per line of a class's name at a tick, along an axis, and in a legend."""
_SHORT_NAME = 20


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], *, title: str, stamp: str) -> Figure:
    """Draw a confusion matrix: fractions of each true class, with the counts.

    Parameters
    ----------
    confusion : sequence of sequences of int
        ``confusion[label][prediction]``.
    classes : sequence of str
        Name of each label.
    title, stamp : str
        As for :func:`~leukemia_models.reports.style.stamped_figure`, here and below.
    """
    side = confusion_inches(len(classes))
    figure = stamped_figure((side + 0.2, side - 0.3), title, stamp)
    axes = figure.subplots()
    image = draw_confusion_on(axes, confusion, classes)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.04)
    return figure


def confusion_inches(num_classes: int) -> float:
    """Return the side of a figure in which the fields of a confusion matrix can be read."""
    return 4.6 if num_classes <= MAX_LISTED_CLASSES else min(2.4 + 0.55 * num_classes, 14.0)


def draw_confusion_on(axes: Axes, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> AxesImage:
    """Draw a confusion matrix into axes, and return the image for a colour bar.

    Fields of up to four classes have shares and counts, those of more whole percents, or nothing without images.
    """
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    is_counted = len(classes) <= MAX_LISTED_CLASSES
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.55 else "black"
        if is_counted:
            text, fontsize = f"{shares[row, column]:.1%}\n({count:,})" if totals[row, 0] else f"none\n({count:,})", 12
        else:
            text, fontsize = f"{100 * shares[row, column]:.0f}" if count else "", 9
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=fontsize)
    names = [wrapped_name(name, TICK_LETTERS) for name in classes]
    counted = [f"{name}\n(n = {total:,})" for name, total in zip(names, totals[:, 0], strict=True)]
    turned: dict[str, Any] = (
        {} if is_counted else {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    )
    axes.set_xticks(range(len(classes)), names, parse_math=False, **turned)
    axes.set_yticks(range(len(classes)), counted, parse_math=False, fontsize=None if is_counted else 8)
    axes.set_xlabel("predicted class" if is_counted else "predicted class (numbers: % of the true class)")
    axes.set_ylabel("true class")
    return image


def draw_roc(
    samples: EvaluatedSamples, classes: Sequence[str], *, title: str, stamp: str, interval: Interval | None = None
) -> Figure:
    """Draw the ROC curve per image and, if subjects are known, per subject (mean probability).

    Of more than two classes the curve of each class against the rest is drawn, per image, and their mean.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images of two classes at least.
    interval : Interval, optional
        Of the AUROC per image.
    """
    spread = f" ({interval.low:.3f} - {interval.high:.3f})" if interval else ""
    if samples.num_classes > 2:
        return _draw_rocs_of_classes(samples, classes, title=title, stamp=stamp, spread=spread)
    figure = stamped_figure((5.2, 6.0), title, stamp)
    axes = figure.subplots()
    _draw_roc_on(axes, samples, "per image, AUROC {auroc:.3f}" + spread, number=0)
    by_subject = subject_samples(samples)
    if by_subject is not None and len(set(by_subject.labels_N.tolist())) == 2:
        _draw_roc_on(axes, by_subject, "per subject (mean probability), AUROC {auroc:.3f}", number=1)
    finish_roc(axes, classes)
    axes.plot([], [], marker="o", color="0.3", linestyle="none", label=f"at the threshold {DEFAULT_THRESHOLD}")
    legend_above(axes)
    return figure


def _draw_rocs_of_classes(
    samples: EvaluatedSamples, classes: Sequence[str], *, title: str, stamp: str, spread: str
) -> Figure:
    labels = np.unique(samples.labels_N).tolist()
    figure = stamped_figure((6.2, 6.2 + 0.09 * len(labels)), title, stamp)
    axes = figure.subplots()
    for label in labels:
        false_rates, true_rates = roc_of_class(samples, label)
        named = f"{wrapped_name(classes[label], LEGEND_LETTERS)}, {sklearn_metrics.auc(false_rates, true_rates):.3f}"
        style, line_style = series_style(label), LINE_STYLES[label // len(COLORS) % len(LINE_STYLES)]
        axes.plot(false_rates, true_rates, color=style.color, linestyle=line_style, linewidth=1, label=named)
    false_rates, true_rates = mean_roc(samples)
    auroc = sklearn_metrics.auc(false_rates, true_rates)
    axes.plot(false_rates, true_rates, color="black", linewidth=2.5, label=f"mean, AUROC {auroc:.3f}{spread}")
    finish_roc(axes, classes)
    legend_above(axes, ncols=2)
    return figure


def _draw_roc_on(axes: Axes, samples: EvaluatedSamples, label: str, *, number: int) -> None:
    """Draw a ROC curve with a mark at the threshold 0.5; ``{auroc}`` in the label becomes its area."""
    style = series_style(number)
    false_rates, true_rates, thresholds = sklearn_metrics.roc_curve(
        samples.labels_N, samples.probabilities_N, drop_intermediate=False
    )
    named = label.format(auroc=sklearn_metrics.auc(false_rates, true_rates))
    line_style = LINE_STYLES[number % len(LINE_STYLES)]
    axes.plot(false_rates, true_rates, color=style.color, linestyle=line_style, label=named)
    # The curve's points are "at least this score"; a prediction is class 1 above the threshold.
    mark = int(np.flatnonzero(thresholds > DEFAULT_THRESHOLD)[-1])
    axes.plot(false_rates[mark], true_rates[mark], marker=style.marker, color=style.color, linestyle="none")


def finish_roc(axes: Axes, classes: Sequence[str]) -> None:
    """Add the chance line and the names of the axes."""
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="chance")
    of_two = len(classes) == 2
    called, positive = ("the class", "the class") if not of_two else (f"'{classes[1]}'", f"'{classes[1]}'")
    negative = f"'{classes[0]}'" if of_two else "all other images"
    axes.set_xlabel(wrapped_name(f"share of {negative} called {called} (1 - specificity)", AXIS_LETTERS))
    axes.set_ylabel(wrapped_name(f"share of {positive} called {called} (sensitivity)", AXIS_LETTERS))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(visible=True, color="0.9")


def legend_above(axes: Axes, ncols: int = 1) -> None:
    """Put the legend above the axes, where it covers no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, fontsize=8, frameon=False)


def draw_reliability(
    samples: EvaluatedSamples,
    classes: Sequence[str],
    *,
    title: str,
    stamp: str,
    calibrated: EvaluatedSamples | None = None,
) -> Figure:
    """Draw a reliability diagram: the fraction of class 1 by bins of its probability; below, the counts.

    Of more than two classes it is the fraction of right predictions by the probability of the predicted class.
    `calibrated` are the same samples after temperature scaling.
    """
    figure = stamped_figure((5.2, 6.3), title, stamp)
    axes, counts_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="perfect")
    series = [("as trained", samples)] + ([("calibrated", calibrated)] if calibrated is not None else [])
    for number, (name, drawn) in enumerate(series):
        _draw_reliability_on(axes, counts_axes, drawn, name, number)
    of_two = len(classes) == 2
    shown = f"share of '{classes[1]}' in the bin" if of_two else "share of right predictions in the bin"
    axes.set_ylabel(wrapped_name(shown, AXIS_LETTERS))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(-0.02, 1.02)
    counts_axes.set_ylabel("images")
    tick_whole_numbers(counts_axes.yaxis, most=4)
    scored = f"probability of '{classes[1]}'" if of_two else "probability of the predicted class"
    counts_axes.set_xlabel(wrapped_name(scored, AXIS_LETTERS))
    for each_axes in (axes, counts_axes):
        each_axes.grid(visible=True, color="0.9")
        each_axes.set_axisbelow(True)
    legend_above(axes)
    return figure


def _draw_reliability_on(axes: Axes, counts_axes: Axes, samples: EvaluatedSamples, name: str, number: int) -> None:
    style, bins = series_style(number), reliability_bins(samples.labels_N, samples.probabilities_NK)
    line: dict[str, Any] = {"color": style.color, "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}
    filled = bins.counts_M > 0
    predicted_M = bins.probability_sums_M[filled] / bins.counts_M[filled]
    observed_M = bins.positives_M[filled] / bins.counts_M[filled]
    label = f"{name}, ECE {bins.calibration_error:.3f}"
    axes.plot(predicted_M, observed_M, marker=style.marker, markersize=5, label=label, **line)
    is_first = number == 0
    counts_axes.stairs(bins.counts_M, bins.edges, fill=is_first, alpha=0.35 if is_first else 1, **line)


def draw_subjects(table: pd.DataFrame, classes: Sequence[str], *, title: str, stamp: str) -> Figure:
    """Draw the fraction of each subject's images that are predicted right, sorted, with the number of its images.

    Many subjects get a column per class, very many no names.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`~leukemia_models.evaluation.subject_level.subject_table`, not empty.
    """
    by_class = table.assign(label=table["label"].astype("float64").fillna(BOTH_CLASSES).astype(np.int64))
    rows = by_class.sort_values(["label", "share_right", "images"], kind="stable")
    groups = [group for _, group in rows.groupby("label")]
    is_wide = len(rows) > MAX_SUBJECTS_IN_A_COLUMN and len(groups) <= MAX_LISTED_CLASSES
    columns = [[group] for group in groups] if is_wide else [groups]
    longest = max(sum(map(len, column)) for column in columns)
    is_named = longest <= MAX_NAMED_SUBJECTS
    height = max(1.8 + INCHES_PER_SUBJECT * longest, 2.8) if is_named else UNNAMED_HEIGHT_INCHES
    figure = stamped_figure((max(6.4, 3.2 * len(columns)), height), title, stamp)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        _draw_subjects_on(axes, column, classes, is_named=is_named)
    figure.supylabel("subject (images)" if is_named else "subjects, in the order of their shares", fontsize=10)
    return figure


def _draw_subjects_on(axes: Axes, groups: Sequence[pd.DataFrame], classes: Sequence[str], *, is_named: bool) -> None:
    """Draw groups of subjects, one per label, above one another, each from its lowest fraction up."""
    start = 0
    for group in groups:
        number = int(group["label"].iloc[0])
        heights = np.arange(start, start + len(group))
        several = "both classes" if len(classes) == 2 else "several classes"
        name = several if number == BOTH_CLASSES else classes[number]
        label = f"{wrapped_name(name, LEGEND_LETTERS)} (n = {len(group):,})"
        _draw_group(axes, heights, group["share_right"], label, number, len(classes), is_named=is_named)
        start += len(group)
    axes.axvline(0.5, color="0.6", linestyle=":", linewidth=1)
    named = [f"{printable(str(row.subject))} ({row.images:,})" for group in groups for row in group.itertuples()]
    if is_named:
        axes.set_yticks(range(start), named, fontsize=8, parse_math=False)
    else:
        axes.set_yticks([])
    axes.set_ylim(-0.02 * start - 0.6, 1.02 * start - 0.4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of the subject's images\npredicted right")
    axes.grid(visible=True, axis="x", color="0.9")
    axes.set_axisbelow(True)
    legend_above(axes, ncols=3 if max(map(len, classes)) <= _SHORT_NAME else 1)


def _draw_group(
    axes: Axes,
    heights: npt.NDArray[np.int64],
    shares: pd.Series[float],
    label: str,
    number: int,
    num_classes: int,
    *,
    is_named: bool,
) -> None:
    style = series_style(number if number != BOTH_CLASSES else num_classes)
    size = 5 if is_named else 1.5
    axes.plot(shares, heights, color=style.color, marker=style.marker, markersize=size, linestyle="none", label=label)
    if is_named:
        axes.hlines(heights, 0, shares, color=style.color, linewidth=1, alpha=0.5)


MAX_MARKED_EPOCHS = 30


def draw_history(history: TrainHistory, *, title: str, stamp: str) -> Figure:
    """Draw accuracy and loss of one or more epochs, for training and validation."""
    figure = stamped_figure((9.0, 4.0), title, stamp)
    accuracy_axes, loss_axes = figure.subplots(1, 2)
    _draw_curves(accuracy_axes, history.records, "accuracy")
    _draw_curves(loss_axes, history.records, "loss")
    accuracy_axes.set_ylabel("accuracy (share of images)")
    loss_axes.set_ylabel("loss (cross-entropy)")
    accuracy_axes.set_ylim(min(0.5, accuracy_axes.get_ylim()[0]), 1.01)
    loss_axes.set_ylim(0, 1.05 * max(loss_axes.dataLim.ymax, 1e-3))
    best = history.best
    for axes in (accuracy_axes, loss_axes):
        if best is not None and best.valid_accuracy is not None:
            axes.axvline(best.epoch, color="0.4", linestyle=":", label=f"best epoch ({best.epoch})")
        legend_above(axes, ncols=3)
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
    tick_whole_numbers(axes.xaxis)
    axes.grid(visible=True, color="0.9")
    _mark_sizes(axes, records)


def _mark_sizes(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Draw a light line before the first epoch at each of progressive sizes, with the size."""
    before = None
    for record in records:
        if record.size_px != before:
            start = record.epoch - 0.5
            axes.axvline(start, color="0.8", linewidth=1, zorder=0)
            above = axes.get_xaxis_transform()
            axes.text(start, 0.01, f" {record.size_px} px", transform=above, fontsize=7, color="0.5", va="bottom")
        before = record.size_px


def write_history(path: Path, history: TrainHistory, stamp: str) -> None:
    """Write a CSV row per epoch, atomically; undefined numbers are empty, the last column is the split's stamp."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*EPOCH_FIELDS, "split"])
    for record in history.records:
        values = record.to_dict()
        writer.writerow([*(values[name] for name in EPOCH_FIELDS), stamp])
    write_text(path, buffer.getvalue())
