"""Where images come from: folders and tables in, records and their reading out."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.csv_table import shown
from leukemia_data.records.record import (
    CELL_CLASSES,
    IMAGE_SUFFIXES,
    NO_FOLD,
    UNKNOWN_LABEL,
    FoundImage,
    ImagePlace,
    Record,
    own_name,
)
from leukemia_data.sources.classes import LEFT_OUT, number_classes, own_labels
from leukemia_data.sources.kinds import SOURCE_KINDS, ReadRequest, SourceKind, kind_of
from leukemia_data.sources.name_words import alike_subjects, plain
from leukemia_data.sources.positive_class import PositiveClass, choose_positive, composed
from leukemia_data.sources.reading import NotRead, Reading, SplitFound, SubjectsFound, merged_notes, unique
from leukemia_data.sources.reading_options import NO_COLUMN, ReadingOptions, matches_glob
from leukemia_data.sources.table import TABLES
from leukemia_data.sources.tree import TREES, describe_file, describe_object
from leukemia_data.sources.tree_folders import LEFT_OUT_CLASSES, PartReading, PassedOver
from leukemia_data.sources.tree_images import Tree

_MAX_EXAMPLES = 3

SOURCE_KINDS.register(TREES)
SOURCE_KINDS.register(TABLES)


def require_tables(options: ReadingOptions) -> None:
    """Refuse options for columns where no source is a table.

    Raises
    ------
    UsageError
        If there is one.
    """
    columns = {
        "--path-column": options.path_column,
        "--label-column": options.label_column,
        "--subject-column": options.subject_column,
        "--split-column": options.split_column,
    }
    given = [f"{option} {column}" for option, column in columns.items() if column is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: no SOURCE is a table; give the .csv file, or leave the option out")


def require_unlabelled_table(options: ReadingOptions, parts: Sequence[PartReading]) -> None:
    """Refuse a class level where columns give the classes of all tables, and no source is a folder.

    Raises
    ------
    UsageError
        If it means nothing.
    """
    tables = [table for part in parts for table in part.tables]
    if options.class_level is not None and all("label" in table.read for table in tables):
        titles = listed(dict.fromkeys(table.read["label"] for table in tables))
        raise UsageError(
            f"--class-level: the classes come from column {titles}; leave it out, or read folders instead with "
            "--label-column none"
        )


def require_folders(options: ReadingOptions, paths: Sequence[ImagePlace], images: Sequence[FoundImage]) -> None:
    """Refuse names of split folders that no folder has, the sources themselves included.

    Raises
    ------
    SourceError
        With what the paths look like.
    """
    known = {plain(own_name(path)) for path in paths} | _folders_of(images)
    absent = [name for _, names in options.split_folders for name in names if plain(name.strip("/")) not in known]
    if absent:
        examples = listed((shown(image.record_id) for image in images[:: _step(len(images))]), most=_MAX_EXAMPLES)
        raise SourceError(f"--split-folders: there is no folder {listed(absent)}; paths are such as {examples}")


def idle_notes(options: ReadingOptions, parts: Sequence[PartReading]) -> list[str]:
    """Say which patterns exclude nothing: refused, they could not be kept for the day when there is something."""
    return [f"--exclude {pattern} excludes nothing" for pattern in _idle_patterns(options, parts)]


def _step(num_images: int) -> int:
    """So that the examples come from all over the source."""
    return max(1, -(-num_images // _MAX_EXAMPLES))


def _idle_patterns(options: ReadingOptions, parts: Sequence[PartReading]) -> list[str]:
    """Patterns that nothing matched; what lies in a folder that another one excludes was never looked at."""
    matched = {pattern for part in parts for pattern in part.passed_over.patterns}
    return [
        pattern
        for pattern in dict.fromkeys(options.exclude)
        if pattern not in matched and not any(matches_glob(other, pattern.strip("/")) for other in matched)
    ]


def _folders_of(images: Sequence[FoundImage]) -> set[str]:
    folders = {image.record_id.rpartition("/")[0] for image in images}
    # Tables may write them with backslashes.
    folders.update(image.record_id.replace("\\", "/").rpartition("/")[0] for image in images)
    return set(_folder_names(folders))


def _folder_names(folders: Iterable[str]) -> Iterable[str]:
    """Every folder on the way to these, by its name and by its path."""
    for folder in folders:
        parts = plain(folder.strip().removeprefix("./")).split("/")
        yield from parts
        yield from ("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything a build wants to know of its source.

    Attributes
    ----------
    name
        Suggested cache name: the first folder's, or that of the folder a table lies in.
    classes
        Class names; ``("hem", "all")`` for C-NMC, otherwise in alphabetical order or as the user orders them. A
        position is a label.
    records
        One per image, in the order of their ids.
    reading
        How the source was understood.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    reading: Reading

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way that a user should know."""
        return self.reading.notes


