"""Folders of images: the C-NMC trees in every published layout, and any folder-per-class tree.

A C-NMC file name tells class and subject by itself. The unnamed preliminary test images get theirs from the label
table that lies beside or inside their folder; the final test images have none. In other trees the class is the first
folder below splits and folds, and a folder between class and image is the subject.

Whatever bears an image's name is listed, even a link that leads nowhere or a pipe: without a size, so that it counts as
an image that cannot be used, and reading it tells why.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from leukemia_data.errors import SourceError, listed
from leukemia_data.samples.record import CELL_CLASSES, NO_FOLD, CellName, parse_cell_name
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, FoundImage, printable_name, split_word

_FOLD = re.compile(r"fold[_-]?(\d{1,4})", re.IGNORECASE)
_PRELIMINARY = re.compile(r"prelim|^phase2$", re.IGNORECASE)
_FINAL = re.compile(r"final_phase|test_final|^phase3$", re.IGNORECASE)
_MERGED_FOLDER = "train_merged"
_LABEL_TABLE_COLUMNS = ("Patient_ID", "new_names", "labels")
_MAX_LISTED = 5
_NO_FILE = -1
"""Size and modification time of what is no regular file."""


class _Folder:
    """A folder below the root: what its names say, found out once for all its files."""

    def __init__(self, found_names: tuple[str, ...]) -> None:
        names = tuple(map(printable_name, found_names))
        self.names = names
        self.id_prefix = "".join(f"{name}/" for name in names)
        folds = [match for name in names if (match := _FOLD.fullmatch(name))]
        self.fold = int(folds[-1].group(1)) if folds else NO_FOLD
        self.split = next((word for word in map(split_word, reversed(names)) if word), "")
        self.is_preliminary = any(_PRELIMINARY.search(name) for name in names)
        self.is_final = any(_FINAL.search(name) for name in names)
        self.is_merged = any(_MERGED_FOLDER in name.lower() for name in names)

    @lru_cache(maxsize=4)  # noqa: B019 - folders live as long as one listing
    def class_and_subject(self, wrapper: int) -> tuple[str | None, str]:
        """The first name that is no split and no fold, and what follows it; `wrapper` names hold everything."""
        names = [name for name in self.names[wrapper:] if split_word(name) is None and not _FOLD.fullmatch(name)]
        return (names[0], "/".join(names[1:])) if names else (None, "")


@dataclass(frozen=True, slots=True)
class _File:
    folder: _Folder
    name: str
    location: str
    size_bytes: int
    mtime_ns: int

    @property
    def record_id(self) -> str:
        return self.folder.id_prefix + printable_name(self.name)

    @property
    def is_regular(self) -> bool:
        return self.size_bytes != _NO_FILE


def walk_tree_images(root: Path, *, need_classes: bool = True) -> tuple[list[FoundImage], list[str]]:
    """List the images below `root`, with notes on what was decided.

    With `need_classes` every image outside the test folders must have a class.

    Raises
    ------
    SourceError
        If there is no image, an image lies in no class's folder, or folder and file name contradict each other.
    """
    images: list[_File] = []
    label_tables: list[Path] = []
    passed_over: list[_File] = []
    for file in _walk(root):
        suffix = _suffix(file.name)
        if suffix in IMAGE_SUFFIXES:
            images.append(file)
        elif not file.is_regular:
            passed_over.append(file)
        elif suffix == ".csv":
            label_tables.append(Path(file.location))
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
    status = path.stat()
    file = _File(_Folder(()), path.name, str(path), status.st_size, status.st_mtime_ns)
    return replace(_place(file, {}, 0), record_id=printable_name(path.as_posix()))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file takes as long as the walk


def _walk(root: Path, names: tuple[str, ...] = (), above: frozenset[Path] = frozenset()) -> Iterator[_File]:
    """Everything below a folder that is no folder; dot files (``._x`` of macOS too) and dot folders are passed over.

    Links are followed, but not back into a folder `above`. A folder that bears an image's name and holds none counts
    as an image that is no file.
    """
    here = root.resolve()
    if here in above:
        return
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"cannot list {printable_name(str(root))}: {error.strerror}") from error
    folder = _Folder(names)
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if not _is_folder(entry):
            yield _describe_entry(folder, entry)
            continue
        below = _walk(Path(entry.path), (*names, entry.name), above | {here})
        if _suffix(entry.name) in IMAGE_SUFFIXES:
            files = list(below)
            yield from files
            if not any(_suffix(file.name) in IMAGE_SUFFIXES for file in files):
                yield _File(folder, entry.name, entry.path, _NO_FILE, _NO_FILE)
        else:
            yield from below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle, or into a folder that may not be entered.
        return False


def _describe_entry(folder: _Folder, entry: os.DirEntry[str]) -> _File:
    """A file with its state; without one where it is no regular file, or gone by now."""
    try:
        if entry.is_file():
            status = entry.stat()
            return _File(folder, entry.name, entry.path, status.st_size, status.st_mtime_ns)
    except OSError:
        pass
    return _File(folder, entry.name, entry.path, _NO_FILE, _NO_FILE)


def _without_merged_copies(images: list[_File]) -> tuple[list[_File], list[str]]:
    """Drop a ``train_merged`` folder's copies of images that the fold folders hold too."""
    in_folds = {file.name for file in images if file.folder.fold != NO_FOLD}
    kept = [file for file in images if not (file.folder.is_merged and file.name in in_folds)]
    num_dropped = len(images) - len(kept)
    notes = [f"passed over {num_dropped} copies in {_MERGED_FOLDER}: the folds hold them"] if num_dropped else []
    return kept, notes


def _place(file: _File, named: Mapping[str, CellName], wrapper: int) -> FoundImage:
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
        path=Path(file.location),
        class_name=class_name,
        subject=subject,
        split=split,
        fold=folder.fold,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
    )


def _common_wrapper(images: list[_File]) -> int:
    """Number of leading folders that hold every image and therefore name no class."""
    folders = {file.folder.names for file in images}
    shallowest = min(map(len, folders))
    level = 0
    while level < shallowest - 1 and len({names[level] for names in folders}) == 1:
        level += 1
    return level


def _read_label_tables(paths: list[Path]) -> dict[str, CellName]:
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


def _label_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a C-NMC label table with their line numbers; none for a table of another kind, in whatever encoding."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if not set(_LABEL_TABLE_COLUMNS) <= set(reader.fieldnames or ()):
                return []
            return [(reader.line_num, row) for row in reader]
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from error


def _check_classes(root: Path, files: list[_File], found: list[FoundImage]) -> None:
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


def _check_homes(root: Path, files: list[_File], found: list[FoundImage]) -> None:
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


def _notes(files: list[_File], found: list[FoundImage], wrapper: int) -> list[str]:
    notes = []
    placed = list(zip(files, found, strict=True))
    num_unnamed = sum(file.folder.is_preliminary and image.class_name is None for file, image in placed)
    if num_unnamed:
        notes.append(f"{num_unnamed} preliminary test images have no row in a label table: taken as unlabelled")
    if any(image.subject and image.subject == file.folder.class_and_subject(wrapper)[1] for file, image in placed):
        notes.append("subjects were taken from the folders between class and image")
    return notes


def _notes_on_names(images: Sequence[_File], passed_over: Sequence[_File]) -> list[str]:
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
