"""Folders of images: the C-NMC trees in every published layout, and any folder-per-class tree.

A C-NMC file name tells class and subject by itself. The unnamed preliminary test images get theirs from the label
table that lies beside or inside their folder; the final test images have none. In other trees the class is the first
folder below splits and folds, and a folder between class and image is the subject.

Whatever bears an image's name is listed, even a link that leads nowhere or a pipe: without a size, so that it counts as
an image that cannot be used, and reading it tells why.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.file_state import state_of
from leukemia_data.samples.record import CELL_CLASSES, NO_FOLD, CellName, ImagePlace, parse_cell_name
from leukemia_data.sources.folder_walk import walk_folder
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, FoundImage, printable_name
from leukemia_data.sources.store_walk import stored_state, walk_store
from leukemia_data.sources.tree_file import MERGED_FOLDER, TreeFile, TreeFolder

if TYPE_CHECKING:
    from leukemia_data.storage.stored_url import StoredUrl

_LABEL_TABLE_COLUMNS = ("Patient_ID", "new_names", "labels")
_MAX_LISTED = 5


def walk_tree_images(root: ImagePlace, *, need_classes: bool = True) -> tuple[list[FoundImage], list[str]]:
    """List the images below `root`, with notes on what was decided.

    With `need_classes` every image outside the test folders must have a class.

    Raises
    ------
    SourceError
        If there is no image, an image lies in no class's folder, or folder and file name contradict each other.
    """
    images: list[TreeFile] = []
    label_tables: list[ImagePlace] = []
    passed_over: list[TreeFile] = []
    for file in walk_folder(root) if isinstance(root, Path) else walk_store(root):
        if file.suffix in IMAGE_SUFFIXES:
            images.append(file)
        elif not file.is_regular:
            passed_over.append(file)
        elif file.suffix == ".csv":
            label_tables.append(file.path)
    if not images:
        raise SourceError(
            f"no images below {printable_name(str(root))}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    images, notes = _without_merged_copies(images)
    named = _read_label_tables(label_tables) if any(file.folder.is_preliminary for file in images) else {}
    wrapper = _common_wrapper(images)
    found = [_place(file, named, wrapper) for file in images]
    _check_classes(root, images, found)
    if need_classes:
        _check_homes(root, images, found)
    return found, notes + _notes(images, found, wrapper) + _notes_on_names(images, passed_over)


def describe_file(path: Path) -> FoundImage:
    """One image file named by itself: its name tells what it can."""
    file = TreeFile(TreeFolder(()), path.name, str(path), state_of(path.stat()))
    return replace(_place(file, {}, 0), record_id=printable_name(path.as_posix()))


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
    file = TreeFile(TreeFolder(()), url.name, url, stored_state(state))
    return replace(_place(file, {}, 0), record_id=printable_name(str(url)))


def _without_merged_copies(images: list[TreeFile]) -> tuple[list[TreeFile], list[str]]:
    """Drop a ``train_merged`` folder's copies of images that the fold folders hold too."""
    in_folds = {file.name for file in images if file.folder.fold != NO_FOLD}
    kept = [file for file in images if not (file.folder.is_merged and file.name in in_folds)]
    num_dropped = len(images) - len(kept)
    notes = [f"passed over {num_dropped} copies in {MERGED_FOLDER}: the folds hold them"] if num_dropped else []
    return kept, notes


def _place(file: TreeFile, named: Mapping[str, CellName], wrapper: int) -> FoundImage:
    """Decide class, subject, split and fold of one file."""
    folder = file.folder
    cell = parse_cell_name(file.name)
    class_name, subject = folder.class_and_subject(wrapper)
    split = folder.split
    if folder.is_preliminary:
        cell, split = named.get(file.name.lower(), cell), "valid"
        class_name = None
    elif folder.is_final:
        class_name, split = None, "test"
    elif cell is not None and folder.fold != NO_FOLD:
        split = "train"
    if cell is not None:
        class_name, subject = CELL_CLASSES[cell.label], cell.subject
    return FoundImage(
        record_id=file.record_id,
        path=file.path,
        class_name=class_name,
        subject=subject,
        split=split,
        fold=folder.fold,
        state=file.state,
    )