def list_source(
    paths: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
    allow_unmatched: bool = False,
) -> SourceListing:
    """List the images of folders and tables, and say how they were understood.

    Parameters
    ----------
    paths
        Folders and ``.csv`` files, of this machine or in a store.
    root
        Where the relative paths of tables start; by default each table's own folder.
    allow_outside
        Take files that a table names outside `root` too.
    options
        What the user says of the meaning of folders, names and columns.
    allow_unmatched
        Whether options may mean nothing here, as they do where they are meant for another source, or for what it was.

    Raises
    ------
    UsageError
        If a path is neither a folder nor a CSV file, or options name what the source has not got.
    SourceError
        If there are no images, labels contradict each other, or a table cannot be read. All
        problems of a source are reported at once.
    AmbiguousSourceError
        If the source can be read in several sensible ways.
    """
    options = options or ReadingOptions()
    kinds = list(map(kind_of, paths))
    if not allow_unmatched and not any(kind.is_table for kind in kinds):
        require_tables(options)
    parts = _read_parts(paths, kinds, ReadRequest(options, root, allow_outside))
    images = _merge_same_ids(image for part in parts for image in part.images)
    if not allow_unmatched:
        if all(kind.is_table for kind in kinds):
            require_unlabelled_table(options, parts)
        require_folders(options, paths, images)
    counts = Counter(image.class_name for image in images if image.class_name is not None)
    classes, labels = number_classes(counts, options)
    left_out = PassedOver()
    records = _to_records(images, labels, left_out)
    if not records:
        raise SourceError(f"--classes {','.join(options.classes)} leaves no image of {listed(map(str, paths))}")
    _require_subjects(records, options)
    reading = _reading(parts, records, classes, options, left_out)
    reading = replace(reading, positive=_positive(classes, options, allow_unmatched=allow_unmatched))
    return SourceListing(_suggest_name(paths[0]), classes, records, reading)


def list_images(
    paths: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    classes: Sequence[str] = CELL_CLASSES,
) -> list[Record]:
    """List images to predict: files, folders with or without class folders, and tables, in the order given.

    Labels are those of `classes` where a name, folder or table gives them, otherwise unknown; see
    :func:`~leukemia_data.sources.classes.own_labels`.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, or a table cannot be read.
    """
    images = find_images_to_predict(paths, root=root, allow_outside=allow_outside)
    return own_labels(images, classes).records


def find_images_to_predict(
    paths: Sequence[ImagePlace], *, root: ImagePlace | None = None, allow_outside: bool = False
) -> list[FoundImage]:
    """Find files, the images of folders with or without class folders, and those of tables, in the order given.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, or a table cannot be read.
    """
    images: list[FoundImage] = []
    names = given_names(paths)
    for path in paths:
        if is_image_file(path):
            images.append(describe_file(path) if isinstance(path, Path) else describe_object(path))
            continue
        request = ReadRequest(root=root, allow_outside=allow_outside, need_classes=False)
        for part in kind_of(path).read([Tree(path, names.get(path, ()))], request):
            images.extend(part.images)
    return _merge_same_ids(images)


# --- reading --------------------------------------------------------------------------------------------------


