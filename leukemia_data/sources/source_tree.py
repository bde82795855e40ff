"""Folders of images: the C-NMC trees in every published layout, and trees with a folder per class.

A C-NMC file name tells class and subject by itself. The unnamed preliminary test images get theirs from the label
table that lies beside or inside their folder; the final test images have none. In other trees a folder names the
class, and which one is found out or asked for (``tree_choice``).

Whatever bears an image's name is listed, even a link that leads nowhere or a pipe: without a size, so that it counts as
an image that cannot be used, and reading it tells why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.file_state import state_of
from leukemia_data.samples.record import CELL_CLASSES, NO_FOLD, CellName, ImagePlace, parse_cell_name
from leukemia_data.sources.cnmc_labels import label_key, read_label_tables
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, FoundImage, own_name, printable_name
from leukemia_data.sources.name_words import is_cell_class, is_unknown, plain, split_word, tokens
from leukemia_data.sources.part_reading import PartReading
from leukemia_data.sources.reading_options import ReadingOptions, subject_in
from leukemia_data.sources.store_walk import stored_state
from leukemia_data.sources.tree_choice import TreeChoice, choose_reading, lenient_reading
from leukemia_data.sources.tree_classes import ClassLevel, FolderParts, denied_folders, find_parts
from leukemia_data.sources.tree_file import OUTPUT, TreeFile
from leukemia_data.sources.tree_folders import TreeFolder, find_splits, named_splits
from leukemia_data.sources.tree_images import Tree, TreeImages, find_images, is_figure
from leukemia_data.sources.tree_words import describe_trees, lists_images, told_by

if TYPE_CHECKING:
    from leukemia_data.storage.stored_url import StoredUrl

_MAX_LISTED = 5


class _Meaning(NamedTuple):
    """What a folder tells of the images in it."""

    class_name: str | None
    subject: str
    split: str
    fold: int
    is_preliminary: bool
    by_name: bool


def read_trees(trees: Sequence[Tree], options: ReadingOptions, *, need_classes: bool = True) -> PartReading:
    """Read all folders of a source as one tree.

    Parameters
    ----------
    trees
        The folders; the names that tell them apart are read like those of the folders below.
    options
        What the user says of their meaning.
    need_classes
        Whether every image outside test folders must have a class; otherwise nothing is asked.

    Raises
    ------
    SourceError
        If there is no image, an image lies in no class's folder, or folder and file name contradict each other.
    AmbiguousSourceError
        If there are several sensible readings.
    """
    where = ", ".join(printable_name(str(tree.root)) for tree in trees)
    found = find_images(trees, options)
    if not found.images:
        raise SourceError(f"no images below {where}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    folders = found.folders
    named, label_tables = _label_tables(found, folders)
    if need_classes:
        _check_before(found, options, where)
        choice = choose_reading(folders, options, where)
    else:
        choice = lenient_reading(folders)
    alone = "" if choice.splits.meanings else _own_split(trees, options)
    only = _only_folder(found, choice, options, where) if need_classes else ""
    if only:
        choice = choice._replace(level=ClassLevel({}))
    meanings = {id(folder): _meaning(folder, choice, options, alone) for folder in folders}
    images = [_place(file, cell, meanings[id(file.folder)], named, options) for file, cell in found.images]
    if need_classes and not only:
        _check_homes(where, found, images, meanings)
    part = PartReading(images, passed_over=found.passed_over, told_by=told_by(trees))
    describe_trees(part, found, choice, options, label_tables)
    if only:
        part.notes.append(
            f"all images lie in one folder, {only}, which tells nothing apart: taken as unlabelled; --classes {only} "
            "makes it a class"
        )
    if alone and not part.split_words:
        part.split_words[alone] = {trees[0].root.name: None}
    return part


def describe_file(path: Path) -> FoundImage:
    """One image file named by itself: its name tells what it can."""
    file = TreeFile(TreeFolder.of(()), path.name, str(path), state_of(path.stat()))
    return _by_itself(file, printable_name(path.as_posix()))


def describe_object(url: StoredUrl) -> FoundImage:
    """One image in a store named by itself.

    Raises
    ------
    UsageError
        If there is none.
    """
    state = url.state()
    if state is None:
        raise UsageError(f"source not found: {url}")
    return _by_itself(TreeFile(TreeFolder.of(()), url.name, url, stored_state(state)), printable_name(str(url)))


def _by_itself(file: TreeFile, record_id: str) -> FoundImage:
    alone = _Meaning(None, "", "", NO_FOLD, is_preliminary=False, by_name=True)
    return _place(file, parse_cell_name(file.name), alone, {}, ReadingOptions())._replace(record_id=record_id)


def _label_tables(found: TreeImages, folders: Sequence[TreeFolder]) -> tuple[dict[str, CellName], list[ImagePlace]]:
    if not any(folder.is_preliminary for folder in folders):
        return {}, []
    return read_label_tables([table.path for table in found.tables])


# --- meanings -------------------------------------------------------------------------------------------------


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
    """What is known of one image."""
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


# --- checks ---------------------------------------------------------------------------------------------------


def _check_before(found: TreeImages, options: ReadingOptions, where: str) -> None:
    """Refuse images that no reading finds a class for, before anything is asked about the others."""
    if options.class_level is not None or options.classes:
        return
    labelled = [folder for folder in found.folders if not folder.is_test_set]
    splits = find_splits(labelled, options)
    parts = find_parts(labelled, splits)
    _check_names(found, parts, where)
    bare = {id(one.folder) for one in parts if not one.parts and splits.split_of(one.folder.names) != "test"}
    if len(bare) < len(parts):
        _leave_out_figures(found, bare)
        strays = [file.record_id for file, cell in found.images if id(file.folder) in bare and cell is None]
        _refuse_homeless(where, found, strays)


def _leave_out_figures(found: TreeImages, bare: set[int]) -> None:
    """Pass over figures that matplotlib drew, such as a preview, among images in no class's folder."""
    kept = []
    for file, cell in found.images:
        if id(file.folder) in bare and cell is None and is_figure(file):
            found.passed_over.add(OUTPUT, file.record_id)
        else:
            kept.append((file, cell))
    found.images = kept


