"""C-NMC's label tables: which cell each renumbered image of the preliminary test set is, and what it is labelled.

They have the columns ``Patient_ID`` (the original file name), ``new_names`` and ``labels`` and are read as all tables
are, whatever their separator, encoding and spelling of titles. Names are compared without their endings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leukemia_data.errors import SourceError
from leukemia_data.files.csv_table import CsvTable, parse_csv_table, peek_header, read_csv_table
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import CELL_CLASSES, CellName, ImagePlace, parse_cell_name
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, stem_of, suffix_of
from leukemia_data.sources.name_words import is_unknown, plain

_COLUMNS = ("patient_id", "new_names", "labels")


def is_label_table(columns: Sequence[str]) -> bool:
    """Whether these are titles of such a table, in any case and order, among others."""
    return set(_COLUMNS) <= {title.lower() for title in columns}


def read_label_tables(places: Sequence[ImagePlace]) -> tuple[dict[str, CellName], list[ImagePlace]]:
    """Read every C-NMC label table among some tables.

    Returns
    -------
    cells : dict
        By :func:`label_key` of the new name: the original cell.
    read : list
        The tables that were read; others are left alone, in whatever encoding.

    Raises
    ------
    SourceError
        If a row contradicts itself or another one; all wrong rows of a table are told.
    """
    cells: dict[str, CellName] = {}
    read = [place for place in places if is_label_table(peek_header(place, _COLUMNS))]
    for place in read:
        table = _read(place)
        table.require(*_COLUMNS)
        _add_rows(table, cells)
        table.problems.raise_any()
    return cells, read


def label_key(file_name: str) -> str:
    """A file's name as such tables are searched for it: without an image's ending, in lower case."""
    name = file_name.strip()
    return plain(stem_of(name) if suffix_of(name) in IMAGE_SUFFIXES else name)


def _read(place: ImagePlace) -> CsvTable:
    if isinstance(place, Path):
        return read_csv_table(place, _COLUMNS)
    return parse_csv_table(place, place.read_bytes(), _COLUMNS)


def _add_rows(table: CsvTable, cells: dict[str, CellName]) -> None:
    columns = (table.lines, *(table.words(name) for name in _COLUMNS))
    for line, original, new_name, label in zip(*columns, strict=True):
        cell = parse_cell_name(original)
        if cell is None or not _agrees(cell, label):
            table.problems.tell("the name and the label disagree", line, f"{shown(original)}, label {shown(label)}")
        elif not new_name:
            table.problems.tell(f"column {table.title('new_names')} is empty", line)
        elif cells.setdefault(label_key(new_name), cell) != cell:
            table.problems.tell("another row says that this is another cell", line, shown(new_name))


def _agrees(cell: CellName, label: str) -> bool:
    if plain(label) == CELL_CLASSES[cell.label]:
        return True
    try:
        return not is_unknown(label) and float(label) == cell.label
    except ValueError:
        return False


def require_no_label_table(place: ImagePlace, columns: Sequence[str]) -> None:
    """Raise SourceError where a table that was given as a source is a C-NMC label table."""
    if "path" not in columns and {"patient_id", "new_names"} <= set(columns):
        raise SourceError(f"{place} is a C-NMC label table: give the folder that holds the images instead")