def _common_wrapper(images: list[TreeFile]) -> int:
    """Number of leading folders that hold every image and therefore name no class."""
    folders = {file.folder.names for file in images}
    shallowest = min(map(len, folders))
    level = 0
    while level < shallowest - 1 and len({names[level] for names in folders}) == 1:
        level += 1
    return level


def _read_label_tables(paths: list[ImagePlace]) -> dict[str, CellName]:
    """New name (lower case) -> original name, from every C-NMC label table in the tree."""
    named: dict[str, CellName] = {}
    problems: list[str] = []
    for path in paths:
        for line, row in _label_rows(path):
            original, new_name, label = ((row[column] or "").strip() for column in _LABEL_TABLE_COLUMNS)
            cell = parse_cell_name(original)
            if cell is None or str(cell.label) != label:
                problems.append(f"{path}, line {line}: name {original!r} and label {label!r} disagree")
            elif named.setdefault(new_name.lower(), cell) != cell:
                problems.append(f"{path}, line {line}: another row says that {new_name!r} is another cell")
    if problems:
        raise SourceError(listed(problems, most=_MAX_LISTED, separator="; "))
    return named


def _label_rows(path: ImagePlace) -> list[tuple[int, dict[str, str]]]:
    """Rows of a C-NMC label table with their line numbers; none for a table of another kind, in whatever encoding."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not set(_LABEL_TABLE_COLUMNS) <= set(reader.fieldnames or ()):
            return []
        return [(reader.line_num, row) for row in reader]
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from error


def _check_classes(root: ImagePlace, files: list[TreeFile], found: list[FoundImage]) -> None:
    misplaced = [
        file.record_id
        for file, image in zip(files, found, strict=True)
        if image.class_name in CELL_CLASSES
        and file.folder.names
        and file.folder.names[-1].lower() in CELL_CLASSES
        and file.folder.names[-1].lower() != image.class_name
    ]
    if misplaced:
        raise SourceError(
            f"{len(misplaced)} images below {root} lie in the folder of the class that their name denies: "
            f"{', '.join(misplaced[:_MAX_LISTED])}"
        )


def _check_homes(root: ImagePlace, files: list[TreeFile], found: list[FoundImage]) -> None:
    homeless = [
        file.record_id
        for file, image in zip(files, found, strict=True)
        if image.class_name is None and image.split != "test" and not file.folder.is_preliminary
    ]
    if homeless:
        raise SourceError(
            f"{len(homeless)} images below {root} lie in no class's folder and have no C-NMC name: "
            f"{', '.join(homeless[:_MAX_LISTED])}; sort them into one folder per class, or list them in a CSV table"
        )


def _notes(files: list[TreeFile], found: list[FoundImage], wrapper: int) -> list[str]:
    notes = []
    placed = list(zip(files, found, strict=True))
    num_unnamed = sum(file.folder.is_preliminary and image.class_name is None for file, image in placed)
    if num_unnamed:
        notes.append(f"{num_unnamed} preliminary test images have no row in a label table: taken as unlabelled")
    if any(image.subject and image.subject == file.folder.class_and_subject(wrapper)[1] for file, image in placed):
        notes.append("subjects were taken from the folders between class and image")
    return notes


def _notes_on_names(images: Sequence[TreeFile], passed_over: Sequence[TreeFile]) -> list[str]:
    """What is neither image nor table nor folder, and names that other systems take for one."""
    notes = []
    if passed_over:
        names = listed([file.record_id for file in passed_over], most=_MAX_LISTED)
        notes.append(
            f"passed over {len(passed_over)} that are neither files nor folders "
            f"(links that lead nowhere, pipes, devices): {names}"
        )
    spellings = Counter(file.record_id.lower() for file in images)
    if len(spellings) < len(images):
        alike = [file.record_id for file in images if spellings[file.record_id.lower()] > 1]
        notes.append(
            f"{len(alike)} images differ from another in nothing but the case of their names: taken as images of their "
            f"own here, one file where case does not count: {listed(alike, most=_MAX_LISTED)}"
        )
    return notes
