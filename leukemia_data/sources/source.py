"""Where images come from: folders and tables in, one list of records out.

Every argument of ``ldata build`` is a folder (``source_tree``) or a CSV table (``source_table``). Both yield images
with a class *name*; here the names become labels, several sources become one, and contradictions become errors.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import CELL_CLASSES, UNKNOWN_LABEL, ImagePlace, Record
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, FoundImage
from leukemia_data.sources.source_table import ImageTable, TableImage, read_image_table
from leukemia_data.sources.source_tree import describe_file, describe_object, walk_tree_images


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything a build wants to know of its source.

    Attributes
    ----------
    name
        Suggested cache name: the first folder's, or that of the folder a table lies in.
    classes
        Class names; ``("hem", "all")`` for C-NMC, otherwise in alphabetical order. A position is a label.
    records
        One per image, in the order of their ids.
    notes
        What was decided on the way that a user should know.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one argument holds; ``table`` is None for a folder."""

    images: list[FoundImage]
    notes: list[str]
    table: ImageTable | None = None


def list_source(
    paths: Sequence[ImagePlace], *, root: ImagePlace | None = None, allow_outside: bool = False
) -> SourceListing:
    """List the images of folders and tables.

    Parameters
    ----------
    paths
        Folders and ``.csv`` files, of this machine or in a store.
    root
        Where the relative paths of tables start; by default each table's own folder.
    allow_outside
        Take files that a table names outside `root` too.

    Raises
    ------
    UsageError
        If a path is neither a folder nor a CSV file.
    SourceError
        If there are no images, labels contradict each other, or a table cannot be read. All problems of a source
        are told at once.
    """
    read = [_read_one(path, root, is_alone=len(paths) == 1, allow_outside=allow_outside) for path in paths]
    _check_across([found.table for found in read if found.table is not None])
    images = _merge_same_ids(image for found in read for image in found.images)
    classes = _class_list({image.class_name for image in images if image.class_name is not None})
    records = sorted((_to_record(image, classes) for image in images), key=lambda record: record.record_id)
    return SourceListing(
        _suggest_name(paths[0]), classes, tuple(records), tuple(note for found in read for note in found.notes)
    )


def list_images(
    paths: Sequence[ImagePlace], *, root: ImagePlace | None = None, allow_outside: bool = False
) -> list[Record]:
    """List images to predict: files, folders with or without class folders, and tables, in the order given.

    Labels are those of C-NMC's two classes where a name, folder or table tells them, otherwise unknown.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, or a table cannot be read.
    """
    images: list[FoundImage] = []
    for path in paths:
        if _is_image(path):
            images.append(describe_file(path) if isinstance(path, Path) else describe_object(path))
            continue
        found = _read_one(path, root, is_alone=len(paths) == 1, allow_outside=allow_outside, need_classes=False)
        images.extend(found.images)
    known = {name.lower() for name in CELL_CLASSES}
    return [
        _to_record(
            image if (image.class_name or "").lower() in known else replace(image, class_name=None), CELL_CLASSES
        )
        for image in _merge_same_ids(images)
    ]


def _read_one(
    path: ImagePlace, root: ImagePlace | None, *, is_alone: bool, allow_outside: bool, need_classes: bool = True
) -> _Found:
    """Images and notes of one source; a folder beside others puts its name before its ids."""
    is_table = path.suffix.lower() == ".csv"
    # What a store has is found out by listing it: a name that holds nothing is a folder without images.
    if path.is_dir() if isinstance(path, Path) else not is_table:
        images, notes = walk_tree_images(path, need_classes=need_classes)
        name = path.resolve().name if isinstance(path, Path) else path.name
        return _Found([image.with_prefix("" if is_alone else f"{name}/") for image in images], notes)
    if is_table and (path.is_file() if isinstance(path, Path) else path.state() is not None):
        start = root if root is not None else path.parent
        table = read_image_table(path, start, allow_outside=allow_outside, need_classes=need_classes)
        return _Found(table.images, table.notes, table)
    if not isinstance(path, Path) or not path.exists():
        raise UsageError(f"source not found: {path}")
    raise UsageError(f"source {path} is neither a folder nor a .csv table")


def _check_across(tables: Sequence[ImageTable]) -> None:
    """Refuse tables of which one says of a file what another denies; a table by itself was checked when read."""
    if len(tables) < 2:
        return
    first_of: dict[str, tuple[ImageTable, TableImage]] = {}
    denied: list[str] = []
    for table in tables:
        for row in table.rows:
            first_table, first = first_of.setdefault(row.key, (table, row))
            columns = row.contradictions(first)
            if columns:
                place = f"{table.path} line {row.line}, {first_table.path} line {first.line}"
                denied.append(f"{shown(row.image.record_id)} ({', '.join(columns)}: {place})")
    if denied:
        counted = "1 file is" if len(denied) == 1 else f"{len(denied):,} rows name files that are"
        raise SourceError(f"{counted} listed twice with different labels, subjects or splits: {listed(denied, most=5)}")


def _merge_same_ids(images: Iterable[FoundImage]) -> list[FoundImage]:
    """Keep one of images listed twice with the same meaning (the lab's three test tables); refuse the rest."""
    unique: dict[str, FoundImage] = {}
    conflicts = Counter[str]()
    for image in images:
        first = unique.setdefault(image.record_id, image)
        if first != image:
            conflicts[image.record_id] += 1
    if conflicts:
        raise SourceError(
            f"{len(conflicts)} ids are listed twice with different files, labels, subjects or splits: "
            f"{listed(conflicts)}"
        )
    return list(unique.values())


def _class_list(names: set[str]) -> tuple[str, ...]:
    if {name.lower() for name in names} <= set(CELL_CLASSES):
        return CELL_CLASSES
    spellings = Counter(name.lower() for name in names)
    if any(count > 1 for count in spellings.values()):
        alike = sorted(name for name in names if spellings[name.lower()] > 1)
        raise SourceError(f"classes differ in the case of their names alone: {listed(alike)}; give each one name")
    numbers = sorted(name for name in names if name.isdecimal())
    if numbers and names & set(CELL_CLASSES):
        raise SourceError(
            f"labels 0 and 1 of a table mean hem and all, but there are labels {listed(numbers)} too: "
            "write names of classes instead of numbers"
        )
    return tuple(sorted(names))


def _to_record(image: FoundImage, classes: Sequence[str]) -> Record:
    if image.class_name is None:
        label = UNKNOWN_LABEL
    else:
        name = image.class_name.lower() if classes == CELL_CLASSES else image.class_name
        label = classes.index(name)
    return Record(
        record_id=image.record_id,
        path=image.path,
        label=label,
        # One text for all cells of a subject.
        subject=sys.intern(image.subject),
        split=image.split,
        fold=image.fold,
        state=image.state,
    )


def _is_image(path: ImagePlace) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and (not isinstance(path, Path) or path.is_file())


def _suggest_name(path: ImagePlace) -> str:
    if isinstance(path, Path):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        name = folder.name
    else:
        name = path.parent.name if path.suffix.lower() == ".csv" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "images"
