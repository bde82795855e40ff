"""Tables of names with SHA-256: what a data set's images are called, without their pixels.

Columns are found by name, whatever their order and case::

    sha256            of the file, 64 hexadecimal digits (needed)
    path, uid_name    the image's place and its C-NMC name (one of them is needed)
    label             0 or hem, 1 or all, or another class's name
    subject, photo    by default read from the name
    part              train, valid (or prelim), test (or final)
    fold              a number, or fold_<number>
    bytes             size of the file
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import UsageError
from leukemia_data.files.csv_table import CsvTable, read_csv_table
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import CELL_CLASSES, NO_FOLD, CellName, parse_cell_name
from leukemia_data.sources.name_words import split_word
from leukemia_data.sources.table_labels import class_of_label

_COLUMNS = ("sha256", "path", "uid_name", "label", "subject", "photo", "part", "fold", "bytes")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUM_BYTES = re.compile(r"[0-9]{1,15}")
_FOLD = re.compile(r"(?:fold)?[_ -]?(\d{1,4})", re.IGNORECASE)
_PHASES = {"prelim": "valid", "preliminary": "valid", "final": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRow:
    """One row; the fields mean what those of ``Record`` mean, ``class_name`` is empty where unknown."""

    name: str
    sha256: bytes
    class_name: str
    subject: str
    photo: str
    split: str
    fold: int
    size_bytes: int


def read_reference_table(table: Path) -> list[ReferenceRow]:
    """Read a table of names.

    Raises
    ------
    UsageError
        If there is no such file.
    SourceError
        If it cannot be read, lacks a needed column or has no rows, or a row is wrong (all wrong rows are told).
    """
    if not table.exists():
        raise UsageError(f"table of names not found: {table}")
    read = read_csv_table(table, _COLUMNS)
    read.require("sha256", ("path", "uid_name"), guarded=("label", "subject", "part"))
    rows = list(_rows(read))
    read.problems.raise_any()
    return rows


def reference_classes(rows: Iterable[ReferenceRow]) -> tuple[str, ...]:
    """Class names of a table: those of C-NMC, otherwise its own in alphabetical order. A position is a label."""
    names = {row.class_name for row in rows if row.class_name}
    return CELL_CLASSES if names <= set(CELL_CLASSES) else tuple(sorted(names))


def _rows(table: CsvTable) -> Iterator[ReferenceRow]:
    """Rows of which every cell could be read; all that is wrong with the others is told."""
    columns = {name: table.words(name) for name in _COLUMNS}
    for number, line in enumerate(table.lines):
        cells = {name: words[number] for name, words in columns.items()}
        problems = list(_row_problems(cells))
        for name, what, detail in problems:
            table.problems.tell(f"column {table.title(name)} {what}", line, detail)
        if not problems:
            yield _row(cells)


def _row_problems(cells: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Column, what is wrong with it, and its cell for the message."""
    if not _SHA256.fullmatch(cells["sha256"].lower()):
        yield "sha256", "is not 64 hexadecimal digits", shown(cells["sha256"])
    if not (cells["path"] or cells["uid_name"]):
        yield "path", "is empty", ""
    if cells["part"] and not _split(cells["part"]):
        yield "part", "is none of train, valid (or prelim), test (or final)", shown(cells["part"])
    if cells["fold"] and not _FOLD.fullmatch(cells["fold"]):
        yield "fold", "is not a number or fold_<number>", shown(cells["fold"])
    if cells["bytes"] and not _NUM_BYTES.fullmatch(cells["bytes"]):
        yield "bytes", "is not a number", shown(cells["bytes"])


def _row(cells: Mapping[str, str]) -> ReferenceRow:
    """A row whose cells have no problem."""
    cell = _cell_name(cells)
    subject = cells["subject"].upper() if cell is not None else cells["subject"]
    subject = subject or (cell.subject if cell is not None else "")
    photo = cells["photo"] or (str(cell.photo) if cell is not None else "")
    own_class = "" if cell is None else CELL_CLASSES[cell.label]
    fold = _FOLD.fullmatch(cells["fold"])
    return ReferenceRow(
        name=cells["path"] or cells["uid_name"],
        sha256=bytes.fromhex(cells["sha256"]),
        class_name=class_of_label(cells["label"]) or own_class,
        subject=subject,
        photo=f"{subject}/{photo}" if subject and photo else "",
        split=_split(cells["part"]),
        fold=NO_FOLD if fold is None else int(fold.group(1)),
        size_bytes=int(cells["bytes"]) if cells["bytes"] else -1,
    )


def _cell_name(cells: Mapping[str, str]) -> CellName | None:
    for column in ("uid_name", "path"):
        cell = parse_cell_name(cells[column].replace("\\", "/").rsplit("/", 1)[-1])
        if cell is not None:
            return cell
    return None


def _split(text: str) -> str:
    return _PHASES.get(text.lower()) or split_word(text) or ""
