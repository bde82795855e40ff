"""Every measurement against the number of samples: one line each for time, and one for memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from scale.growth import Growth

GREY = "#8c9bab"
LEAST_BYTES = 100_000
"""Less is drawn as this: a process takes its memory in pieces."""


def draw(growths: Sequence[Growth], path: Path) -> None:
    """Write the figure: seconds and peak memory, both axes logarithmic, with the slope of linear growth."""
    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    colors = plt.get_cmap("tab20").colors
    for color, growth in zip(colors, growths, strict=False):
        numbers = [point.num_samples for point in growth.points]
        seconds.plot(numbers, [point.seconds for point in growth.points], "o-", color=color, ms=4, label=growth.title)
        memory.plot(
            numbers, [max(point.peak_bytes, LEAST_BYTES) / 1e6 for point in growth.points], "o-", color=color, ms=4
        )
    _finish(seconds, "seconds", "time by the clock")
    _finish(memory, "MB", "memory above that at the start, at the most")
    figure.legend(loc="outside right center", fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _finish(axes: Axes, unit: str, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("samples")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=11)
    axes.grid(visible=True, which="major", color="#e5e9ee", lw=0.8)
    axes.set_axisbelow(True)
    first, last = axes.get_xlim()
    low, high = axes.get_ylim()
    for start in (low, low * 100, low * 10_000):
        # What grows linearly runs beside these.
        axes.plot([first, last], [start, start * last / first], ":", color=GREY, lw=0.8, zorder=0)
    axes.set_xlim(first, last)
    axes.set_ylim(low, high)
