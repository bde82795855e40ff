"""CSV tables that users write: their separator, their columns by name, and their rows with line numbers.

The readers of such tables only interpret cells. They tell what is wrong with them to :attr:`CsvTable.problems`, which
knows already which rows are too long or too short, and raise all at once.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from leukemia_data.errors import FailedError, SourceError, listed
from leukemia_data.files.spreadsheet import formula_restored
from leukemia_data.files.table_problems import TableProblems, shown
from leukemia_data.files.table_text import read_table_text, table_text

SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[\r\n]', re.IGNORECASE)
_HEADER_CHARACTERS = 1 << 16
_SIMILAR = 0.6
_SURELY_MEANT = 0.8
_MAX_COLUMNS_SHOWN = 20


class TablePlace(Protocol):
    """Where a table was read: a path, or an address that is none."""

    @property
    def stem(self) -> str:
        """Its name without a suffix."""
        ...


class ReadablePlace(Protocol):
    """A file of this machine, or an object in a store."""

    def read_bytes(self) -> bytes:
        """All of its bytes."""
        ...


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table as it stands in its file.

    Attributes
    ----------
    path
        The file.
    separator
        What stands between its cells.
    header, rows
        Its cells, unchanged; every row is as long as the header. Blank lines and rows of another length are left out.
    lines
        Number of the line on which each row starts.
    problems
        What is wrong with the table; rows of another length are told already.
    """

    path: TablePlace
    separator: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    problems: TableProblems

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in lower case and without blanks around them."""
        return [title.strip().lower() for title in self.header]

    def title(self, name: str) -> str:
        """A column's name as the header writes it, for messages."""
        columns = self.columns
        return _visible(self.header[columns.index(name)]) if name in columns else name

    def cells(self, name: str) -> list[str]:
        """Cells of a column, unchanged; empty where there is no such column. Case of the name does not matter."""
        columns = self.columns
        if name not in columns:
            return [""] * len(self.rows)
        position = columns.index(name)
        return [row[position] for row in self.rows]

    def words(self, name: str) -> list[str]:
        """Cells of a column without blanks around them, and without the protection from spreadsheets.

        A cell that holds an invisible character, or a quote after a blank, is told as a problem.
        """
        cells = self.cells(name)
        word_of = {cell: formula_restored(cell.strip()) for cell in set(cells)}
        odd = {cell for cell, word in word_of.items() if word.startswith('"') or not word.isprintable()}
        for line, cell in zip(self.lines, cells, strict=True) if odd else ():
            if cell in odd:
                what = f"column {self.title(name)} holds an invisible character, or a quote after a blank"
                self.problems.tell(what, line, shown(cell))
        return [word_of[cell] for cell in cells]

    def require(self, *needed: str | tuple[str, ...], guarded: Sequence[str] = (), read: Sequence[str] = ()) -> None:
        """Check the header, and that there are rows.

        Parameters
        ----------
        needed
            Names of columns that must be there; of a tuple one is enough.
        guarded
            Names of columns that may be left out, but not be misspelled: another one of nearly that name is refused.
        read
            Names of columns that are read as something else, and so are no misspellings; they may not be there twice.

        Raises
        ------
        SourceError
            If a column is missing, misspelled or there twice (all are told), or the table has no row.
        """
        if not self.header:
            raise SourceError(f"{self.path} is empty: no column {_either(needed[0])}, no row")
        alternatives = [(names,) if isinstance(names, str) else names for names in needed]
        faults = [self._missing(names) for names in alternatives if not set(names) & set(self.columns)]
        faults += [fault for name in guarded if (fault := self._misspelled(name, (*guarded, *read)))]
        known = dict.fromkeys(name for names in (*alternatives, guarded, read) for name in names)
        faults += [f"the column {self.title(name)} is there twice" for name in known if self.columns.count(name) > 1]
        if faults:
            titles = listed(map(_visible, self.header), most=_MAX_COLUMNS_SHOWN)
            raise SourceError(f"{self.path}: {'; '.join(faults)}; its columns are {titles}")
        if not self.rows:
            self.problems.raise_any()
            raise SourceError(f"{self.path} has a header but no rows")

    def _missing(self, names: Sequence[str]) -> str:
        close = [match for name in names for match in get_close_matches(name, self.columns, n=1, cutoff=_SIMILAR)]
        guess = f" (is it {self.title(close[0])}? rename it)" if close else ""
        return f"no column {_either(tuple(names))}{guess}"

    def _misspelled(self, name: str, known: Sequence[str]) -> str:
        columns = [column for column in self.columns if column not in known]
        if name in self.columns:
            return ""
        close = get_close_matches(name, columns, n=1, cutoff=_SURELY_MEANT)
        return (
            f"the column {self.title(close[0])} is not read: rename it to {name}, or to something else" if close else ""
        )


