"""From folders and tables of images to records and their reading."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import attrgetter
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
from leukemia_data.sources.classes import LEFT_OUT, as_record, number_classes, own_label
from leukemia_data.sources.kinds import SOURCE_KINDS, ReadRequest, SourceKind, kind_of
from leukemia_data.sources.name_words import alike_subjects, plain
from leukemia_data.sources.positive_class import PositiveClass, choose_positive, composed
from leukemia_data.sources.reading import NotRead, Reading, SplitFound, SubjectsFound, unique
from leukemia_data.sources.reading_options import NO_COLUMN, ReadingOptions, matches_glob
from leukemia_data.sources.table import TABLES
from leukemia_data.sources.tree import TREES, describe_file
from leukemia_data.sources.tree_folders import LEFT_OUT_CLASSES, PartReading, PassedOver
from leukemia_data.sources.tree_images import Tree

_MAX_EXAMPLES = 3

SOURCE_KINDS.register(TREES)
SOURCE_KINDS.register(TABLES)


def _require_tables(options: ReadingOptions) -> None:
    """Refuse options for columns where no source is a table."""
    columns = {name: getattr(options, f"{name}_column") for name in ("path", "label", "subject", "split")}
    given = [f"--{name}-column {column}" for name, column in columns.items() if column is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: no SOURCE is a table; give the .csv file, or leave the option out")


def _require_unlabelled_table(options: ReadingOptions, parts: Sequence[PartReading]) -> None:
    """Refuse a class level where columns give the classes of all tables, and no source is a folder."""
    tables = [table for part in parts for table in part.tables]
    if options.class_level is not None and all("label" in table.read for table in tables):
        titles = listed(dict.fromkeys(table.read["label"] for table in tables))
        raise UsageError(
            f"--class-level: the classes come from column {titles}; leave it out, or read folders instead with "
            "--label-column none"
        )


def _require_folders(options: ReadingOptions, paths: Sequence[ImagePlace], images: Sequence[FoundImage]) -> None:
    """Refuse names of split folders that no folder has, the sources themselves included."""
    if not options.split_folders:
        return
    known = {plain(own_name(path)) for path in paths} | set(_folder_names(images))
    absent = [name for _, names in options.split_folders for name in names if plain(name.strip("/")) not in known]
    if absent:
        # From all over the source.
        some = images[:: max(1, -(-len(images) // _MAX_EXAMPLES))]
        examples = listed((shown(image.record_id) for image in some), most=_MAX_EXAMPLES)
        raise SourceError(f"--split-folders: there is no folder {listed(absent)}; paths are such as {examples}")


def _idle_notes(options: ReadingOptions, parts: Sequence[PartReading]) -> list[str]:
    """Note the patterns that exclude nothing; folders that another pattern excludes were not searched for them.

    They are no error, since they may match images that are added later.
    """
    matched = {pattern for part in parts for pattern in part.passed_over.patterns}
    return [
        f"--exclude {pattern} excludes nothing"
        for pattern in dict.fromkeys(options.exclude)
        if pattern not in matched and not any(matches_glob(other, pattern.strip("/")) for other in matched)
    ]


def _folder_names(images: Sequence[FoundImage]) -> Iterable[str]:
    """Name and path of every folder in the ids of images, with backslashes or slashes."""
    folders = {image.record_id.rpartition("/")[0] for image in images}
    folders.update(image.record_id.replace("\\", "/").rpartition("/")[0] for image in images)
    for folder in folders:
        parts = plain(folder.strip().removeprefix("./")).split("/")
        yield from parts
        yield from ("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The images of a source.

    Attributes
    ----------
    name
        Suggested cache name: that of the first folder, or of the folder of a table.
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
        """What a user should know of the reading."""
        return self.reading.notes


def list_source(
    paths: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
    allow_unmatched: bool = False,
) -> SourceListing:
    """List the images of folders and tables, with the reading.

    Parameters
    ----------
    paths
        Folders and ``.csv`` files, of this machine or in a store.
    root, allow_outside, options
        As for :class:`~leukemia_data.sources.kinds.ReadRequest`.
    allow_unmatched
        Whether options may have no effect here, as when they are meant for another source.

    Raises
    ------
    UsageError
        If a path is neither a folder nor a CSV file, or options name what the source does not have.
    SourceError
        If there are no images, labels contradict each other, or a table cannot be read. All
        problems of a source are reported at once.
    AmbiguousSourceError
        If the source can be read in several sensible ways.
    """
    options = options or ReadingOptions()
    kinds = list(map(kind_of, paths))
    if not allow_unmatched and not any(kind.is_table for kind in kinds):
        _require_tables(options)
    parts = _read_parts(paths, kinds, ReadRequest(options, root, allow_outside))
    images = _merge_same_ids(image for part in parts for image in part.images)
    if not allow_unmatched:
        if all(kind.is_table for kind in kinds):
            _require_unlabelled_table(options, parts)
        _require_folders(options, paths, images)
    counts = Counter(image.class_name for image in images if image.class_name is not None)
    classes, labels = number_classes(counts, options)
    left_out = PassedOver()
    records = _to_records(images, labels, left_out)
    if not records:
        raise SourceError(f"--classes {','.join(options.classes)} leaves no image of {listed(map(str, paths))}")
    _require_subjects(records, options)
    is_meant = options.positive in classes or not allow_unmatched
    positive = choose_positive(classes, options.positive if is_meant else None)
    reading = _reading(parts, records, classes, options, left_out, positive)
    return SourceListing(_suggest_name(paths[0]), classes, records, reading)


def list_images(
    paths: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    classes: Sequence[str] = CELL_CLASSES,
) -> list[Record]:
    """List images to predict: files, folders with or without class folders, and tables, in the order given.

    Labels are those of `classes` given by names, folders or tables, otherwise unknown; see
    :func:`~leukemia_data.sources.classes.own_label`. `root` and `allow_outside` are as for :func:`list_source`.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, or a table cannot be read.
    """
    names = given_names(paths)
    request = ReadRequest(root=root, allow_outside=allow_outside, need_classes=False)
    images = _merge_same_ids(image for path in paths for image in images_of(path, names.get(path, ()), request))
    return [as_record(image, own_label(image.class_name, image.record_id, classes)) for image in images]


def images_of(path: ImagePlace, given_names: tuple[str, ...], request: ReadRequest) -> Iterator[FoundImage]:
    """Yield the images of one source: of a file, a folder or a table.

    Raises
    ------
    UsageError, SourceError
        As :func:`list_images` does.
    """
    if is_image_file(path):
        yield describe_file(path)
        return
    for part in kind_of(path).read([Tree(path, given_names)], request):
        yield from part.images


def _read_parts(paths: Sequence[ImagePlace], kinds: Sequence[SourceKind], request: ReadRequest) -> list[PartReading]:
    """Read the sources of each kind together, tables last: each source may decide what the others mean."""
    names = given_names(paths)
    by_kind: dict[str, list[Tree]] = {}
    for path, kind in sorted(zip(paths, kinds, strict=True), key=lambda pair: pair[1].is_table):
        by_kind.setdefault(kind.name, []).append(Tree(path, names.get(path, ())))
    return [part for name, trees in by_kind.items() for part in SOURCE_KINDS.get(name).read(trees, request)]


def given_names(paths: Sequence[ImagePlace]) -> dict[ImagePlace, tuple[str, ...]]:
    """Return the prefix of each folder's ids: as many last parts of its path as distinguish it from other sources."""
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
        (outer, outer_path), (inner, inner_path) = sorted(
            ((first, one), (second, other)), key=lambda pair: len(pair[0])
        )
        if inner[: len(outer)] == outer and inner != outer:
            raise SourceError(
                f"{inner_path} is inside {outer_path}: its images would be listed twice; give only one of them"
            )


