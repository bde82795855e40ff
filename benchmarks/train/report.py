"""Results of bench_train.py as a table and as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from train.peer import PeerEntry

OURS, OTHERS = "#c0392b", "#8c9bab"


@dataclass
class Outcome:
    """What was measured of one peer.

    Attributes
    ----------
    images_per_s, wait_shares
        One per round.
    courses
        By seed: the epochs as (seconds, accuracy or None).
    problem
        Why it was not measured.
    """

    entry: PeerEntry
    images_per_s: list[float] = field(default_factory=list)
    wait_shares: list[float] = field(default_factory=list)
    courses: dict[int, list[tuple[float, float | None]]] = field(default_factory=dict)
    problem: str | None = None

    def seconds_to(self, accuracy: float) -> list[float | None]:
        """Return, for each seed, the seconds to the first epoch with this accuracy; None where it was not reached."""
        return [
            next((seconds for seconds, value in course if value is not None and value >= accuracy), None)
            for course in self.courses.values()
        ]

    def lower_bounds(self, accuracy: float) -> list[float]:
        """Return the seconds, or where it was not reached those of the last epoch: it takes longer."""
        found = zip(self.seconds_to(accuracy), self.courses.values(), strict=True)
        return [course[-1][0] if seconds is None else seconds for seconds, course in found if course]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "title": self.entry.title,
            "images_per_s": self.images_per_s,
            "wait_shares": self.wait_shares,
            "courses": {str(seed): course for seed, course in self.courses.items()},
            "problem": self.problem,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` wrote."""
        self.images_per_s, self.wait_shares = list(values["images_per_s"]), list(values["wait_shares"])
        self.courses = {int(seed): [(s, a) for s, a in course] for seed, course in values["courses"].items()}


def table(outcomes: Sequence[Outcome], accuracy: float, base: str, num_train: int) -> str:
    """Return a Markdown table; ratios of steps are taken within a round, to the row `base`."""
    lines = [
        f"| training | step, images/s | over {base} | waiting | epoch, s | s to {accuracy} | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = next((each.images_per_s for each in outcomes if each.entry.name == base), [])
    for each in outcomes:
        if each.problem:
            lines.append(f"| {each.entry.title} | {each.problem} | | | | | |")
            continue
        ratios = [own / other for own, other in zip(each.images_per_s, reference, strict=False)]
        rate = statistics.median(each.images_per_s) if each.images_per_s else None
        cells = [
            each.entry.title,
            _text(rate, ".1f"),
            _text(statistics.median(ratios) if ratios else None, ".2f"),
            _text(100 * statistics.median(each.wait_shares) if each.wait_shares else None, ".1f", " %"),
            _text(num_train / rate if rate else None, ".0f"),
            *_reached(each, accuracy),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _reached(outcome: Outcome, accuracy: float) -> tuple[str, str]:
    found, bounds = outcome.seconds_to(accuracy), outcome.lower_bounds(accuracy)
    if not bounds:
        return "", ""
    num_reached = sum(seconds is not None for seconds in found)
    sign = "" if num_reached == len(found) else "> "
    return f"{sign}{statistics.median(bounds):.0f}", f"{num_reached} of {len(found)}"


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def draw(outcomes: Sequence[Outcome], accuracy: float, title: str, path: Path) -> None:
    """Draw validation accuracy over seconds, a thin line a seed, with the accuracy asked for."""
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    colors = plt.get_cmap("tab10")
    for number, each in enumerate(outcomes):
        label: str | None = each.entry.title
        for course in each.courses.values():
            points = [(seconds, value) for seconds, value in course if value is not None]
            if not points:
                continue
            axis.plot(
                [seconds for seconds, _ in points],
                [value for _, value in points],
                color=OURS if each.entry.is_ours and number == len(outcomes) - 1 else colors(number),
                marker="o",
                markersize=3,
                linewidth=2 if each.entry.is_ours else 1.2,
                label=label,
            )
            label = None
    axis.axhline(accuracy, color="#555555", linewidth=0.8, linestyle="--")
    axis.set_xlabel("seconds of training and validation")
    axis.set_ylabel("accuracy on validation images, at full size")
    axis.set_ylim(0.6, 1.0)
    axis.grid(color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set_title(title, loc="left", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)