def _read_parts(paths: Sequence[ImagePlace], kinds: Sequence[SourceKind], request: ReadRequest) -> list[PartReading]:
    """Read the sources of each kind together, since each may decide what the others mean; tables come last."""
    names = given_names(paths)
    by_kind: dict[str, list[Tree]] = {}
    for path, kind in sorted(zip(paths, kinds, strict=True), key=lambda pair: pair[1].is_table):
        by_kind.setdefault(kind.name, []).append(Tree(path, names.get(path, ())))
    return [part for name, trees in by_kind.items() for part in SOURCE_KINDS.get(name).read(trees, request)]


def given_names(paths: Sequence[ImagePlace]) -> dict[ImagePlace, tuple[str, ...]]:
    """Return the prefix of each folder's ids: as many parts of its path as distinguish it from other sources."""
    if len(paths) == 1:
        return {}
    parts = {path: _path_parts(path) for path in paths if not is_image_file(path) and not kind_of(path).is_table}
    _require_apart(parts)
    return {path: _shortest(own, [other for other in parts.values() if other != own]) for path, own in parts.items()}


def _path_parts(path: ImagePlace) -> tuple[str, ...]:
    if isinstance(path, Path):
        return tuple(part.strip("\\/") for part in path.resolve().parts)
    return tuple(part for part in str(path).split("/") if part)


