"""Layouts of sources: each seed makes folders and tables with known truth, and asks how they are read.

Lost is what is read otherwise than it is meant without a question, a refusal that does not offer the truth (or does not
name the file or column that cannot be read), and a refusal of what can be read in one way only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from .layouts.disk import remove_layout, write_layout
from .layouts.generate import layout_of_seed
from .layouts.layout import Layout
from .layouts.reader import ask
from .layouts.verdict import Verdict, check_reading
from .tally import Report, Tally

COUNT = 2_000
"""Layouts where none are asked for: as many as it takes to have every answer of ``questions`` in some."""


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Read `count` layouts, each in a folder of its own below `work_dir` that is removed again."""
    lost: list[str] = []
    outcomes = Counter[tuple[str, str]]()
    for number in range(seed, seed + count):
        layout = layout_of_seed(number)
        verdict = read_layout(layout, work_dir / f"layout{number}")
        outcomes.update((row, verdict.outcome.value) for row in rows_of(layout))
        report(described_kind(layout), "survived" if verdict.outcome.is_right else verdict.outcome.value)
        if not verdict.outcome.is_right:
            lost.append(f"seed {number}: {verdict.outcome.value}: {verdict.why}\n    {layout.described()}")
    return Tally(count, count - len(lost), tuple(lost), outcomes)


def read_layout(layout: Layout, folder: Path) -> Verdict:
    """Write a layout into a new folder, check how it is read, and remove it."""
    folder.mkdir()
    try:
        write_layout(layout, folder)
        ask_sources = partial(ask, [folder / source for source in layout.sources])
        return check_reading(layout, folder, ask_sources, options=layout.options or None)
    finally:
        remove_layout(folder)


def described_kind(layout: Layout) -> str:
    """Kind of a layout in a few words."""
    return f"{'plain ' if layout.is_plain else ''}{layout.kind}"


def rows_of(layout: Layout) -> list[str]:
    """Rows of the table of outcomes in which a layout counts: its kind, and each answer that makes it hard."""
    return [f"{'plain' if layout.is_plain else 'open'} {layout.kind}", *_hard_answers(layout.choices)]


def _hard_answers(choices: Mapping[str, str]) -> list[str]:
    return [f"with {question}" for question, usual in _USUAL.items() if choices.get(question, usual) != usual]


_USUAL = {
    "given as": "one folder",
    "split": "none",
    "variant": "none",
    "above": "none",
    "people": "none",
    "inner": "none",
    "container": "none",
    "test part": "as the others",
    "clutter": "none",
    "stray": "none",
    "links": "none",
    "labels": "names",
    "unknown labels": "none",
    "paths": "plain",
}
"""Questions that have rows of their own, with the answer that is not counted."""
