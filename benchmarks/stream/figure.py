"""A bar for every peer, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from stream.registry import AUGMENTED, CEILING, UINT8
from stream.rounds import Throughput

OURS, OTHERS, LIMIT = "#c0392b", "#8c9bab", "#dde3e9"
BAR_INCHES = 0.36


def draw_bars(results: Sequence[Throughput], title: str, path: Path) -> None:
    """Write the figure: uint8 batches with their ceilings above, augmented batches below."""
    measured = [result for result in results if result.median]
    groups = [
        ("uint8 batches", [r for r in measured if r.entry.kind in (CEILING, UINT8)]),
        ("augmented, normalised float batches", [r for r in measured if r.entry.kind == AUGMENTED]),
    ]
    groups = [(name, rows) for name, rows in groups if rows]
    if not groups:
        return
    sizes = [len(rows) + 1.5 for _, rows in groups]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, BAR_INCHES * sum(sizes) + 0.8),
        height_ratios=sizes,
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, rows) in zip(axes[:, 0], groups, strict=True):
        _draw_group(axis, name, rows)
    axes[-1, 0].set_xlabel("images per second, median of the rounds (logarithmic scale)")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_group(axis: Axes, name: str, results: Sequence[Throughput]) -> None:
    ordered = sorted(results, key=lambda result: result.median or 0)
    medians = [result.median or 0 for result in ordered]
    axis.barh(range(len(ordered)), medians, color=[_color(result) for result in ordered], height=0.72)
    for row, (result, median) in enumerate(zip(ordered, medians, strict=True)):
        weight = "bold" if result.entry.is_ours else "normal"
        axis.text(median * 1.06, row, f"{median:,.0f}", va="center", fontsize=9, fontweight=weight)
    axis.set_yticks(range(len(ordered)), [result.entry.title for result in ordered], fontsize=9)
    for label, result in zip(axis.get_yticklabels(), ordered, strict=True):
        label.set_fontweight("bold" if result.entry.is_ours else "normal")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(min(medians) / 2, max(medians) * 2.5)
    axis.set_title(name, loc="left", fontsize=10)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _color(result: Throughput) -> str:
    if result.entry.is_ours:
        return OURS
    return LIMIT if result.entry.kind == CEILING else OTHERS
