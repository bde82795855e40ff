"""Class names and label tables to classes and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leukemia_data.errors import AmbiguousSourceError, SourceError, UsageError, listed
from leukemia_data.files.csv_table import CsvTable, parse_csv_table, peek_header, read_csv_table, shown
from leukemia_data.records.record import (
    CELL_CLASSES,
    IMAGE_SUFFIXES,
    UNKNOWN_LABEL,
    CellName,
    FoundImage,
    ImagePlace,
    Record,
    parse_cell_name,
    stem_of,
    suffix_of,
)
from leukemia_data.sources.name_words import are_numbers, is_cell_class, is_unknown, plain, same_plain
from leukemia_data.sources.positive_class import composed, place_of_class
from leukemia_data.sources.reading_options import ReadingChoice, ReadingOptions

LEFT_OUT = -2
"""The label of a class that ``--classes`` leaves out."""


def number_classes(counts: Mapping[str, int], options: ReadingOptions) -> tuple[tuple[str, ...], dict[str, int]]:
    """Order the classes of a source.

    Parameters
    ----------
    counts
        Number of images of each class name of the source.
    options
        ``classes`` orders and chooses them, ``merge`` merges some.

    Returns
    -------
    classes : tuple of str
        ``("hem", "all")`` for C-NMC, those that the user names, or all in alphabetical order; numbers by value.
    labels : dict
        Label of each name of the source, or :data:`LEFT_OUT`.

    Raises
    ------
    UsageError
        If the user names classes that the source does not have.
    AmbiguousSourceError
        If names differ in case only, or some are numbers and others are not.
    """
    merged = _merged(counts, options)
    names = sorted(set(merged.values()))
    if options.classes:
        classes = options.classes
        place = _places_of(names, options)
    else:
        if {plain(name) for name in names} <= set(CELL_CLASSES):
            classes = CELL_CLASSES
        else:
            _require_different(names, options)
            _require_one_kind(names, options)
            classes = tuple(sorted(names, key=int) if all(map(_is_number, names)) else names)
        place = {name: classes.index(plain(name) if classes == CELL_CLASSES else name) for name in names}
    return classes, {raw: place.get(name, LEFT_OUT) for raw, name in merged.items()}


def _is_number(name: str) -> bool:
    """Whether a class is a whole number; labels may be -1 and 1."""
    return are_numbers([name.removeprefix("-")])


def _merged(counts: Mapping[str, int], options: ReadingOptions) -> dict[str, str]:
    new_of: dict[str, str] = {}
    for new, olds in options.merge:
        for old in olds:
            meant = [raw for raw in counts if composed(raw) == old] or [
                raw for raw in counts if plain(raw) == plain(old)
            ]
            if not meant:
                raise UsageError(f"--merge {new}=...: there is no class {old}; classes are {listed(sorted(counts))}")
            new_of.update(dict.fromkeys(meant, new))
    return {raw: new_of.get(raw, composed(raw)) for raw in counts}


def _places_of(names: Sequence[str], options: ReadingOptions) -> dict[str, int]:
    """Label of each name among ``--classes``."""
    classes = options.classes
    if are_numbers(names) and not set(names) & set(classes):
        if int(max(names, key=int)) >= len(classes):
            raise UsageError(f"--classes: the labels are {listed(names)}, and only {len(classes)} classes are named")
        return {name: int(name) for name in names}
    places = {name: place for name in names if (place := place_of_class(name, classes)) is not None}
    absent = [name for number, name in enumerate(classes) if number not in places.values()]
    if absent and not {plain(name) for name in classes} <= set(CELL_CLASSES):
        raise UsageError(f"--classes {absent[0]}: there is no such class; classes are {listed(names)}")
    return places


def _require_one_kind(names: Sequence[str], options: ReadingOptions) -> None:
    """Refuse numbers beside names: a number may mean one of the names."""
    numbers = [name for name in names if _is_number(name)]
    if not numbers or len(numbers) == len(names) or options.merge:
        return
    readings = [ReadingChoice.of("they are all different", options, classes=tuple(names))]
    cnmc = {number: CELL_CLASSES[int(number)] for number in numbers if number in ("0", "1")}
    if len(cnmc) == len(numbers) and any(plain(name) in CELL_CLASSES for name in names):
        merge = tuple((name, (name, number)) if name in names else (name, (number,)) for number, name in cnmc.items())
        readings.insert(0, ReadingChoice.of("0 is hem and 1 is all", options, merge=(*options.merge, *merge)))
    raise AmbiguousSourceError(f"some classes are numbers and others names: {listed(names)}", readings)


def _require_different(names: Sequence[str], options: ReadingOptions) -> None:
    groups = same_plain(names)
    if not groups:
        return
    merge = (*options.merge, *((group[0], tuple(group)) for group in groups))
    raise AmbiguousSourceError(
        f"classes differ in the case of their names alone: {', '.join(', '.join(group) for group in groups)}",
        [
            ReadingChoice.of("they are the same", options, merge=merge),
            ReadingChoice.of("they are different", options, classes=tuple(names)),
        ],
    )


_COLUMNS = ("patient_id", "new_names", "labels")


def is_label_table(columns: Sequence[str]) -> bool:
    """Return whether a table with these titles, in any case and order, is a C-NMC label table."""
    return set(_COLUMNS) <= {title.lower() for title in columns}


def read_label_tables(places: Sequence[ImagePlace]) -> tuple[dict[str, CellName], list[ImagePlace]]:
    """Read every C-NMC label table among some tables.

    Returns
    -------
    cells : dict
        By :func:`label_key` of the new name: the original cell.
    read : list
        The tables that were read; others may have any encoding.

    Raises
    ------
    SourceError
        If a row contradicts itself or another one; the message names all wrong rows of a table.
    """
    cells: dict[str, CellName] = {}
    read = [place for place in places if is_label_table(peek_header(place, _COLUMNS))]
    for place in read:
        table = read_table(place, _COLUMNS)
        table.require(*_COLUMNS)
        _add_rows(table, cells)
        table.problems.raise_any()
    return cells, read


def label_key(file_name: str) -> str:
    """Return a file's name as label tables are searched for it: without an image's extension, in lower case."""
    name = file_name.strip()
    return plain(stem_of(name) if suffix_of(name) in IMAGE_SUFFIXES else name)


def read_table(place: ImagePlace, names: Sequence[str]) -> CsvTable:
    """Read a table of this machine or in a store, as :func:`~leukemia_data.files.csv_table.read_csv_table` does."""
    if isinstance(place, Path):
        return read_csv_table(place, names)
    return parse_csv_table(place, place.read_bytes(), names)


def _add_rows(table: CsvTable, cells: dict[str, CellName]) -> None:
    columns = (table.lines, *(table.words(name) for name in _COLUMNS))
    for line, original, new_name, label in zip(*columns, strict=True):
        cell = parse_cell_name(original)
        if cell is None or not _agrees(cell, label):
            table.problems.add("the name and the label disagree", line, f"{shown(original)}, label {shown(label)}")
        elif not new_name:
            table.problems.add(f"column {table.title('new_names')} is empty", line)
        elif cells.setdefault(label_key(new_name), cell) != cell:
            table.problems.add("another row says that this is another cell", line, shown(new_name))


def _agrees(cell: CellName, label: str) -> bool:
    if plain(label) == CELL_CLASSES[cell.label]:
        return True
    try:
        return not is_unknown(label) and float(label) == cell.label
    except ValueError:
        return False


def require_no_label_table(place: ImagePlace, columns: Sequence[str]) -> None:
    """Raise SourceError if a table that was given as a source is a C-NMC label table."""
    if "path" not in columns and {"patient_id", "new_names"} <= set(columns):
        raise SourceError(f"{place} is a C-NMC label table: give the folder that holds the images instead")


_NUMBERS = {str(label): label for label in range(len(CELL_CLASSES))}


def as_record(image: FoundImage, label: int = UNKNOWN_LABEL) -> Record:
    """Return an image as a record with a label."""
    return Record(image.record_id, image.path, label, composed(image.subject), image.split, image.fold, image.state)


def own_label(class_name: str | None, record_id: str, classes: Sequence[str]) -> int:
    """Return the label of one image: that of its class if given, else of the innermost folder that names one."""
    label = label_of(class_name, classes)
    return _label_of_folders(record_id, classes) if label == UNKNOWN_LABEL else label


def is_other_class(name: str, record_id: str) -> bool:
    """Return whether a class name is not just a folder's, which may be a person's or a batch's."""
    return name not in _folders(record_id) or is_cell_class(name)


def label_of(name: str | None, classes: Sequence[str]) -> int:
    """Return the label of a class's name, -1 if it is none of the classes; case counts if it alone differs.

    0 and 1 are labels of C-NMC's classes too, as in the lab's tables.
    """
    if not name:
        return UNKNOWN_LABEL
    place = place_of_class(name, classes)
    if place is not None:
        return place
    return _NUMBERS.get(name, UNKNOWN_LABEL) if tuple(classes) == CELL_CLASSES else UNKNOWN_LABEL


def others_text(others: Mapping[str, int], classes: Sequence[str]) -> str:
    """Return a note on names that are none of the run's classes."""
    counted = listed((f"{name} ({count:,} images)" for name, count in others.items()), most=4)
    return (
        f"{counted}: named by another list of classes than the run's ({listed(classes)}); their labels are left empty"
    )


def _label_of_folders(record_id: str, classes: Sequence[str]) -> int:
    for name in reversed(_folders(record_id)):
        label = label_of(name, classes)
        if label != UNKNOWN_LABEL or is_unknown(name):
            return label
    return UNKNOWN_LABEL


def _folders(record_id: str) -> list[str]:
    return record_id.replace("\\", "/").split("/")[:-1]
