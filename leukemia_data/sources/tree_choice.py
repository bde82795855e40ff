"""Choose how to read a tree's classes, splits and subjects: by options, by names, or by a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from typing import Any, NamedTuple

from leukemia_data.errors import AmbiguousSourceError, listed
from leukemia_data.records.record import CELL_CLASSES, GIVEN_SPLITS
from leukemia_data.sources.classes import number_classes
from leukemia_data.sources.name_words import is_container, is_leftover, is_person, is_unknown, is_variant, plain
from leukemia_data.sources.reading_options import BY_NAME, ReadingChoice, ReadingOptions, ask_at_once
from leukemia_data.sources.tree_classes import (
    ClassLevel,
    FolderParts,
    cell_name_levels,
    chosen_level,
    find_parts,
    level_of,
    listed_level,
    listed_names,
    may_be_classes,
    sensible_levels,
)
from leukemia_data.sources.tree_folders import SplitNames, TreeFolder, find_splits

_MAX_SHOWN = 6
_EMPTY = ClassLevel({})


class TreeChoice(NamedTuple):
    """Where classes, splits and subjects of a tree's images are read.

    Attributes
    ----------
    by_name
        Whether C-NMC file names give the classes of their images.
    level
        The folder that names the class of other images.
    splits
        The folders that mean splits.
    subject_of
        By a folder's names: the subject that they name, if any.
    """

    by_name: bool
    level: ClassLevel
    splits: SplitNames
    subject_of: Mapping[tuple[str, ...], str]


def choose_reading(folders: Sequence[TreeFolder], options: ReadingOptions, where: str) -> TreeChoice:
    """Choose how to read classes, splits and subjects of folders with images.

    Raises
    ------
    AmbiguousSourceError
        If folders beside splits mean none, or there are several sensible ways to read classes. The message begins with
        `where`.
    """
    kept = [
        folder
        for folder in folders
        if not options.excluding(*filter(None, (folder.path, folder.id_prefix.rstrip("/"))))
    ]
    splits = find_splits(kept, options)
    labelled = [folder for folder in kept if not folder.is_test_set]

    def read_again(chosen: ReadingOptions) -> None:
        again = choose_reading(kept, chosen, where)
        number_classes(again.level.counts(labelled), chosen)

    try:
        _require_known_splits(splits, options)
        by_name, level = _choose_classes(labelled, splits, options)
    except AmbiguousSourceError as error:
        raise ask_at_once(error, read_again, f"{where}: ") from None
    return TreeChoice(by_name, level, splits, _choose_subjects(find_parts(labelled, splits), level, options))


def lenient_reading(folders: Sequence[TreeFolder]) -> TreeChoice:
    """Return what can be read without a question, for images whose classes are not needed."""
    splits = find_splits(folders, ReadingOptions())
    parts = find_parts([folder for folder in folders if not folder.is_test_set], splits)
    levels = sensible_levels(parts)
    level = level_of(parts, levels[0]) if len(levels) == 1 else _EMPTY
    return TreeChoice(by_name=True, level=level, splits=splits, subject_of={})


def _require_known_splits(splits: SplitNames, options: ReadingOptions) -> None:
    """Raise AmbiguousSourceError if folders beside splits mean none."""
    if not splits.strangers:
        return
    known = {other: meant for (_, other), meant in splits.meanings.items()}
    names = list(dict.fromkeys(name for _, name in splits.strangers))
    readings = []
    # One or two may be of different splits; more are offered as one split.
    for way in product(GIVEN_SPLITS, repeat=len(names) if len(names) <= 2 else 1):
        meant = dict(zip(names, cycle(way), strict=False))
        text = "; ".join(f"{listed(group, most=_MAX_SHOWN)} {split}" for split, group in _grouped(meant))
        readings.append(ReadingChoice.of(text, options, split_folders=_grouped({**known, **meant})))
    readings.append(ReadingChoice.of("of no split", options, split_folders=_grouped(known)))
    paths = ["/".join((*above, name)) for above, name in splits.strangers]
    readings.append(ReadingChoice.of("no part of the data", options, exclude=_excluding(paths, options)))
    raise AmbiguousSourceError(
        f"{listed(paths, most=_MAX_SHOWN)}: no split, but beside the split folders {listed(known, most=_MAX_SHOWN)}",
        readings,
    )


def _excluding(paths: Iterable[str], options: ReadingOptions) -> tuple[str, ...]:
    return (*options.exclude, *(f"/{path}" for path in paths))


def _grouped(split_of: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Group folders by split, as ``split_folders`` does."""
    groups = ((split, tuple(name for name, meant in split_of.items() if meant == split)) for split in GIVEN_SPLITS)
    return tuple(group for group in groups if group[1])


