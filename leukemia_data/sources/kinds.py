"""Kinds of source: which places hold images, and how they are listed.

A custom kind is registered by its module. Kinds are tried from the latest registered to the first::

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
    """How sources are read.

    Attributes
    ----------
    options
        What the user says of the meaning of folders, names and columns.
    root
        Start of the relative paths of tables; by default each table's own folder.
    allow_outside
        Accept files outside `root` in tables.
    need_classes
        Whether every image outside test sets must have a class; otherwise there are no questions.
    """

    options: ReadingOptions = field(default_factory=ReadingOptions)
    root: ImagePlace | None = None
    allow_outside: bool = False
    need_classes: bool = True


class SourceKind(Protocol):
    """Reads sources of one kind."""

    @property
    def name(self) -> str:
        """A single word."""

    @property
    def is_table(self) -> bool:
        """Whether options for columns apply, and ids are those of rows, without a prefix for each source."""

    def matches(self, place: ImagePlace) -> bool:
        """Return whether a place is an existing source of this kind."""

    def read(self, places: Sequence[Tree], request: ReadRequest) -> list[PartReading]:
        """Read all sources of this kind that a user named.

        Each place has the names with which the ids of its images begin.

        Raises
        ------
        SourceError
            If one cannot be read, or they contradict each other.
        """


SOURCE_KINDS: Registry[SourceKind] = Registry("kind of source")


def kind_of(place: ImagePlace) -> SourceKind:
    """Return the kind that reads a source.

    Raises
    ------
    UsageError
        If there is none, or no such place.
    """
    for name in reversed(SOURCE_KINDS.names()):
        kind = SOURCE_KINDS.get(name)
        if kind.matches(place):
            return kind
    if not isinstance(place, Path) or not place.exists():
        raise UsageError(f"source not found: {place}")
    raise UsageError(f"source {place} is neither a folder nor a .csv table")
