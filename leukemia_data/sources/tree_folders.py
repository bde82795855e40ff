"""Files as they lie in a tree, by folder; which names mean splits, and what is passed over."""

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
    """A folder that holds something.

    Attributes
    ----------
    names
        Names of the folders from the source down to it, as ids show them; first those that tell several sources
        apart, `num_given` of them.
    id_prefix
        What the ids of its images begin with.
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
        """A folder of these names on disk, the first of which tell its source from others."""
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
        """Number of the fold that its names tell, or ``NO_FOLD``."""
        folds = [int(match[1]) for name in self.names if (match := _FOLD.fullmatch(name))]
        return folds[-1] if folds else NO_FOLD


class SplitNames(NamedTuple):
    """Which names mean splits, by the folder above them (its names) and their own; and what lies beside them.

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
        """The split that the folder at a position of a path means."""
        return self.meanings.get((names[:position], names[position]))

    def split_of(self, names: tuple[str, ...]) -> str:
        """The split of a folder: that of its innermost name that means one, or empty."""
        for position in range(len(names) - 1, -1, -1):
            split = self.split_at(names, position)
            if split is not None:
                return split
        return ""


def has_test_set_names(folders: Iterable[TreeFolder]) -> bool:
    """Whether some folder is called like one of C-NMC's test sets."""
    return any(_test_set_name(folder.names) is not None for folder in folders)


def mark_test_sets(folders: Sequence[TreeFolder]) -> None:
    """Mark the folders that are C-NMC's test sets: called so, and without folders of images in them but containers."""
    named = [(folder, found) for folder in folders if (found := _test_set_name(folder.names)) is not None]
    divided = {folder.names[:end] for folder, (end, _) in named if not all(map(is_container, folder.names[end:]))}
    for folder, (end, is_final) in named:
        if folder.names[:end] not in divided:
            folder.is_preliminary, folder.is_final = not is_final, is_final


def _test_set_name(names: Sequence[str]) -> tuple[int, bool] | None:
    """Where the innermost name of a test set ends in a path, and whether it is the final one's."""
    for position in range(len(names) - 1, -1, -1):
        if _PRELIMINARY.search(names[position]):
            return position + 1, False
        if _FINAL.search(names[position]):
            return position + 1, True
    return None


def find_splits(folders: Iterable[TreeFolder], options: ReadingOptions) -> SplitNames:
    """Find the folders whose names mean splits.

    Parameters
    ----------
    folders
        All folders with images.
    options
        ``split_folders`` names them, if it is given.
    """
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
        # In a split's folder, a word among others belongs to something else: a class "ELISA test".
        found = _splits_among([name for name in names if not (is_inside and beside_the_split(name))])
        meanings.update({(above, name): split for name, split in found.items()})
        if found:
            rest = [name for name in names if name not in found and not _is_known_otherwise(name)]
            strangers.extend((above, name) for name in rest if _stands_beside(above, name, found, children))
    return SplitNames(meanings, tuple(strangers))


def named_splits(options: ReadingOptions) -> dict[str, str]:
    """The split of each folder that the user names, by its name or path as :func:`plain` gives it."""
    return {plain(name.strip("/")): split for split, names in options.split_folders for name in names}


def _chosen(
    children: Mapping[tuple[str, ...], Mapping[str, None]], options: ReadingOptions
) -> dict[tuple[tuple[str, ...], str], str]:
    split_of = named_splits(options)
    found = {}
    for above, names in children.items():
        for name in names:
            path = plain("/".join((*above, name)))
            split = split_of.get(plain(name), split_of.get(path))
            if split is not None:
                found[above, name] = split
    return found


def _splits_among(siblings: Sequence[str]) -> dict[str, str]:
    """The splits that folders in one folder mean, by name."""
    found = {name: split for name in siblings if (split := split_word(name))}
    rests = {beside_the_split(name) for name in found}
    if len(set(found.values())) == 1 and len(rests - {()}) > 1:
        # What tells them apart is not the split.
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
    """Whether a folder that means no split has to be one all the same, or nothing of the data at all.

    That is so beside folders of two splits, and where it holds folders of the same names as a split does.
    """
    if len(set(splits.values())) > 1:
        return True
    own = set(map(plain, children.get((*above, name), ())))
    return any(own & set(map(plain, children.get((*above, split), ()))) for split in splits)


def is_fold(name: str) -> bool:
    """Whether a folder's name is that of a fold: ``fold_0``."""
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


@dataclass(slots=True)
class PartReading:
    """Images, and in words how they were understood; the lists mean what those of ``Reading`` mean.

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
