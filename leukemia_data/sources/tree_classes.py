"""Find which folder of a tree names an image's class.

Names of splits, folds and containers (``images``) and the folders around everything are set aside; what is left of a
path are its *parts*. If every path has one part, it is the class. If some have several, the kinds of their names
decide, provided that they allow one answer only: people (``patient_03``), numbers (``slide_12``) and treatments
(``Original``, ``rotated``) are no classes. Otherwise there are several readings, and the user has to choose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from leukemia_data.records.record import CELL_CLASSES, IMAGE_SUFFIXES, suffix_of
from leukemia_data.sources.name_words import (
    are_numbers,
    is_cell_class,
    is_container,
    is_numbered,
    is_person,
    is_short_code,
    is_variant,
    plain,
)
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_folders import SplitNames, TreeFolder, is_fold

_MAX_LABEL = 50
LEAF = -1
"""As a level of parts: the last one of each path."""


class FolderParts(NamedTuple):
    """Positions and names in a folder's path that may name a class."""

    folder: TreeFolder
    parts: tuple[tuple[int, str], ...]

    def part(self, level: int) -> tuple[int, str] | None:
        """Return the part at a level: 0 is the first, -1 the last; None if the path is too short."""
        index = len(self.parts) + level if level < 0 else level
        return self.parts[index] if 0 <= index < len(self.parts) else None


class ClassLevel(NamedTuple):
    """The class of each folder.

    Attributes
    ----------
    position_of
        By a folder's names: the position of the name that is its class.
    """

    position_of: Mapping[tuple[str, ...], int]

    def class_of(self, names: tuple[str, ...]) -> str | None:
        """Return the name of a folder's class, None if it has none."""
        position = self.position_of.get(names)
        return None if position is None else names[position]

    def counts(self, folders: Sequence[TreeFolder]) -> Counter[str]:
        """Return the number of images of each class."""
        counts = Counter[str]()
        for folder in folders:
            if folder.num_images and (name := self.class_of(folder.names)) is not None:
                counts[name] += folder.num_images
        return counts


def find_parts(folders: Sequence[TreeFolder], splits: SplitNames) -> list[FolderParts]:
    """Return the parts of each folder's path.

    Leading parts that all paths share are removed while some path continues; images beside those folders are left
    without parts.
    """
    found = [FolderParts(folder, _own_parts(folder, splits)) for folder in folders]
    while True:
        first = {plain(one.parts[0][1]) for one in found if one.parts}
        if len(first) != 1 or max((len(one.parts) for one in found), default=0) < 2:
            return found
        found = [FolderParts(one.folder, one.parts[1:]) for one in found]


def _own_parts(folder: TreeFolder, splits: SplitNames) -> tuple[tuple[int, str], ...]:
    names = folder.names
    return tuple(
        (position, name)
        for position, name in enumerate(names)
        if not (splits.split_at(names, position) or is_fold(name) or is_container(name) or _is_odd(name))
    )


def _is_odd(name: str) -> bool:
    """Whether a folder has the name of an image, or an empty one, which object stores allow."""
    return not name.strip() or suffix_of(name) in IMAGE_SUFFIXES


def level_of(found: Sequence[FolderParts], level: int) -> ClassLevel:
    """Return the class level of the same part of every path; for ``LEAF``, only of folders that hold no others."""
    parts = {one.folder.names: one.part(level) for one in (_ends(found) if level == LEAF else found)}
    return ClassLevel({names: part[0] for names, part in parts.items() if part is not None})


def _ends(found: Sequence[FolderParts]) -> list[FolderParts]:
    above = {tuple(name for _, name in one.parts[:length]) for one in found for length in range(len(one.parts))}
    return [one for one in found if tuple(name for _, name in one.parts) not in above]


def chosen_level(folders: Sequence[TreeFolder], class_level: int) -> ClassLevel:
    """Return the class level that a user names: counted from each source, or from the image upwards if negative."""
    position_of = {}
    for folder in folders:
        # Upwards from the image, containers do not count.
        own = [n for n, name in enumerate(folder.names) if class_level > 0 or not is_container(name)]
        place = folder.num_given + class_level - 1 if class_level > 0 else len(own) + class_level
        if 0 <= place < len(own):
            position_of[folder.names] = own[place]
    return ClassLevel(position_of)


def listed_names(options: ReadingOptions) -> set[str]:
    """Return the folder names that a list of classes means, merged ones included, as :func:`plain` gives them."""
    return {plain(name) for name in options.classes} | {plain(old) for _, olds in options.merge for old in olds}


def listed_level(found: Sequence[FolderParts], options: ReadingOptions) -> ClassLevel:
    """Return the class level of a list of classes: the last name of each path that is one of them.

    For other paths, whose classes are left out, it is the part at the same position, else the last one. Empty if no
    path has such a name.
    """
    wanted = listed_names(options)
    position_of = {}
    for one in found:
        positions = [position for position, name in enumerate(one.folder.names) if plain(name) in wanted]
        if positions:
            position_of[one.folder.names] = positions[-1]
    usual = set(position_of.values())
    for one in found if usual else ():
        own = [position for position, _ in one.parts]
        if own and one.folder.names not in position_of:
            position_of[one.folder.names] = next((position for position in own if {position} == usual), own[-1])
    return ClassLevel(position_of)


