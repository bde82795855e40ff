"""Where images come from: folders and tables in, one list of records out.

Every argument of ``ldata build`` is a folder (``source_tree``) or a CSV table (``source_table``). Both yield images
with a class *name*; here the names become labels, several sources become one, and contradictions become errors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.samples.record import CELL_CLASSES, UNKNOWN_LABEL, Record
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, FoundImage
from leukemia_data.sources.source_table import read_table_images
from leukemia_data.sources.source_tree import describe_file, walk_tree_images


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


def list_source(paths: Sequence[Path], *, root: Path | None = None) -> SourceListing:
    """List the images of folders and tables.

    Parameters
    ----------
    paths
        Folders and ``.csv`` files.
    root
        Where the relative paths of tables start; by default each table's own folder.

    Raises
    ------
    UsageError
        If a path is neither a folder nor a CSV file.
    SourceError
        If there are no images, labels contradict each other, or a table cannot be read. All problems of a source
        are told at once.
    """
    images: list[FoundImage] = []
    notes: list[str] = []
    for path in paths:
        found, found_notes = _read_one(path, root, is_alone=len(paths) == 1)
        images.extend(found)
        notes.extend(found_notes)
    images = _merge_same_ids(images)
    classes = _class_list({image.class_name for image in images if image.class_name is not None})
    records = sorted((_to_record(image, classes) for image in images), key=lambda record: record.record_id)
    return SourceListing(_suggest_name(paths[0]), classes, tuple(records), tuple(notes))


def list_images(paths: Sequence[Path], *, root: Path | None = None) -> list[Record]:
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
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(describe_file(path))
            continue
        images.extend(_read_one(path, root, is_alone=len(paths) == 1, need_classes=False)[0])
    known = {name.lower() for name in CELL_CLASSES}
    return [
        _to_record(
            image if (image.class_name or "").lower() in known else replace(image, class_name=None), CELL_CLASSES
        )
        for image in _merge_same_ids(images)
    ]


def _read_one(
    path: Path, root: Path | None, *, is_alone: bool, need_classes: bool = True
) -> tuple[list[FoundImage], list[str]]:
    """Images and notes of one source; a folder beside others puts its name before its ids."""
    if path.is_dir():
        images, notes = walk_tree_images(path, need_classes=need_classes)
        prefix = "" if is_alone else f"{path.resolve().name}/"
        return [image.with_prefix(prefix) for image in images], notes
    if path.suffix.lower() == ".csv" and path.is_file():
        return read_table_images(path, root if root is not None else path.parent), []
    if not path.exists():
        raise UsageError(f"source not found: {path}")
    raise UsageError(f"source {path} is neither a folder nor a .csv table")


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
        subject=image.subject,
        split=image.split,
        fold=image.fold,
        size_bytes=image.size_bytes,
        mtime_ns=image.mtime_ns,
    )


def _suggest_name(path: Path) -> str:
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-.") or "images"
