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

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.samples.record import CELL_CLASSES, NO_FOLD, CellName, parse_cell_name
from leukemia_data.sources.found_image import split_word

_SHA256 = re.compile(r"[0-9a-f]{64}")
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
    rows: list[ReferenceRow] = []
    problems: list[str] = []
    for line, cells in _read_cells(table):
        try:
            rows.append(_row(cells))
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise SourceError(f"{table}: {listed(problems, separator='; ')}")
    if not rows:
        raise SourceError(f"{table} has a header but no rows")
    return rows


def reference_classes(rows: Iterable[ReferenceRow]) -> tuple[str, ...]:
    """Class names of a table: those of C-NMC, otherwise its own in alphabetical order. A position is a label."""
    names = {row.class_name for row in rows if row.class_name}
    return CELL_CLASSES if names <= set(CELL_CLASSES) else tuple(sorted(names))


def _read_cells(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
            known = set(columns.values())
            if "sha256" not in known or not known & {"path", "uid_name"}:
                raise SourceError(
                    f"{table} is no table of names: it needs the columns sha256 and path (or uid_name); "
                    f"its header is {','.join(columns) or 'empty'}"
                )
            return [
                (
                    reader.line_num,
                    {columns[name]: (text or "").strip() for name, text in row.items() if name in columns},
                )
                for row in reader
            ]
    except FileNotFoundError:
        raise UsageError(f"table of names not found: {table}") from None
    except (OSError, csv.Error) as error:
        raise SourceError(f"{table} cannot be read as CSV: {error}") from error


def _row(cells: Mapping[str, str]) -> ReferenceRow:
    digest = cells["sha256"].lower()
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"sha256 is {digest!r}, not 64 hexadecimal digits")
    name = cells.get("path") or cells.get("uid_name") or ""
    if not name:
        raise ValueError("path is empty")
    cell = _cell_name(cells)
    subject = cells.get("subject", "").upper() if cell is not None else cells.get("subject", "")
    subject = subject or (cell.subject if cell is not None else "")
    photo = cells.get("photo") or (str(cell.photo) if cell is not None else "")
    return ReferenceRow(
        name=name,
        sha256=bytes.fromhex(digest),
        class_name=_class_name(cells.get("label", ""), cell),
        subject=subject,
        photo=f"{subject}/{photo}" if subject and photo else "",
        split=_split(cells.get("part", "")),
        fold=_fold(cells.get("fold", "")),
        size_bytes=int(cells["bytes"]) if cells.get("bytes", "").isdecimal() else -1,
    )


def _cell_name(cells: Mapping[str, str]) -> CellName | None:
    for column in ("uid_name", "path"):
        cell = parse_cell_name(cells.get(column, "").replace("\\", "/").rsplit("/", 1)[-1])
        if cell is not None:
            return cell
    return None


def _class_name(text: str, cell: CellName | None) -> str:
    if not text:
        return "" if cell is None else CELL_CLASSES[cell.label]
    return CELL_CLASSES[int(text)] if text in ("0", "1") else text


def _split(text: str) -> str:
    return _PHASES.get(text.lower()) or split_word(text) or ""


def _fold(text: str) -> int:
    match = _FOLD.fullmatch(text)
    if text and match is None:
        raise ValueError(f"fold is {text!r}, not a number")
    return NO_FOLD if match is None else int(match.group(1))