# --- classes --------------------------------------------------------------------------------------------------


def _choose_classes(
    folders: Sequence[TreeFolder], splits: SplitNames, options: ReadingOptions
) -> tuple[bool, ClassLevel]:
    """Whether file names give the classes, and the level of folders that does."""
    if options.class_level is not None:
        by_name = options.class_level == BY_NAME
        return by_name, _EMPTY if by_name else chosen_level(folders, options.class_level)
    has_names = any(any(folder.num_named) for folder in folders)
    parts = find_parts(folders, splits)
    if options.classes:
        by_name = has_names and not listed_names(options).isdisjoint(CELL_CLASSES)
        level = listed_level(parts, options)
        if by_name or level.position_of:
            return by_name, level
    if has_names and cell_name_levels(parts):
        unnamed = [one for one in parts if sum(one.folder.num_named) < one.folder.num_images]
        levels = sensible_levels(unnamed)
        if len(levels) < 2:
            return True, level_of(unnamed, levels[0]) if levels else _EMPTY
    levels = sensible_levels(parts)
    if not has_names and len(levels) < 2 and not _are_doubtful(parts, levels):
        level = level_of(parts, levels[0]) if levels else _EMPTY
        _require_no_leftovers(folders, level, options)
        return False, level
    readings = [_read_by_level(folders, parts, level, splits, options) for level in reversed(levels)]
    if not has_names:
        what = "the folders' names look like no classes" if len(readings) == 1 else "the folders allow several readings"
        raise AmbiguousSourceError(what + _beside_text(parts), readings)
    if all(len(level_of(parts, level).counts(folders)) < 2 for level in levels):
        return True, _EMPTY
    what = "C-NMC file names and folders give different classes"
    raise AmbiguousSourceError(what, [_read_by_name(folders, options), *readings])


def _require_no_leftovers(folders: Sequence[TreeFolder], level: ClassLevel, options: ReadingOptions) -> None:
    """Raise AmbiguousSourceError if some folders, not all, have names of copies, drafts or results."""
    paths: dict[str, None] = {}
    kept = []
    for folder in folders:
        names = folder.names
        odd = next((n for n in range(folder.num_given, len(names)) if is_leftover(names[n])), None)
        if odd is None:
            kept.append(folder)
        else:
            paths["/".join(names[: odd + 1])] = None
    if not paths or not kept:
        return
    excluded, keep = _excluding(paths, options), _options_for(folders, level)
    raise AmbiguousSourceError(
        f"{listed(paths, most=_MAX_SHOWN)} may be copies, drafts or results beside the classes",
        [
            ReadingChoice.of(f"classes {_counted(level.counts(kept))}", options, exclude=excluded),
            ReadingChoice.of(f"classes {_counted(level.counts(folders))}", options, **keep),
        ],
    )


def _beside_text(parts: Sequence[FolderParts]) -> str:
    """Text on folders that hold images beside folders of images: some may be strays."""
    above = {one.folder.names[:length] for one in parts for length in range(len(one.folder.names))}
    paths = sorted(one.folder.path for one in parts if one.folder.names in above and one.parts)
    return f" (images lie directly in {listed(paths, most=3)}, beside folders of images)" if paths else ""


def _are_doubtful(parts: Sequence[FolderParts], levels: Sequence[int]) -> bool:
    """Whether the only level has names that look like people, slides or treatments."""
    if not levels:
        return False
    names = sorted({plain(part[1]) for one in parts if (part := one.part(levels[0])) is not None})
    return len(names) > 1 and (not may_be_classes(names) or all(map(is_person, names)))


def _read_by_name(folders: Sequence[TreeFolder], options: ReadingOptions) -> ReadingChoice:
    totals = map(sum, zip(*(folder.num_named for folder in folders), strict=True))
    counts = dict(zip(CELL_CLASSES, totals, strict=True))
    return ReadingChoice.of(f"classes {_counted(counts)}", options, class_level=BY_NAME)