def _shortest(own: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for num_parts in range(1, len(own) + 1):
        if all(other[-num_parts:] != own[-num_parts:] for other in others):
            return own[-num_parts:]
    return own


def _require_apart(parts: dict[ImagePlace, tuple[str, ...]]) -> None:
    for (one, first), (other, second) in combinations(parts.items(), 2):
        outer, inner = sorted(((first, one), (second, other)), key=lambda pair: len(pair[0]))
        if inner[0][: len(outer[0])] == outer[0] and inner[0] != outer[0]:
            raise SourceError(f"{inner[1]} lies in {outer[1]}: its images would be there twice; give only one of them")


def _merge_same_ids(images: Iterable[FoundImage]) -> list[FoundImage]:
    """Keep one of images listed twice with the same meaning (the lab's three test tables); refuse the rest."""
    unique_images: dict[str, FoundImage] = {}
    conflicts = Counter[str]()
    for image in images:
        first = unique_images.setdefault(image.record_id, image)
        if first is not image and first != image:
            conflicts[image.record_id] += 1
    if conflicts:
        raise SourceError(
            f"{len(conflicts)} ids are listed twice with different files, labels, subjects or splits: "
            f"{listed(conflicts)}"
        )
    return list(unique_images.values())


# --- records and the reading ----------------------------------------------------------------------------------


def _to_records(images: Sequence[FoundImage], labels: dict[str, int], left_out: PassedOver) -> tuple[Record, ...]:
    records = []
    # One text for all cells of a subject.
    subjects: dict[str, str] = {"": ""}
    label_of: dict[str | None, int] = {None: UNKNOWN_LABEL}
    label_of.update(labels)
    for record_id, path, class_name, subject, split, fold, state in images:
        label = label_of[class_name]
        if label == LEFT_OUT:
            left_out.add(LEFT_OUT_CLASSES, record_id)
            continue
        if subject not in subjects:
            subjects[subject] = sys.intern(composed(subject))
        records.append(Record(record_id, path, label, subjects[subject], split, fold, state))
    records.sort(key=_id_of)
    return tuple(records)


def _require_subjects(records: Sequence[Record], options: ReadingOptions) -> None:
    """Refuse options that name where subjects are and find none."""
    if any(record.subject for record in records):
        return
    if options.subject_pattern is not None:
        path = records[0].record_id
        raise SourceError(
            f"--subject-pattern {options.subject_pattern!r} finds no subject in paths such as {shown(path)}"
        )
    if options.subject_from == "folder":
        raise SourceError(
            "--subject-from folder: no folder is left that could name a subject, beside classes and splits"
        )


def _positive(classes: Sequence[str], options: ReadingOptions, *, allow_unmatched: bool) -> PositiveClass | None:
    """The positive class as far as it is known; what is meant for another source may name none of this one."""
    is_meant = options.positive in classes or not allow_unmatched
    return choose_positive(classes, options.positive if is_meant else None)


def _id_of(record: Record) -> str:
    return record.record_id


def _reading(
    parts: Sequence[PartReading],
    records: Sequence[Record],
    classes: Sequence[str],
    options: ReadingOptions,
    left_out: PassedOver,
) -> Reading:
    counts = Counter(record.label for record in records)
    class_counts = tuple((name, counts[label]) for label, name in enumerate(classes))
    passed_over = PassedOver()
    for part in parts:
        passed_over.update(part.passed_over)
    passed_over.update(left_out)
    return Reading(
        options=options,
        classes=class_counts,
        class_sources=unique(source for part in parts for source in part.class_sources),
        num_unlabelled=counts[UNKNOWN_LABEL],
        splits=_splits(parts, records),
        folds=tuple(sorted(Counter(record.fold for record in records if record.fold != NO_FOLD).items())),
        subjects=_subjects(parts, records, options),
        other_folders=tuple(text for part in parts for text in part.other_folders),
        tables=tuple(table for part in parts for table in part.tables),
        passed_over=tuple(
            NotRead(reason=reason, count=count, examples=tuple(passed_over.examples[reason]))
            for reason, count in passed_over.counts.items()
        ),
        notes=merged_notes(
            [idle_notes(options, parts), *(part.notes for part in parts), _notes_on_classes(class_counts)]
        ),
        told_by="; ".join(unique(part.told_by for part in parts)),
    )


def _splits(parts: Sequence[PartReading], records: Sequence[Record]) -> tuple[SplitFound, ...]:
    counts = Counter(record.split for record in records)
    if set(counts) == {""}:
        return ()
    words: dict[str, dict[str, None]] = {}
    for part in parts:
        for split, names in part.split_words.items():
            words.setdefault(split, {}).update(names)
    order = [split for split in ("train", "valid", "test", "") if counts[split]]
    return tuple(SplitFound(name=split, num_images=counts[split], words=tuple(words.get(split, ()))) for split in order)


def _subjects(parts: Sequence[PartReading], records: Sequence[Record], options: ReadingOptions) -> SubjectsFound:
    pairs = {(record.subject, record.label) for record in records}
    subjects = sorted({subject for subject, _ in pairs} - {""})
    labels_of = Counter(subject for subject, label in pairs if subject and label != UNKNOWN_LABEL)
    several = sorted(subject for subject, count in labels_of.items() if count > 1)
    alike = alike_subjects(subjects)
    return SubjectsFound(
        sources=unique(source for part in parts for source in part.subject_sources),
        count=len(subjects),
        num_unknown=sum(not record.subject for record in records),
        examples=tuple(subjects[:_MAX_EXAMPLES]),
        several_classes=tuple(several[:_MAX_EXAMPLES]),
        num_several=len(several),
        alike=tuple(" = ".join(group) for group in alike[:_MAX_EXAMPLES]),
        num_alike=len(alike),
        is_confirmed=any((options.subject_from, options.subject_pattern))
        or options.subject_column not in (None, NO_COLUMN),
    )


def _notes_on_classes(counts: Sequence[tuple[str, int]]) -> list[str]:
    present = [name for name, count in counts if count]
    if len(present) != 1:
        return []
    return [f"every image with a class is of class {present[0]}: is it one? nothing can be learnt from one class"]


# --- names ----------------------------------------------------------------------------------------------------


def is_image_file(path: ImagePlace) -> bool:
    """Return whether a source is an image by itself: an object may be one by its name alone."""
    return path.suffix.lower() in IMAGE_SUFFIXES and (not isinstance(path, Path) or path.is_file())


def _suggest_name(path: ImagePlace) -> str:
    if isinstance(path, Path):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        name = folder.name
    else:
        name = path.parent.name if path.suffix.lower() == ".csv" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "images"
