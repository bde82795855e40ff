"""Measured values against the number of samples, and the line through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Point(NamedTuple):
    """One measurement."""

    num_samples: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    kept_bytes: int


@dataclass
class Growth:
    """One thing measured at several sizes."""

    name: str
    title: str
    points: list[Point] = field(default_factory=list)

    def add(self, num_samples: int, measured: dict) -> None:
        """Take in what a process measured."""
        self.points.append(Point(num_samples, **measured))

    def line(self) -> tuple[float, float]:
        """Seconds a sample, and seconds at the start, neither negative; every size weighs the same."""
        numbers, seconds = (np.array(column, float) for column in list(zip(*self.points, strict=True))[:2])
        if len(numbers) == 1:
            return float(seconds[0] / numbers[0]), 0.0
        slope, start = np.polyfit(numbers, seconds, 1, w=1 / seconds)
        if start < 0 or slope < 0:
            return float((seconds / numbers).max()), 0.0
        return float(slope), float(start)

    def power(self) -> float | None:
        """By which power of the number of samples the time grows between the two largest sizes."""
        if len(self.points) < 2:
            return None
        first, last = self.points[-2:]
        return math.log(last.seconds / first.seconds) / math.log(last.num_samples / first.num_samples)

    def as_dict(self) -> dict:
        """For JSON."""
        slope, start = self.line()
        return {
            "name": self.name,
            "title": self.title,
            "points": [point._asdict() for point in self.points],
            "seconds_a_million": slope * 1e6,
            "seconds_at_the_start": start,
            "power": self.power(),
        }


def print_table(growths: Sequence[Growth]) -> None:
    """Seconds at each size, the line, memory at the largest size, as rows of Markdown."""
    sizes = sorted({point.num_samples for growth in growths for point in growth.points})
    titles = [
        "",
        *(f"{size:,}" for size in sizes),
        "s a million",
        "peak bytes a sample",
        "kept bytes a sample",
        "power",
    ]
    print("| " + " | ".join(titles) + " |")
    print("|---" * len(titles) + "|")
    for growth in growths:
        at = {point.num_samples: point for point in growth.points}
        largest, power = growth.points[-1], growth.power()
        cells = [f"{at[size].seconds:.3g} s" if size in at else "" for size in sizes]
        cells.append(f"{growth.line()[0] * 1e6:.2g}")
        cells += [f"{largest.peak_bytes / largest.num_samples:.0f}", f"{largest.kept_bytes / largest.num_samples:.0f}"]
        cells.append("" if power is None else f"{power:.2f}")
        print(f"| {growth.title} | " + " | ".join(cells) + " |")
