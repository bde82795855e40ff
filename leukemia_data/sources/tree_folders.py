"""Files in a tree, by folder; names that mean splits, and what is skipped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leukemia_data.files.atomic import FileState
from leukemia_data.records.record import NO_FOLD, FoundImage, ImagePlace, printable_name, suffix_of
from leukemia_data.sources.name_words import (
    beside_the_split,
    is_container,
    is_system,
    is_unknown,
    means_eval,
    plain,
    split_word,
)
from leukemia_data.sources.reading import TableFound
from leukemia_data.sources.reading_options import ReadingOptions

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl


MERGED_FOLDER = "train_merged"
_FOLD = re.compile(r"fold[ _-]?(\d{1,4})", re.IGNORECASE)
_PRELIMINARY = re.compile(r"prelim|^phase2$", re.IGNORECASE)
_FINAL = re.compile(r"final_phase|test_final|^phase3$", re.IGNORECASE)


@dataclass(slots=True)
class TreeFolder:
    """A folder with its images counted.

    Attributes
    ----------
    names
        Names of the folders from the source down to it, as ids show them, after `num_given` names that distinguish
        sources.
    id_prefix
        Start of its images' ids.
    num_images
        Images directly in it.
    num_named
        How many of these have a C-NMC name of class hem and of class all.
    is_preliminary, is_final
        Whether it is C-NMC's preliminary test set, whose labels are in a table, or the final one, which has none; see
        :func:`mark_test_sets`.
    """

    names: tuple[str, ...]
    id_prefix: str
    num_given: int = 0
    num_images: int = 0
    num_named: list[int] = field(default_factory=lambda: [0, 0])
    is_preliminary: bool = False
    is_final: bool = False

    @classmethod
    def of(cls, found_names: Sequence[str], num_given: int = 0) -> TreeFolder:
        """Return a folder given names on disk."""
        names = tuple(map(printable_name, found_names))
        return cls(names, "".join(f"{name}/" for name in names), num_given)

    @property
    def path(self) -> str:
        """Its path below the source, as options name it."""
        return "/".join(self.names[self.num_given :])

    @property
    def is_test_set(self) -> bool:
        """Whether it is one of C-NMC's test sets, whose folders name no class."""
        return self.is_preliminary or self.is_final

    @property
    def is_merged(self) -> bool:
        """Whether it belongs to C-NMC's folder of copies of all folds."""
        return any(MERGED_FOLDER in name.lower() for name in self.names)

    @property
    def fold(self) -> int:
        """Number of the fold in its names, or ``NO_FOLD``."""
        folds = [int(match[1]) for name in self.names if (match := _FOLD.fullmatch(name))]
        return folds[-1] if folds else NO_FOLD


class SplitNames(NamedTuple):
    """Which folders mean splits, by the names of the folder above and their own name.

    Attributes
    ----------
    meanings
        ``(names of the folder above, name)`` to the split.
    strangers
        Folders beside split folders that mean none: ``(names of the folder above, name)``.
    """

    meanings: Mapping[tuple[tuple[str, ...], str], str]
    strangers: tuple[tuple[tuple[str, ...], str], ...]

    def split_at(self, names: tuple[str, ...], position: int) -> str | None:
        """Return the split that the folder at a position of a path means."""
        return self.meanings.get((names[:position], names[position]))

    def split_of(self, names: tuple[str, ...]) -> str:
        """Return the split of a folder: that of its innermost name that means one, or empty."""
        splits = (self.split_at(names, position) for position in reversed(range(len(names))))
        return next(filter(None, splits), "")


def has_test_set_names(folders: Iterable[TreeFolder]) -> bool:
    """Return whether some folder has the name of one of C-NMC's test sets."""
    return any(_test_set_name(folder.names) is not None for folder in folders)


def mark_test_sets(folders: Sequence[TreeFolder]) -> None:
    """Mark C-NMC's test sets: folders with their names, and without folders of images in them but containers."""
    named = [(folder, found) for folder in folders if (found := _test_set_name(folder.names)) is not None]
    divided = {folder.names[:end] for folder, (end, _) in named if not all(map(is_container, folder.names[end:]))}
    for folder, (end, is_final) in named:
        if folder.names[:end] not in divided:
            folder.is_preliminary, folder.is_final = not is_final, is_final


def _test_set_name(names: Sequence[str]) -> tuple[int, bool] | None:
    """Position after the innermost name of a test set in a path, and whether it is the final one's."""
    for position in range(len(names) - 1, -1, -1):
        if _PRELIMINARY.search(names[position]):
            return position + 1, False
        if _FINAL.search(names[position]):
            return position + 1, True
    return None


