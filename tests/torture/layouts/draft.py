"""A layout while it is composed: the answers drawn so far, and the files that they led to."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from .layout import Cell, Layout, parents
from .questions import QUESTIONS

Item = TypeVar("Item")


class Draft:
    """Files and truth of a layout to be; attributes mean what those of ``Layout`` mean.

    Parameters
    ----------
    rng
        Draws everything.
    kind
        A key of ``QUESTIONS``: which questions there are.
    """

    def __init__(self, rng: random.Random, kind: str) -> None:
        self.rng = rng
        self.choices = {"kind": kind}
        self.sources: list[str] = ["given"]
        self.cells: list[Cell] = []
        self.passed_over: list[str] = []
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.empty_folders: list[str] = []
        self.doubts: list[str] = []
        self.refusable_by: list[str] = []
        self.is_never_silent = False
        self.are_subjects_given = False
        self.aliases: dict[str, tuple[str, ...]] = {}
        self.options: dict[str, object] = {}
        self._excluded: dict[str, None] = {}

    def pick(self, question: str, unless: Iterable[str] = ()) -> str:
        """Draw an answer, without those of `unless`, and note it."""
        answers = QUESTIONS[self.choices["kind"]][question]
        answers = {answer: weight for answer, weight in answers.items() if answer not in set(unless)}
        self.choices[question] = self.rng.choices(list(answers), list(answers.values()))[0]
        return self.choices[question]

    def some(self, items: Sequence[Item], least: int, most: int) -> list[Item]:
        """Draw some items in their order."""
        chosen = self.rng.sample(range(len(items)), self.rng.randint(min(least, len(items)), min(most, len(items))))
        return [items[position] for position in sorted(chosen)]

    def doubt(self, why: str) -> None:
        """Note a reason for which another reading is sensible too."""
        self.doubts.append(why)

    def exclude(self, paths: Iterable[str]) -> None:
        """Note files that are no cells, and that a user who knows it would leave out by name."""
        added = list(paths)
        self.passed_over += added
        for path in added:
            source = next(source for source in self.sources if path.startswith(f"{source}/"))
            self._excluded[path.removeprefix(f"{source}/")] = None
        self.options["exclude"] = tuple(self._excluded)

    def folders(self) -> list[str]:
        """Folders that hold cells, at whatever depth, from the given ones down; in the order of their names."""
        found = {parent for leaf in self.leaves() for parent in parents(f"{leaf}/")}
        return sorted(folder for folder in found if any(_is_in(folder, source) for source in self.sources))

    def leaves(self) -> list[str]:
        """Folders in which cells lie."""
        return sorted({cell.path.rpartition("/")[0] for cell in self.cells})

    def finished(self, seed: int) -> Layout:
        """The layout."""
        return Layout(
            seed,
            self.choices,
            tuple(self.sources),
            tuple(self.cells),
            tuple(self.passed_over),
            self.files,
            self.links,
            tuple(self.empty_folders),
            tuple(self.doubts),
            tuple(self.refusable_by),
            self.is_never_silent,
            self.are_subjects_given,
            self.aliases,
            self.options,
        )


def _is_in(folder: str, source: str) -> bool:
    return folder == source or folder.startswith(f"{source}/")