def _read_by_level(
    folders: Sequence[TreeFolder],
    parts: Sequence[FolderParts],
    level: int,
    splits: SplitNames,
    options: ReadingOptions,
) -> ReadingChoice:
    found = level_of(parts, level)
    text, added = f"classes {_counted(found.counts(folders))}", _options_for(folders, found)
    strays = [
        folder
        for folder in folders
        if found.class_of(folder.names) is None
        and splits.split_of(folder.names) != "test"
        and not any(map(is_unknown, folder.names))
        and not _holds_dots(folder, folders)
    ]
    if strays and "class_level" in added:
        num_images = sum(folder.num_images for folder in strays)
        text += f"; left out: {num_images:,} directly in {listed((folder.path for folder in strays), most=3)}"
        added["exclude"] = _excluding((f"{folder.id_prefix}*.*" for folder in strays), options)
    return ReadingChoice.of(text, options, **added)


def _holds_dots(folder: TreeFolder, folders: Sequence[TreeFolder]) -> bool:
    """Whether a pattern for all files in a folder would match folders in it too."""
    depth = len(folder.names)
    below = (other.names[depth : depth + 1] for other in folders if other.names[:depth] == folder.names)
    return any("." in name for (name,) in filter(None, below))


def _options_for(folders: Sequence[TreeFolder], found: ClassLevel) -> dict[str, Any]:
    """The shortest options for the same classes: a level counted from the source or from the image, or the names."""
    places = [(folder, found.position_of[folder.names]) for folder in folders if folder.names in found.position_of]
    forward = {position - folder.num_given + 1 for folder, position in places}
    backward = {-sum(not is_container(name) for name in folder.names[position:]) for folder, position in places}
    for numbers in (forward, backward):
        number = numbers.pop() if len(numbers) == 1 else BY_NAME
        if number != BY_NAME and chosen_level(folders, number).position_of == found.position_of:
            return {"class_level": number}
    return {"classes": tuple(sorted(found.counts(folders)))}


def _counted(counts: Mapping[str, int]) -> str:
    return listed((f"{name} {count:,}" for name, count in sorted(counts.items())), most=_MAX_SHOWN)


# --- subjects -------------------------------------------------------------------------------------------------


def _choose_subjects(
    parts: Sequence[FolderParts], level: ClassLevel, options: ReadingOptions
) -> dict[tuple[str, ...], str]:
    if options.subject_from in ("name", "none") or options.subject_pattern is not None:
        return {}
    rest = {one.folder.names: _rest(one, level) for one in parts}
    if options.subject_from == "folder":
        return {names: _folder_subject(found) for names, found in rest.items()}
    people = {names: person for names, found in rest.items() if (person := _person(found))}
    return {} if _have_several_classes(people, level) else people


def _rest(one: FolderParts, level: ClassLevel) -> list[str]:
    """Parts of a path that name no class."""
    chosen = level.position_of.get(one.folder.names)
    return [name for position, name in one.parts if position != chosen]


def _person(names: Sequence[str]) -> str:
    return next((name for name in names if is_person(name)), "")


def _folder_subject(names: Sequence[str]) -> str:
    """The person among names, or all that name no treatment."""
    found = _person(names) or "/".join(name for name in names if not is_variant(name))
    return "" if is_unknown(found) else found


def _have_several_classes(people: Mapping[tuple[str, ...], str], level: ClassLevel) -> bool:
    """Whether some person's name occurs with several classes: it may be no person, or not one."""
    pairs = {(person, plain(name)) for names, person in people.items() if (name := level.class_of(names)) is not None}
    return len(pairs) > len({person for person, _ in pairs})


def other_folders(parts: Sequence[FolderParts], choice: TreeChoice) -> tuple[str, ...]:
    """Describe the names that were taken for no class, split or subject."""
    rest, beside_names = Counter[str](), Counter[str]()
    for one in parts:
        taken = choice.subject_of.get(one.folder.names, "")
        for name in _rest(one, choice.level):
            if name not in taken.split("/") and not (choice.by_name and plain(name) in CELL_CLASSES):
                is_named = choice.by_name and sum(one.folder.num_named) == one.folder.num_images
                (beside_names if is_named else rest)[name] += one.folder.num_images
    variants = {name: count for name, count in rest.items() if is_variant(name)}
    people = {name: count for name, count in rest.items() if is_person(name)}
    others = {name: count for name, count in rest.items() if name not in variants and name not in people}
    texts = (
        (variants, "treatments, no classes; --exclude leaves one out"),
        (people, "found with several classes, so taken for no subjects (--subject-from folder)"),
        (others, "neither classes nor subjects (--class-level, --subject-from folder)"),
        (beside_names, "beside C-NMC file names, which count (--class-level)"),
    )
    return tuple(f"{_counted(counts)}: {text}" for counts, text in texts if counts)
