"""Folders of images, in every published layout of C-NMC and in trees with a folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.atomic import state_of
from leukemia_data.files.csv_table import peek_header
from leukemia_data.records.record import (
    CELL_CLASSES,
    IMAGE_SUFFIXES,
    NO_FOLD,
    CellName,
    FoundImage,
    ImagePlace,
    own_name,
    parse_cell_name,
    printable_name,
)
from leukemia_data.sources.classes import label_key, read_label_tables
from leukemia_data.sources.kinds import ReadRequest
from leukemia_data.sources.name_words import is_cell_class, is_unknown, is_variant, plain, split_word, tokens
from leukemia_data.sources.reading import CNMC_NAMING, TableFound
from leukemia_data.sources.reading_options import ReadingOptions, subject_in
from leukemia_data.sources.tree_choice import TreeChoice, choose_reading, lenient_reading, other_folders
from leukemia_data.sources.tree_classes import ClassLevel, FolderParts, denied_folders, find_parts
from leukemia_data.sources.tree_folders import OUTPUT, PartReading, TreeFile, TreeFolder, find_splits, named_splits
from leukemia_data.sources.tree_images import Tree, TreeImages, find_images, is_figure, stored_state

_MAX_LISTED = 5
_MAX_TABLES = 8


def _change_marks(trees: Sequence[Tree]) -> str:
    """By what the next build recognizes changed files."""
    if all(isinstance(tree.root, Path) for tree in trees):
        return "size, modification time, change time and number of the file"
    return "size, modification time and tag of the object"


def _tables_with_columns(found: TreeImages) -> list[str]:
    return [table.record_id for table in found.tables if peek_header(table.path)]


def _describe_trees(
    part: PartReading,
    found: TreeImages,
    choice: TreeChoice,
    options: ReadingOptions,
    label_tables: Sequence[ImagePlace],
) -> None:
    """Describe in `part`, whose images are in the order of those found, how the trees were read."""
    labelled = [folder for folder in found.folders if not folder.is_test_set]
    part.class_sources = _class_sources(labelled, choice, label_tables)
    part.subject_sources = _subject_sources(part.images, found, choice, options)
    for folder in found.folders:
        for position, name in enumerate(folder.names):
            split = choice.splits.split_at(folder.names, position)
            if split:
                part.split_words.setdefault(split, {}).setdefault(name)
    part.other_folders = other_folders(find_parts(labelled, choice.splits), choice)
    part.tables = [_table_found(table, label_tables) for table in found.tables[:_MAX_TABLES]]
    part.notes = [*_notes_on_preliminary(found, part.images), *_notes_on_names(part.images), *_notes_on_twins(found)]


def _class_sources(labelled: Sequence[TreeFolder], choice: TreeChoice, label_tables: Sequence[ImagePlace]) -> list[str]:
    sources = []
    if choice.by_name and any(any(folder.num_named) for folder in labelled):
        sources.append(CNMC_NAMING)
    places = [(folder, choice.level.position_of.get(folder.names)) for folder in labelled]
    levels = sorted({position - folder.num_given + 1 for folder, position in places if position is not None})
    if levels:
        shown = [f"folder level {level}" if level > 0 else "the names of the sources" for level in levels]
        sources.append(" and ".join(dict.fromkeys(shown)))
    if label_tables:
        sources.append(f"table {label_tables[0].name}")
    return sources


def _subject_sources(
    images: Sequence[FoundImage], found: TreeImages, choice: TreeChoice, options: ReadingOptions
) -> list[str]:
    if options.subject_pattern is not None:
        return [f"--subject-pattern {options.subject_pattern}"]
    sources = []
    if options.subject_from in (None, "name") and any(
        image.subject and (cell is not None or file.folder.is_preliminary)
        for (file, cell), image in zip(found.images, images, strict=True)
    ):
        sources.append(CNMC_NAMING)
    if any(choice.subject_of.values()):
        sources.append("folders" if options.subject_from == "folder" else "folders of a known form")
    return sources


def _table_found(table: TreeFile, label_tables: Sequence[ImagePlace]) -> TableFound:
    if table.path in label_tables:
        return TableFound(name=table.record_id, read={"label": "labels", "subject": "Patient_ID", "file": "new_names"})
    header = tuple(title for title in peek_header(table.path) if title)
    return TableFound(name=table.record_id, not_read=header, is_source=False)


def _notes_on_preliminary(found: TreeImages, images: Sequence[FoundImage]) -> list[str]:
    num_unnamed = sum(
        image.class_name is None and file.folder.is_preliminary
        for (file, _), image in zip(found.images, images, strict=True)
    )
    if not num_unnamed:
        return []
    return [f"{num_unnamed} preliminary test images have no row in a label table: taken as unlabelled"]


def _notes_on_names(images: Sequence[FoundImage]) -> list[str]:
    spellings = Counter(image.record_id.lower() for image in images)
    if len(spellings) == len(images):
        return []
    alike = [image.record_id for image in images if spellings[image.record_id.lower()] > 1]
    return [
        f"{len(alike)} images differ from another in the case of their names only: taken as several images here, one "
        f"file where case does not count: {listed(alike, most=_MAX_LISTED)}"
    ]


def _notes_on_twins(found: TreeImages) -> list[str]:
    """Note equal file names in folders of several treatments."""
    treated = {id(folder): next((name for name in folder.names if is_variant(name)), "") for folder in found.folders}
    kinds = sorted(set(treated.values()) - {""})
    names = Counter(file.name for file, _ in found.images if treated[id(file.folder)])
    num_twins = sum(count for count in names.values() if count > 1)
    if len(kinds) < 2 or not num_twins:
        return []
    return [
        f"{num_twins:,} images have the name of another in folders of different treatment ({', '.join(kinds)}): the "
        "same cells may be there more than once, and on both sides of a split; --exclude leaves a folder out"
    ]


class _Meaning(NamedTuple):
    """What a folder says about its images."""

    class_name: str | None
    subject: str
    split: str
    fold: int
    is_preliminary: bool
    by_name: bool


class Trees:
    """Folders of images; see :class:`leukemia_data.sources.kinds.SourceKind`."""

    name = "tree"
    is_table = False

    def matches(self, place: ImagePlace) -> bool:
        """Return whether this is a folder.

        In a store, only a listing shows what exists: a name that holds nothing is a folder without images.
        """
        return place.is_dir() if isinstance(place, Path) else place.suffix.lower() != ".csv"

    def read(self, places: Sequence[Tree], request: ReadRequest) -> list[PartReading]:
        """Read all folders as one tree."""
        trees = list({place.root: place for place in places}.values())
        return [read_trees(trees, request.options, need_classes=request.need_classes)]


TREES = Trees()


def read_trees(trees: Sequence[Tree], options: ReadingOptions, *, need_classes: bool = True) -> PartReading:
    """Read all folders of a source as one tree.

    Parameters
    ----------
    trees
        The folders; their given names are read like those of the folders below.
    options
        What the user says of their meaning.
    need_classes
        Whether every image outside test folders must have a class; otherwise there are no questions.

    Raises
    ------
    SourceError
        If there is no image, an image has no class, or folder and file name contradict each other.
    AmbiguousSourceError
        If there are several sensible readings.
    """
    where = ", ".join(printable_name(str(tree.root)) for tree in trees)
    found = find_images(trees, options)
    if not found.images:
        raise SourceError(f"no images below {where}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    named, label_tables = _label_tables(found)
    if need_classes:
        _check_before(found, options, where)
        choice = choose_reading(found.folders, options, where)
    else:
        choice = lenient_reading(found.folders)
    alone = "" if choice.splits.meanings else _own_split(trees, options)
    only = _only_folder(found, choice, options, where) if need_classes else ""
    if only:
        choice = choice._replace(level=ClassLevel({}))
    meanings = {id(folder): _meaning(folder, choice, options, alone) for folder in found.folders}
    images = [_place(file, cell, meanings[id(file.folder)], named, options) for file, cell in found.images]
    if need_classes and not only:
        _require_classes(where, found, images)
    part = PartReading(images, passed_over=found.passed_over, told_by=_change_marks(trees))
    _describe_trees(part, found, choice, options, label_tables)
    if only:
        part.notes.append(
            f"all images lie in one folder, {only}, which distinguishes nothing: taken as unlabelled; --classes {only} "
            "makes it a class"
        )
    if alone and not part.split_words:
        part.split_words[alone] = {trees[0].root.name: None}
    return part


def describe_file(place: ImagePlace) -> FoundImage:
    """Return one image file or object given by itself, with what its name says.

    Raises
    ------
    UsageError
        If there is no such object in a store.
    """
    folder = TreeFolder.of(())
    if isinstance(place, Path):
        file, record_id = TreeFile(folder, place.name, str(place), state_of(place.stat())), place.as_posix()
    else:
        state = place.state()
        if state is None:
            raise UsageError(f"source not found: {place}")
        file, record_id = TreeFile(folder, place.name, place, stored_state(state)), str(place)
    alone = _Meaning(None, "", "", NO_FOLD, is_preliminary=False, by_name=True)
    found = _place(file, parse_cell_name(file.name), alone, {}, ReadingOptions())
    return found._replace(record_id=printable_name(record_id))


def _label_tables(found: TreeImages) -> tuple[dict[str, CellName], list[ImagePlace]]:
    if not any(folder.is_preliminary for folder in found.folders):
        return {}, []
    return read_label_tables([table.path for table in found.tables])


def _meaning(folder: TreeFolder, choice: TreeChoice, options: ReadingOptions, own_split: str) -> _Meaning:
    class_name = choice.level.class_of(folder.names)
    split = choice.splits.split_of(folder.names) or own_split
    if folder.is_test_set:
        class_name = None
        split = split if options.split_folders else "valid" if folder.is_preliminary else "test"
    if class_name is not None and is_unknown(class_name) and class_name not in options.classes:
        class_name = None
    return _Meaning(
        class_name, choice.subject_of.get(folder.names, ""), split, folder.fold, folder.is_preliminary, choice.by_name
    )


def _place(
    file: TreeFile,
    cell: CellName | None,
    meaning: _Meaning,
    named: Mapping[str, CellName],
    options: ReadingOptions,
) -> FoundImage:
    class_name, subject, split, fold, is_preliminary, by_name = meaning
    if is_preliminary and named:
        cell = named.get(label_key(file.name), cell)
    if cell is not None:
        if fold != NO_FOLD and not is_preliminary:
            split = "train"
        if by_name or is_preliminary:
            class_name = CELL_CLASSES[cell.label]
        if options.subject_from in (None, "name"):
            subject = cell.subject
    if options.subject_pattern is not None:
        subject = _pattern_subject(file, options.subject_pattern)
    return FoundImage(file.record_id, file.path, class_name, subject, split, fold, file.state)


def _pattern_subject(file: TreeFile, pattern: str) -> str:
    below = file.folder.path
    found = subject_in(pattern, f"{below}/{printable_name(file.name)}" if below else printable_name(file.name))
    return "" if is_unknown(found) else found


def _check_before(found: TreeImages, options: ReadingOptions, where: str) -> None:
    """Refuse images that have no class in any reading before there are questions about the others."""
    if options.class_level is not None or options.classes:
        return
    labelled = [folder for folder in found.folders if not folder.is_test_set]
    splits = find_splits(labelled, options)
    parts = find_parts(labelled, splits)
    _check_names(found, parts, where)
    bare = {id(one.folder) for one in parts if not one.parts and splits.split_of(one.folder.names) != "test"}
    if len(bare) < len(parts):
        # Figures of matplotlib, such as a preview, are no images.
        found.leave_out(
            lambda file, cell: OUTPUT if id(file.folder) in bare and cell is None and is_figure(file) else ""
        )
        strays = [file.record_id for file, cell in found.images if id(file.folder) in bare and cell is None]
        _refuse_unclassed(where, found, strays)


def _check_names(found: TreeImages, parts: Sequence[FolderParts], where: str) -> None:
    """Refuse images in folders ``hem`` and ``all`` whose names contradict these."""
    denied = {(id(folder), label) for folder, label in denied_folders(parts)}
    if not denied:
        return
    misplaced = [
        file.record_id for file, cell in found.images if cell is not None and (id(file.folder), cell.label) in denied
    ]
    raise SourceError(
        f"{len(misplaced)} images below {where} are in the folder of a class that contradicts their name: "
        f"{listed(misplaced, most=_MAX_LISTED)}; move them, or say which counts with --class-level name or a number"
    )


def _require_classes(where: str, found: TreeImages, images: Sequence[FoundImage]) -> None:
    """Refuse images without a class outside test sets."""
    unclassed = [
        image.record_id
        for (file, _), image in zip(found.images, images, strict=True)
        if image.class_name is None
        and image.split != "test"
        and not (file.folder.is_preliminary or any(map(is_unknown, file.folder.names)))
    ]
    _refuse_unclassed(where, found, unclassed)


def _only_folder(found: TreeImages, choice: TreeChoice, options: ReadingOptions, where: str) -> str:
    """The only folder that could name a class, if it has no usual name of one.

    Raises
    ------
    SourceError
        If there is a table that may give the classes.
    """
    names = {choice.level.class_of(folder.names) for folder in found.folders} - {None}
    if options.classes or options.class_level is not None or len(names) != 1 or choice.by_name:
        return ""
    only = next(iter(names)) or ""
    if only.lower() in CELL_CLASSES or is_cell_class(only):
        return ""
    tables = _tables_with_columns(found)
    if tables:
        raise SourceError(
            f"all images below {where} lie in one folder, {only}, and a table beside them may give their classes: give "
            f"{tables[0]} as SOURCE, or say with --classes {only} that they are of one class"
        )
    return only


def _refuse_unclassed(where: str, found: TreeImages, record_ids: Sequence[str]) -> None:
    if not record_ids:
        return
    tables = _tables_with_columns(found)
    cure = (
        f"give the table {tables[0]} as SOURCE if it lists them"
        if tables
        else "sort them into one folder per class, list them in a CSV table, or leave them out with --exclude"
    )
    raise SourceError(
        f"{len(record_ids)} images below {where} lie in no class's folder and have no C-NMC name: "
        f"{listed(record_ids, most=_MAX_LISTED)}; {cure}"
    )


def _own_split(trees: Sequence[Tree], options: ReadingOptions) -> str:
    """The split of the only folder: as the user says, or by its name if that is a single word."""
    if len(trees) != 1:
        return ""
    name = own_name(trees[0].root)
    if options.split_folders:
        return named_splits(options).get(plain(name), "")
    return (split_word(name) or "") if len(tokens(name)) == 1 else ""