def sensible_levels(found: Sequence[FolderParts]) -> list[int]:
    """Return the levels of parts that may name the classes, outermost first; only one if the names allow no other.

    Images beside folders of images may be strays: if the other paths alone allow one answer, it is taken, and the
    strays are left without a class. Otherwise the levels with and without them are all sensible.

    Returns
    -------
    list of int
        0 for the first part, and so on; ``LEAF`` for the last part of each path if paths differ in length. Empty if
        no folder names a class.
    """
    levels = _levels([one for one in found if one.parts])
    if len(levels) < 2:
        return levels
    ends = [one for one in _ends(found) if one.parts]
    at_ends = _levels(ends)
    if len(at_ends) == 1:
        return at_ends
    depths = {len(one.parts) for one in ends}
    last = max(depths) - 1 if len(depths) == 1 else LEAF
    both = {last if level == LEAF else level for level in (*levels, *at_ends)}
    return sorted(both, key=lambda level: (level == LEAF, level))


def _levels(found: Sequence[FolderParts]) -> list[int]:
    depths = {len(one.parts) for one in found}
    if not depths:
        return []
    if depths == {1}:
        return [0]
    common = min(depths)
    levels = _common_levels(found, common)
    deeper = [name for one in found for _, name in one.parts[common:]]
    if all(_are_no_classes([name]) for name in deeper):
        return levels
    outer = {plain(name) for one in found for _, name in one.parts[:-1]}
    short = {plain(one.parts[-1][1]) for one in found if len(one.parts) == common}
    last_of_long = {plain(one.parts[-1][1]) for one in found if len(one.parts) > common}
    if last_of_long <= short and not outer & short:
        # Folders of classes, and others that hold such folders again.
        return [LEAF]
    return [*(level for level in levels if len(_names_at(found, level)) > 1), LEAF]


def _common_levels(found: Sequence[FolderParts], depth: int) -> list[int]:
    names_of = [_names_at(found, level) for level in range(depth)]
    several = [level for level, names in enumerate(names_of) if len(names) > 1]
    likely = [level for level in several if not _are_no_classes(names_of[level])]
    named = [level for level in likely if all(map(is_cell_class, names_of[level]))]
    possible = [level for level in several if may_be_classes(names_of[level])]
    candidates = likely if named else possible
    if not several:
        return _constant_levels(names_of)
    if len(candidates) < 2:
        return candidates or several
    is_innermost = len(named) == 1 and named[0] == candidates[-1]
    if is_innermost and all(_recurs(found, level, named[0]) for level in candidates[:-1]):
        return named
    return possible


def _constant_levels(names_of: Sequence[Sequence[str]]) -> list[int]:
    """Sensible levels if all paths have the same names: the one that is a class, or any."""
    levels = list(range(len(names_of)))
    named = [level for level in levels if all(map(is_cell_class, names_of[level]))]
    return named if len(named) == 1 else [level for level in levels if may_be_classes(names_of[level])] or levels


def _are_no_classes(names: Sequence[str]) -> bool:
    return (
        all(map(is_person, names))
        or all(map(is_variant, names))
        or (all(map(is_numbered, names)) and not all(map(is_cell_class, names)))
    )


def may_be_classes(names: Sequence[str]) -> bool:
    """Return whether names of one level may be those of classes, if there is no better level.

    Small numbers and short names such as ``P3`` always may.
    """
    if are_numbers(names):
        return max(map(int, names)) <= _MAX_LABEL
    return all(map(is_short_code, names)) or not _are_no_classes(names)


def _recurs(found: Sequence[FolderParts], outer: int, inner: int) -> bool:
    """Whether each name of an inner level occurs below several names of an outer one."""
    above: defaultdict[str, set[str]] = defaultdict(set)
    for one in found:
        above[plain(one.parts[inner][1])].add(plain(one.parts[outer][1]))
    return all(len(names) > 1 for names in above.values())


def _names_at(found: Sequence[FolderParts], level: int) -> list[str]:
    names = (part[1] for one in found if (part := one.part(level)) is not None)
    return list({plain(name): name for name in names}.values())


def cell_name_levels(found: Sequence[FolderParts]) -> bool:
    """Return whether C-NMC file names give all that folders say about classes.

    That is the case if no folder could name a class, or if each such folder holds cells of one class only and no two
    hold cells of the same.
    """
    classes_of: defaultdict[str, set[int]] = defaultdict(set)
    for one in found:
        group = _group(one)
        classes_of[group].update(label for label, count in enumerate(one.folder.num_named) if count)
    groups = {group: labels for group, labels in classes_of.items() if labels}
    if set(groups) <= {""}:
        return True
    alone = Counter(label for labels in groups.values() for label in labels)
    return all(len(labels) == 1 for labels in groups.values()) and all(count == 1 for count in alone.values())


def _group(one: FolderParts) -> str:
    """What a folder's path may say about the class apart from C-NMC's own words."""
    names = [name for _, name in one.parts if plain(name) not in CELL_CLASSES and not _are_no_classes([name])]
    return "/".join(map(plain, names))


def denied_folders(found: Sequence[FolderParts]) -> Iterator[tuple[TreeFolder, int]]:
    """Yield folders called ``hem`` or ``all``, with the other label of some of their images' C-NMC names."""
    for one in found:
        said = {plain(name) for name in one.folder.names} & set(CELL_CLASSES)
        for label, count in enumerate(one.folder.num_named):
            if count and said and CELL_CLASSES[label] not in said:
                yield one.folder, label