def _merge_same_ids(images: Iterable[FoundImage]) -> list[FoundImage]:
    """Keep one of several equal images with the same id, as in the lab's three test tables; refuse different ones."""
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


def _to_records(images: Sequence[FoundImage], labels: dict[str, int], left_out: PassedOver) -> tuple[Record, ...]:
    records = []
    # One text for all cells of a subject.
    subjects: dict[str, str] = {"": ""}
    for record_id, path, class_name, subject, split, fold, state in images:
        label = UNKNOWN_LABEL if class_name is None else labels[class_name]
        if label == LEFT_OUT:
            left_out.add(LEFT_OUT_CLASSES, record_id)
            continue
        if subject not in subjects:
            subjects[subject] = sys.intern(composed(subject))
        records.append(Record(record_id, path, label, subjects[subject], split, fold, state))
    records.sort(key=attrgetter("record_id"))
    return tuple(records)


def _require_subjects(records: Sequence[Record], options: ReadingOptions) -> None:
    """Refuse options that find no subject."""
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


def _reading(
    parts: Sequence[PartReading],
    records: Sequence[Record],
    classes: Sequence[str],
    options: ReadingOptions,
    left_out: PassedOver,
    positive: PositiveClass | None,
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
        notes=unique(
            (
                *_idle_notes(options, parts),
                *(note for part in parts for note in part.notes),
                *_notes_on_classes(class_counts),
            )
        ),
        told_by="; ".join(unique(part.told_by for part in parts)),
        positive=positive,
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
        is_confirmed=bool(options.subject_from or options.subject_pattern)
        or options.subject_column not in (None, NO_COLUMN),
    )


def _notes_on_classes(counts: Sequence[tuple[str, int]]) -> list[str]:
    present = [name for name, count in counts if count]
    if len(present) != 1:
        return []
    return [f"every image with a class is of class {present[0]}: nothing can be learnt from one class"]


def is_image_file(path: ImagePlace) -> bool:
    """Return whether a source is an image file, or in a store an object with an image's name."""
    return path.suffix.lower() in IMAGE_SUFFIXES and (not isinstance(path, Path) or path.is_file())


def _suggest_name(path: ImagePlace) -> str:
    if isinstance(path, Path):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        name = folder.name
    else:
        name = path.parent.name if path.suffix.lower() == ".csv" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "images"
