"""CSV tables that users write, read with line numbers and with every fault in one message."""

from __future__ import annotations

import codecs
import csv
import io
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from leukemia_data.errors import FailedError, SourceError, listed
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import formula_restored, formula_safe, quoting_for

_MAX_PLACES = 5
_MAX_SHOWN = 80


def shown(text: str) -> str:
    """Return a cell's text for a message: quoted, with escapes for invisible characters, and shortened."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


class TableProblems:
    """Problems of one table, a path or an address: their `count`, and the lines of each kind of problem."""

    def __init__(self, table: object) -> None:
        self._table = table
        self._places: dict[str, list[str]] = {}
        self._counts = Counter[str]()
        self.count = 0

    def add(self, what: str, line: int, detail: str = "") -> None:
        """Add one problem.

        Parameters
        ----------
        what
            The column, what is wrong, and what to do; the same for every such cell.
        line
            First line of the row, from 1.
        detail
            What this cell holds, see :func:`shown`.
        """
        self.count += 1
        self._counts[what] += 1
        if self._counts[what] <= _MAX_PLACES:
            self._places.setdefault(what, []).append(f"line {line} ({detail})" if detail else f"line {line}")

    def raise_any(self, cure: str = "") -> None:
        """Raise SourceError with the first few lines of every kind of problem, if there is one; `cure` ends it."""
        if not self._places:
            return
        kinds = []
        for what, places in self._places.items():
            num_more = self._counts[what] - len(places)
            kinds.append(f"{what}: {', '.join(places)}" + (f" (and {num_more:,} more)" if num_more else ""))
        counted = "1 problem" if self.count == 1 else f"{self.count:,} problems"
        raise SourceError(f"{self._table}: {counted}: {'; '.join(kinds)}" + (f"; {cure}" if cure else ""))


MAX_TABLE_BYTES = 1 << 30
"""A table of ten million images has 0.6 GB."""

_UTF8_CURE = "save the table as UTF-8 (spreadsheets call it CSV UTF-8)"
_LINE_END = re.compile(r"\r\n|\r|\n")


def _read_bytes(path: Path) -> bytes:
    try:
        # Reading a pipe would block.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path} is no regular file")
        with path.open("rb") as file:
            # Python allocates as much as is requested.
            data = file.read(min(MAX_TABLE_BYTES, status.st_size) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"{path} cannot be read: {reason}") from error
    if len(data) > MAX_TABLE_BYTES:
        raise SourceError(f"{path} is larger than {MAX_TABLE_BYTES:,} bytes: split the table")
    return data


def _text(path: object, data: bytes) -> str:
    """Text of a table without its mark (BOM), its line ends unchanged."""
    if data.startswith(b"PK\x03\x04"):
        raise SourceError(f"{path} is a workbook or an archive, not a CSV file: {_UTF8_CURE}")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise SourceError(f"{path} is UTF-32: {_UTF8_CURE}")
    if data.startswith(_UTF16_MARKS):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is damaged UTF-16 at byte {error.start:,}: {_UTF8_CURE}") from error
    else:
        text = _utf8_text(path, data.removeprefix(codecs.BOM_UTF8))
    if "\0" in text:
        _refuse_nul(path, text)
    return text


def _utf8_text(path: object, data: bytes) -> str:
    if b"\0" in data:
        _refuse_nul(path, data.decode("utf-8", errors="replace"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        problems = TableProblems(path)
        for line, content in enumerate(data.splitlines(), start=1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = content[error.start]
                problems.add("not UTF-8", line, f"byte {error.start + 1} of the line is 0x{byte:02x}")
        problems.raise_any(_UTF8_CURE)
        raise


def _refuse_nul(path: object, text: str) -> None:
    problems = TableProblems(path)
    for line, content in enumerate(_LINE_END.split(text), start=1):
        if "\0" in content:
            problems.add("a NUL byte", line, f"at character {content.index(chr(0)) + 1}")
    problems.raise_any(f"the file is damaged, no text, or UTF-16 without its mark: {_UTF8_CURE}")


_SEPARATORS = (",", ";", "\t")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[\r\n]', re.IGNORECASE)
_HEADER_CHARACTERS = 1 << 16
_SIMILAR = 0.6
_SURELY_MEANT = 0.8
_MAX_COLUMNS_SHOWN = 20


class TablePlace(Protocol):
    """Path or address of a table."""

    @property
    def stem(self) -> str:
        """The name without suffix."""
        ...

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        ...


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table as in its file.

    Attributes
    ----------
    header, rows
        Its cells, unchanged; every row is as long as the header. Blank rows and those of another length are left out.
    lines
        Number of the line on which each row starts.
    problems
        What is wrong with the table, rows of another length among it.
    """

    path: TablePlace
    separator: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    problems: TableProblems

    @property
    def columns(self) -> list[str]:
        """The titles in lower case and without blanks around them."""
        return [title.strip().lower() for title in self.header]

    def title(self, name: str) -> str:
        """Return a column's name as in the header, for messages."""
        columns = self.columns
        return _visible(self.header[columns.index(name)]) if name in columns else name

    def cells(self, name: str) -> list[str]:
        """Return the cells of a column, unchanged; empty ones if there is no such column."""
        columns = self.columns
        if name not in columns:
            return [""] * len(self.rows)
        position = columns.index(name)
        return [row[position] for row in self.rows]

    def words(self, name: str) -> list[str]:
        """Return the cells of a column without blanks around them and protection from spreadsheets.

        A cell with an invisible character, or a quote after a blank, is added to the problems.
        """
        cells = self.cells(name)
        word_of = {cell: formula_restored(cell.strip()) for cell in set(cells)}
        odd = {cell for cell, word in word_of.items() if word.startswith('"') or not word.isprintable()}
        for line, cell in zip(self.lines, cells, strict=True) if odd else ():
            if cell in odd:
                what = f"column {self.title(name)} holds an invisible character, or a quote after a blank"
                self.problems.add(what, line, shown(cell))
        return [word_of[cell] for cell in cells]

    def require(self, *needed: str | tuple[str, ...], guarded: Sequence[str] = (), read: Sequence[str] = ()) -> None:
        """Check the header, and that there are rows.

        Parameters
        ----------
        needed
            Required columns; of a tuple one is enough.
        guarded
            Optional columns, which are refused if misspelled.
        read
            Other columns that are read, and so are no misspellings.

        Raises
        ------
        SourceError
            If a column is missing, misspelled or there twice (with all of them), or the table has no row.
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
        if close := get_close_matches(name, columns, n=1, cutoff=_SURELY_MEANT):
            return f"the column {self.title(close[0])} is not read: rename it to {name}, or to something else"
        return ""


def read_csv_table(path: Path, names: Sequence[str]) -> CsvTable:
    """Read a table of any columns; :meth:`CsvTable.require` checks them.

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
        If the file cannot be read, is too large or no such text, or a quote is not closed; with lines.
    """
    return parse_csv_table(path, _read_bytes(path), names)


def parse_csv_table(place: TablePlace, data: bytes, names: Sequence[str]) -> CsvTable:
    """Do what :func:`read_csv_table` does with bytes that were read elsewhere; `place` is for messages."""
    text = _text(place, data)
    separator, line_end = _separator(text, names)
    numbered = _numbered_rows(place, text, separator)
    if line_end:
        next(numbered)
    _, header = next(numbered, (1, ()))
    problems = TableProblems(place)
    rows, lines = [], []
    for line, row in numbered:
        fitted = row if len(row) == len(header) else _fitted(row, header, line, problems)
        if fitted:
            rows.append(fitted)
            lines.append(line)
    return CsvTable(place, separator, header, tuple(rows), tuple(lines), problems)


def peek_header(place: TablePlace, names: Sequence[str] = ()) -> list[str]:
    """Return the titles of a table's columns without blanks around them; empty if it is no table.

    Only the start of a file is read. `names` are columns that help to find the separator.
    """
    try:
        if not isinstance(place, Path):
            data = place.read_bytes()[:_HEADER_CHARACTERS]
        elif place.is_file():
            with place.open("rb") as file:
                data = file.read(_HEADER_CHARACTERS)
        else:
            return []
    except (OSError, FailedError):
        return []
    if data.startswith(_UTF16_MARKS):
        text = data[: len(data) // 2 * 2].decode("utf-16", errors="replace")
    else:
        text = data.decode("utf-8-sig", errors="replace").replace("\0", "")
    separator, line_end = _separator(text, names)
    return [title.strip() for title in _first_row(text[line_end:], separator, strict=False)]


def _separator(text: str, names: Sequence[str]) -> tuple[str, int]:
    """The separator, and the end of a first line that says it, or 0."""
    if chosen := _SEPARATOR_LINE.match(text):
        return chosen[1], chosen.end()

    def fit(separator: str) -> tuple[int, int]:
        header = _first_row(text, separator, strict=True)
        return len({cell.strip().lower() for cell in header} & set(names)), len(header)

    return max(_SEPARATORS, key=fit), 0


def _first_row(text: str, separator: str, *, strict: bool) -> list[str]:
    """The first row that is not blank; empty if it cannot be read."""
    start = io.StringIO(text[:_HEADER_CHARACTERS], newline="")
    try:
        return next(filter(_is_filled, csv.reader(start, delimiter=separator, strict=strict)), [])
    except csv.Error:
        return []


def _is_filled(row: Sequence[str]) -> bool:
    return any(map(str.strip, row))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table as UTF-8, atomically; cells that a spreadsheet would read as formulas are protected."""
    safe = [[formula_safe(cell) for cell in row] for row in rows]
    quoting = quoting_for(cell for row in safe for cell in row)
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n", quoting=quoting)
        writer.writerow(header)
        writer.writerows(safe)


def _visible(title: str) -> str:
    return shown(title.strip())[1:-1]


def _either(names: str | Sequence[str]) -> str:
    # Tables usually write this one with a capital.
    known = [names] if isinstance(names, str) else names
    return " or ".join("Path" if name == "path" else name for name in known)


def _numbered_rows(path: object, text: str, separator: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Rows that are not blank, each with its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if _is_filled(row):
                yield line, tuple(row)
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error).replace("\t", "tab")
        raise SourceError(
            f"{path}: line {line}: the row cannot be read: {reason}; look for a quote without its partner"
        ) from error


def _fitted(row: tuple[str, ...], header: Sequence[str], line: int, problems: TableProblems) -> tuple[str, ...]:
    """The row padded or cut to the header's length if only blank cells differ; else nothing and a problem."""
    width = len(header)
    num_titled = max(position for position, title in enumerate(header, start=1) if title.strip())
    if len(row) < num_titled or _is_filled(row[width:]):
        counted = "1 cell" if len(row) == 1 else f"{len(row)} cells"
        problems.add(f"another number of cells than the header's {width}", line, counted)
        return ()
    return (*row[:width], *[""] * (width - len(row)))
