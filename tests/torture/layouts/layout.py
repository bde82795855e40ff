"""A layout of image files with the truth about it: which images there are, and class, subject and split of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Cell:
    """One image that a right reading lists.

    Attributes
    ----------
    path
        Where it lies below the layout's folder, with ``/`` between the names.
    class_name, subject, split
        The truth; None where there is none, so that a reading has to say unlabelled, unknown, no split.
    """

    path: str
    class_name: str | None = None
    subject: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders and tables as somebody may have them, and what they mean.

    Attributes
    ----------
    seed, choices
        What it was generated from, and the answer to each question that was asked on the way.
    sources
        Folders and tables that are given to the reader, below the layout's folder.
    cells
        Every image that a right reading lists.
    passed_over
        Files with an image's name that are no cells: masks, thumbnails, figures, stray pictures.
    files, links
        Everything else: texts and tables by path, links by path with what they lead to.
    empty_folders
        Folders that hold no image; each may be listed as a class without images.
    doubts
        Why more than one reading is sensible. A layout without doubts has to be read without a question.
    refusable_by
        Names of which a refusal without readings has to name one; empty where such a refusal is wrong.
    is_never_silent
        Whether names and folders contradict each other, so that even the true reading must not be taken silently.
    are_subjects_given
        Whether C-NMC's names or a usual column tell the subjects, so that unknown ones are lost.
    aliases
        Other names under which a class may be read.
    options
        Reading options with which somebody who knows the truth would ask for it.
    """

    seed: int
    choices: dict[str, str]
    sources: tuple[str, ...]
    cells: tuple[Cell, ...]
    passed_over: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty_folders: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    refusable_by: tuple[str, ...] = ()
    is_never_silent: bool = False
    are_subjects_given: bool = False
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether there is one sensible reading only."""
        return not self.doubts

    @property
    def kind(self) -> str:
        """Kind of layout, for the table of outcomes."""
        return self.choices["kind"]

    def described(self, max_paths: int = 24) -> str:
        """The choices, the sources, and the first files with their truth, as indented lines."""
        told = ", ".join(f"{question}: {answer}" for question, answer in self.choices.items() if answer != "none")
        lines = [told, f"given: {', '.join(self.sources)}", f"doubts: {'; '.join(self.doubts) or 'none: it is plain'}"]
        step = -(-len(self.cells) // max_paths)
        lines += [f"{_short(c.path)}  = {c.class_name}, {c.subject}, {c.split}" for c in self.cells[::step]]
        lines += [f"{_short(path)}  = no cell" for path in self.passed_over[:6]]
        lines += [f"{_short(path)}  = {data[:150]!r}" for path, data in list(self.files.items())[:4]]
        lines += [f"{path} -> {target}" for path, target in self.links.items()]
        return "\n    ".join(lines)


def parents(path: str) -> list[str]:
    """Folders above a file from the first below the layout's folder to the nearest."""
    names = path.split("/")[:-1]
    return list(accumulate(names, lambda above, name: f"{above}/{name}"))


def _short(path: str) -> str:
    return path if len(path) < 160 else f"{path[:40]} ... {path[-80:]}"