def find_splits(folders: Iterable[TreeFolder], options: ReadingOptions) -> SplitNames:
    """Find the folders whose names mean splits, or those that ``split_folders`` names if given."""
    children: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for folder in folders:
        for position, name in enumerate(folder.names):
            children[folder.names[:position]].setdefault(name)
    if options.split_folders:
        return SplitNames(_chosen(children, options), ())
    meanings: dict[tuple[tuple[str, ...], str], str] = {}
    strangers: list[tuple[tuple[str, ...], str]] = []
    for above, names in sorted(children.items(), key=lambda item: len(item[0])):
        is_inside = any((above[:depth], above[depth]) in meanings for depth in range(len(above)))
        # In a split's folder, names of several words mean something else: a class "ELISA test".
        found = _splits_among([name for name in names if not (is_inside and beside_the_split(name))])
        meanings.update({(above, name): split for name, split in found.items()})
        if found:
            rest = [name for name in names if name not in found and not _is_known_otherwise(name)]
            strangers.extend((above, name) for name in rest if _stands_beside(above, name, found, children))
    return SplitNames(meanings, tuple(strangers))


def named_splits(options: ReadingOptions) -> dict[str, str]:
    """Return the split of each folder that the user names, by its name or path as :func:`plain` gives it."""
    return {plain(name.strip("/")): split for split, names in options.split_folders for name in names}


def _chosen(
    children: Mapping[tuple[str, ...], Mapping[str, None]], options: ReadingOptions
) -> dict[tuple[tuple[str, ...], str], str]:
    split_of = named_splits(options)
    return {
        (above, name): split
        for above, names in children.items()
        for name in names
        if (split := split_of.get(plain(name), split_of.get(plain("/".join((*above, name))))))
    }


def _splits_among(siblings: Sequence[str]) -> dict[str, str]:
    """The splits that the folders of one folder mean, by name."""
    found = {name: split for name in siblings if (split := split_word(name))}
    rests = {beside_the_split(name) for name in found}
    if len(set(found.values())) == 1 and len(rests - {()}) > 1:
        # They differ in something else than the split.
        return {}
    has_valid = "valid" in found.values()
    has_test = any(split == "test" and not means_eval(name) for name, split in found.items())
    if has_test and not has_valid:
        found = {name: "valid" if means_eval(name) else split for name, split in found.items()}
    return found


def _is_known_otherwise(name: str) -> bool:
    return is_container(name) or is_fold(name) or is_unknown(name) or MERGED_FOLDER in name.lower()


def _stands_beside(
    above: tuple[str, ...],
    name: str,
    splits: Mapping[str, str],
    children: Mapping[tuple[str, ...], Mapping[str, None]],
) -> bool:
    """Whether a folder that means no split has to be one, or no part of the data.

    It has to beside folders of two splits, or if it holds folders of the same names as a split does.
    """
    if len(set(splits.values())) > 1:
        return True
    own = set(map(plain, children.get((*above, name), ())))
    return any(own & set(map(plain, children.get((*above, split), ()))) for split in splits)


def is_fold(name: str) -> bool:
    """Return whether a folder's name is that of a fold: ``fold_0``."""
    return _FOLD.fullmatch(name) is not None


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
"""A folder with all files of one row was written by ltrain or ldata."""

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
    """What is skipped: by reason, the number of files or whole folders, and a few of them.

    ``patterns`` are those of ``--exclude`` that matched.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    patterns: set[str] = field(default_factory=set)

    def add(self, reason: str, path: str) -> None:
        """Count one file or folder."""
        self._count(reason, 1, [path])

    def update(self, other: PassedOver) -> None:
        """Add the counts of another one."""
        self.patterns |= other.patterns
        for reason, count in other.counts.items():
            self._count(reason, count, other.examples[reason])

    def _count(self, reason: str, num: int, paths: Sequence[str]) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + num
        shown = self.examples.setdefault(reason, [])
        shown.extend(paths[: _MAX_EXAMPLES - len(shown)])


class TreeFile(NamedTuple):
    """A file below the root; ``location`` is its path as a text, or its address."""

    folder: TreeFolder
    name: str
    location: str | StoredUrl
    state: FileState

    @property
    def path(self) -> ImagePlace:
        """The location as a place."""
        # Only when needed: a Path for each file takes as long as the walk.
        return Path(self.location) if isinstance(self.location, str) else self.location

    @property
    def suffix(self) -> str:
        """The extension with its dot, in lower case."""
        return suffix_of(self.name)

    @property
    def record_id(self) -> str:
        """Names of the folders below the root and its own, joined by ``/``."""
        return self.folder.id_prefix + printable_name(self.name)


def why_passed_over(name: str) -> str | None:
    """Return why a file or folder of this name is skipped whatever it holds: hidden, or of a system."""
    if is_system(name):
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def is_output(names: Iterable[str]) -> bool:
    """Return whether a folder with files of these names was written by ltrain or ldata."""
    present = set(names)
    return any(present.issuperset(marks) for marks in _OUTPUT_MARKS)


@dataclass(slots=True)
class PartReading:
    """Images, and how they were understood; for the lists see :class:`~leukemia_data.sources.reading.Reading`.

    Attributes
    ----------
    split_words
        By split: the names that it was read from, as the keys of a dictionary.
    """

    images: list[FoundImage]
    class_sources: list[str] = field(default_factory=list)
    subject_sources: list[str] = field(default_factory=list)
    split_words: dict[str, dict[str, None]] = field(default_factory=dict)
    other_folders: tuple[str, ...] = ()
    tables: list[TableFound] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    notes: list[str] = field(default_factory=list)
    told_by: str = ""
