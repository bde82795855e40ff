"""The folders of a tree that hold images: names, numbers of images, and which names mean splits and folds.

What a folder's name means is found out once for all its images, and beside its siblings: ``test`` is a split, but
``test_positive`` beside ``test_negative`` is none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leukemia_data.samples.record import NO_FOLD
from leukemia_data.sources.found_image import printable_name
from leukemia_data.sources.name_words import beside_the_split, is_container, is_unknown, means_eval, plain, split_word
from leukemia_data.sources.reading_options import ReadingOptions

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
