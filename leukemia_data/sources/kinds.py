"""Kinds of source: what a place holds that images are listed from, and who reads it.

A module of one's own makes a kind and registers it; nothing else has to know it. Kinds are tried in turn, the latest
that was registered first::

    class Archives:
        name = "archive"
        is_table = False

        def matches(self, place): ...

        def read(self, places, request): ...

    SOURCE_KINDS.register(Archives())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.registry import Registry
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_folders import PartReading
from leukemia_data.sources.tree_images import Tree


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """How sources are to be read.

    Attributes
    ----------
    options
        What the user says of the meaning of folders, names and columns.
    root
        Where the relative paths of tables start; by default each table's own folder.
    allow_outside
        Take files that a table names outside `root` too.
    need_classes
        Whether every image outside test sets must have a class; otherwise nothing is asked.
    """

    options: ReadingOptions = field(default_factory=ReadingOptions)
    root: ImagePlace | None = None
    allow_outside: bool = False
    need_classes: bool = True


class SourceKind(Protocol):
    """Reads sources of one kind."""

    @property
    def name(self) -> str:
        """In one word."""
        ...

    @property
    def is_table(self) -> bool:
        """Whether options for columns concern it, and ids are those of its rows, the same beside other sources."""
        ...

    def matches(self, place: ImagePlace) -> bool:
        """Return whether this is such a source, and is there."""
        ...

    def read(self, places: Sequence[Tree], request: ReadRequest) -> list[PartReading]:
        """Read all sources of this kind that a user named.

        Parameters
        ----------
        places
            Where they are, each with names that the ids of its images have to begin with, to tell it from others.

        Raises
        ------
        SourceError
            If one cannot be read, or they contradict each other.
        """
        ...


SOURCE_KINDS: Registry[SourceKind] = Registry("kind of source")


def kind_of(place: ImagePlace) -> SourceKind:
    """Return what reads a source.

    Raises
    ------
    UsageError
        If nothing does, or there is no such place.
    """
    for name in reversed(SOURCE_KINDS.names()):
        kind = SOURCE_KINDS.get(name)
        if kind.matches(place):
            return kind
    if not isinstance(place, Path) or not place.exists():
        raise UsageError(f"source not found: {place}")
    raise UsageError(f"source {place} is neither a folder nor a .csv table")