def read_csv_table(path: Path, names: Sequence[str]) -> CsvTable:
    """Read a table whatever its columns are; :meth:`CsvTable.require` says what they must be.

    The separator is the one of comma, semicolon and tab with which the header has most of `names`, then most columns;
    or what a spreadsheet's first line ``sep=;`` says.

    Parameters
    ----------
    path
        A regular file, UTF-8 or UTF-16, with any line ends.
    names
        Columns that the reader knows, in lower case.

    Raises
    ------
    SourceError
        If the file cannot be read, is no such text, or a quote is not closed; with lines.
    """
    return _parse(path, read_table_text(path), names)


def parse_csv_table(place: TablePlace, data: bytes, names: Sequence[str]) -> CsvTable:
    """Do what :func:`read_csv_table` does with bytes that were read elsewhere; `place` is for messages."""
    return _parse(place, table_text(place, data), names)


def peek_header(place: ReadablePlace, names: Sequence[str] = ()) -> list[str]:
    """Titles of a table's columns without blanks around them, without reading the rest; empty of what is no table.

    Parameters
    ----------
    place
        A path or an address.
    names
        Columns that are looked for; they help to find the separator.
    """
    try:
        text = _lenient_text(place.read_bytes()[: 1 << 16] if not isinstance(place, Path) else _first_bytes(place))
    except (OSError, FailedError):
        return []
    chosen = _SEPARATOR_LINE.match(text)
    if chosen:
        text = text[chosen.end() :]
    separator = chosen[1] if chosen else max(SEPARATORS, key=lambda candidate: _fit(text, candidate, names))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = next((row for row in rows if any(map(str.strip, row))), [])
    except csv.Error:
        return []
    return [title.strip() for title in header]


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(1 << 16)


def _lenient_text(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data[: len(data) // 2 * 2].decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace").replace("\0", "")


def _parse(path: TablePlace, text: str, names: Sequence[str]) -> CsvTable:
    chosen = _SEPARATOR_LINE.match(text)
    separator = chosen[1] if chosen else max(SEPARATORS, key=lambda candidate: _fit(text, candidate, names))
    numbered = _numbered_rows(path, text, separator)
    if chosen:
        next(numbered)
    _, header = next(numbered, (1, ()))
    problems = TableProblems(path)
    fitted = [
        (line, row if len(row) == len(header) else _fitted(row, header, line, problems)) for line, row in numbered
    ]
    kept = [(line, row) for line, row in fitted if row]
    return CsvTable(path, separator, header, tuple(row for _, row in kept), tuple(line for line, _ in kept), problems)


def _visible(title: str) -> str:
    return shown(title.strip())[1:-1]


def _either(names: str | Sequence[str]) -> str:
    """Names for a message; ``Path`` is the one that tables usually write with a capital."""
    known = [names] if isinstance(names, str) else names
    return " or ".join("Path" if name == "path" else name for name in known)


def _fit(text: str, separator: str, names: Sequence[str]) -> tuple[int, int]:
    """How well a separator parts the header: names found, and cells."""
    rows = csv.reader(io.StringIO(text[:_HEADER_CHARACTERS], newline=""), delimiter=separator, strict=True)
    try:
        header = next((row for row in rows if any(map(str.strip, row))), [])
    except csv.Error:
        return 0, 0
    return len({cell.strip().lower() for cell in header} & set(names)), len(header)


def _numbered_rows(path: object, text: str, separator: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Rows that hold anything, each with the line on which it starts."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield line, tuple(row)
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error).replace("\t", "tab")
        raise SourceError(
            f"{path}: line {line}: the row cannot be read: {reason}; look for a quote without its partner"
        ) from error


def _fitted(row: tuple[str, ...], header: Sequence[str], line: int, problems: TableProblems) -> tuple[str, ...]:
    """The row as long as the header, if only blank cells have to go or come for that; empty, and told, otherwise."""
    width = len(header)
    num_titled = max(position for position, title in enumerate(header, start=1) if title.strip())
    if len(row) < num_titled or any(map(str.strip, row[width:])):
        counted = "1 cell" if len(row) == 1 else f"{len(row)} cells"
        problems.tell(f"another number of cells than the header's {width}", line, counted)
        return ()
    return (*row[:width], *[""] * (width - len(row)))
