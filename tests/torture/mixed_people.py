"""Bring people who are evaluated into training, at random: each attempt must be refused or stamped PATIENT-MIXED.

Lost is an attempt that ends in results which are called subject-disjoint although a person or a photograph stands on
both sides, and one that fails for a reason that has nothing to do with it.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from matplotlib.figure import Figure

from leukemia_models.reports import style as figure_style

from .people import later_ways, source_ways, weight_ways
from .people.attempt import Attempt
from .people.bench import Bench
from .tally import Report, Tally

COUNT = 200
Way = Callable[[Bench, random.Random], list[Attempt]]
WAYS: tuple[Way, ...] = (*source_ways.WAYS, *weight_ways.WAYS, *later_ways.WAYS)


def run(work_dir: Path, seed: int, count: int, report: Report, ways: tuple[Way, ...] = WAYS) -> Tally:
    """Make `count` attempts, each in a folder of its own below `work_dir` that is removed again."""
    lost: list[str] = []
    outcomes = Counter[tuple[str, str]]()
    with _quickly():
        for number in range(seed, seed + count):
            way = ways[number % len(ways)]
            attempts = try_way(way, number, work_dir / f"attempt{number}")
            outcomes.update((way.__name__.replace("_", " "), attempt.end) for attempt in attempts)
            worst = [attempt for attempt in attempts if attempt.is_lost]
            report(attempts[-1].way, worst[0].outcome if worst else "survived")
            lost += [f"seed {number}: {attempt.way}: {attempt.outcome}: {attempt.told[-600:]}" for attempt in worst[:1]]
    return Tally(count, count - len(lost), tuple(lost), outcomes)


def try_way(way: Way, number: int, folder: Path) -> list[Attempt]:
    """Make one attempt in a new folder, and remove it."""
    try:
        return way(Bench(folder), random.Random(number))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quickly() -> Iterator[None]:
    """On one thread, with blank figures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch.object(figure_style, "lay_out", _leave_blank):
            yield
    finally:
        torch.set_num_threads(before)


def _leave_blank(figure: Figure) -> None:
    figure.set_layout_engine(None)
    figure.draw = lambda renderer: None