def _check_names(found: TreeImages, parts: Sequence[FolderParts], where: str) -> None:
    """Refuse images in folders ``hem`` and ``all`` whose names deny them."""
    denied = {(id(folder), label) for folder, label in denied_folders(parts)}
    if not denied:
        return
    misplaced = [
        file.record_id for file, cell in found.images if cell is not None and (id(file.folder), cell.label) in denied
    ]
    raise SourceError(
        f"{len(misplaced)} images below {where} lie in the folder of the class that their name denies: "
        f"{listed(misplaced, most=_MAX_LISTED)}; move them, or say which counts with --class-level name or a number"
    )


def _check_homes(
    where: str,
    found: TreeImages,
    images: Sequence[FoundImage],
    meanings: Mapping[int, _Meaning],
) -> None:
    """Refuse images without a class outside test sets."""
    homeless = [
        image.record_id
        for (file, _), image in zip(found.images, images, strict=True)
        if image.class_name is None and image.split != "test" and not _may_be_unlabelled(file, meanings)
    ]
    _refuse_homeless(where, found, homeless)


def _only_folder(found: TreeImages, choice: TreeChoice, options: ReadingOptions, where: str) -> str:
    """The only folder that could name a class, if its name is none that a class usually has: it tells nothing.

    Raises
    ------
    SourceError
        If a table lies there that may tell the classes.
    """
    names = {choice.level.class_of(folder.names) for folder in found.folders} - {None}
    if options.classes or options.class_level is not None or len(names) != 1 or choice.by_name:
        return ""
    only = next(iter(names)) or ""
    if only.lower() in CELL_CLASSES or is_cell_class(only):
        return ""
    tables = [table.record_id for table in found.tables if lists_images(table)]
    if tables:
        raise SourceError(
            f"all images below {where} lie in one folder, {only}, and a table beside them may tell their classes: give "
            f"{tables[0]} as SOURCE, or say with --classes {only} that they are of one class"
        )
    return only


def _refuse_homeless(where: str, found: TreeImages, homeless: Sequence[str]) -> None:
    if not homeless:
        return
    tables = [table.record_id for table in found.tables if lists_images(table)]
    cure = (
        f"give the table {tables[0]} as SOURCE if it lists them"
        if tables
        else "sort them into one folder per class, list them in a CSV table, or leave them out with --exclude"
    )
    raise SourceError(
        f"{len(homeless)} images below {where} lie in no class's folder and have no C-NMC name: "
        f"{listed(homeless, most=_MAX_LISTED)}; {cure}"
    )


def _may_be_unlabelled(file: TreeFile, meanings: Mapping[int, _Meaning]) -> bool:
    return meanings[id(file.folder)].is_preliminary or any(map(is_unknown, file.folder.names))


def _own_split(trees: Sequence[Tree], options: ReadingOptions) -> str:
    """The split of the only folder: as the user says, else as its name means if that is nothing but such a word."""
    if len(trees) != 1:
        return ""
    name = own_name(trees[0].root)
    if options.split_folders:
        return named_splits(options).get(plain(name), "")
    return (split_word(name) or "") if len(tokens(name)) == 1 else ""
