"""Files as they lie in a tree of folders, on a disk or in a store; and which of them are passed over, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leukemia_data.files.file_state import FileState
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.found_image import printable_name, suffix_of
from leukemia_data.sources.name_words import is_system
from leukemia_data.sources.tree_folders import TreeFolder

if TYPE_CHECKING:
    from leukemia_data.storage.stored_url import StoredUrl

_MAX_EXAMPLES = 3
_OUTPUT_MARKS = (
    ("run.json", "history.csv"),
    ("run.json", "split.csv"),
    ("kfold.json",),
    ("comparison.json", "comparison.md"),
    ("audit.json", "findings.csv"),
    ("batchnorm.json", "batchnorm.csv"),
    ("results.json", "summary.md"),
)
"""Names of files that tell a folder which ltrain or ldata wrote: all of one row are there."""

HIDDEN = "hidden files and folders"
SYSTEM = "folders and files of systems, disks and archives"
OUTPUT = "folders and figures that ltrain or ldata wrote"
EXCLUDED = "what --exclude names"
MASKS = "masks and annotations"
THUMBNAILS = "thumbnails"
NO_REGULAR_FILE = "neither files nor folders (links that lead nowhere, pipes, devices)"
OTHER_FILES = "files of other kinds"
MERGED_COPIES = "copies in train_merged, which the folds hold too"
LEFT_OUT_CLASSES = "images of classes that --classes leaves out"


@dataclass(slots=True)
class PassedOver:
    """What of a source is not read: by reason, how many files or whole folders, and a few of them.

    ``patterns`` are those of ``--exclude`` that meant something.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    patterns: set[str] = field(default_factory=set)

    def add(self, reason: str, path: str) -> None:
        """Count one file or folder."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _MAX_EXAMPLES:
            shown.append(path)

    def update(self, other: PassedOver) -> None:
        """Add what was passed over elsewhere."""
        self.patterns |= other.patterns
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            known = self.examples.get(reason, [])
            self.examples[reason] = [*known, *other.examples[reason]][:_MAX_EXAMPLES]


class TreeFile(NamedTuple):
    """A file below the root; ``location``, its path as a text or its address, becomes ``path`` where it is used."""

    folder: TreeFolder
    name: str
    location: str | StoredUrl
    state: FileState

    @property
    def path(self) -> ImagePlace:
        """Where it lies."""
        # A Path for each file takes as long as the walk, and not all are used.
        return Path(self.location) if isinstance(self.location, str) else self.location

    @property
    def suffix(self) -> str:
        """End of the name from the last dot on, in lower case."""
        return suffix_of(self.name)

    @property
    def record_id(self) -> str:
        """Names of the folders below the root and its own, with ``/`` between."""
        return self.folder.id_prefix + printable_name(self.name)


def why_passed_over(name: str) -> str | None:
    """The reason why a file or folder of this name is no data, whatever it holds: hidden, or of a system."""
    if is_system(name):
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def is_output(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names was written by ltrain or ldata."""
    present = set(names)
    return any(present.issuperset(marks) for marks in _OUTPUT_MARKS)
