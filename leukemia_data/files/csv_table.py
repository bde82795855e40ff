"""CSV tables that users write: text, columns, rows with line numbers, and every fault in one message."""

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
    """A cell's text for a message: quoted, with escapes for what is no visible letter, and cut where it is long."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


class TableProblems:
    """Problems of one table, grouped by what is wrong, each with the lines it is found in.

    Parameters
    ----------
    table
        The file or its address, for the message.

    Attributes
    ----------
    count
        How many were reported.
    """

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
            The column and what is wrong, in words that are the same for every such cell; and what to do.
        line
            Line of the file on which the row starts, counted from 1.
        detail
            What this cell holds, short and on one line (see :func:`shown`).
        """
        self.count += 1
        self._counts[what] += 1
        if self._counts[what] <= _MAX_PLACES:
            self._places.setdefault(what, []).append(f"line {line} ({detail})" if detail else f"line {line}")

    def raise_any(self, cure: str = "") -> None:
        """Raise all problems at once, if there is one; `cure` ends the message.

        Raises
        ------
        SourceError
            With the table's name and the first few lines of every kind of problem.
        """
        if not self._places:
            return
        kinds = "; ".join(self._kind(what) for what in self._places)
        counted = "1 problem" if self.count == 1 else f"{self.count:,} problems"
        raise SourceError(f"{self._table}: {counted}: {kinds}" + (f"; {cure}" if cure else ""))

    def _kind(self, what: str) -> str:
        num_more = self._counts[what] - len(self._places[what])
        return f"{what}: {', '.join(self._places[what])}" + (f" (and {num_more:,} more)" if num_more else "")


MAX_TABLE_BYTES = 1 << 30
"""A table of ten million images has 0.6 GB; what is larger is no table of images, and would fill the memory."""

_UTF8_CURE = "save the table as UTF-8 (spreadsheets call it CSV UTF-8)"
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_table_text(path: Path) -> str:
    """Text of a CSV file, as :func:`table_text` reads it.

    Raises
    ------
    SourceError
        If the file cannot be read, is too large, or is no such text.
    """
    return table_text(path, _read_bytes(path))


def table_text(path: object, data: bytes) -> str:
    """Text of a table, without its mark (BOM) and with its line ends as they are.

    Parameters
    ----------
    path
        Where it was read, for messages.
    data
        All of its bytes.

    Raises
    ------
    SourceError
        If it is a workbook, or no UTF-8 or UTF-16 text; the message names the lines.
    """
    if data.startswith(b"PK\x03\x04"):
        raise SourceError(f"{path} is a workbook or an archive, not a CSV file: {_UTF8_CURE}")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise SourceError(f"{path} is UTF-32: {_UTF8_CURE}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = _utf16_text(path, data)
    else:
        text = _utf8_text(path, data.removeprefix(codecs.BOM_UTF8))
    if "\0" in text:
        _refuse_nul(path, text)
    return text


def _read_bytes(path: Path) -> bytes:
    try:
        # A pipe would be waited for.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path} is no regular file")
        with path.open("rb") as file:
            # Room for as much as is asked for is taken beforehand.
            data = file.read(min(MAX_TABLE_BYTES, status.st_size) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"{path} cannot be read: {reason}") from error
    if len(data) > MAX_TABLE_BYTES:
        raise SourceError(f"{path} is larger than {MAX_TABLE_BYTES:,} bytes: split the table")
    return data


def _utf16_text(path: object, data: bytes) -> str:
    try:
        return data.decode("utf-16")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is damaged UTF-16 at byte {error.start:,}: {_UTF8_CURE}") from error


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
        What is wrong with the table; rows of another length are reported already.
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

        A cell that holds an invisible character, or a quote after a blank, is reported as a problem.
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
            Names of columns that must be there; of a tuple one is enough.
        guarded
            Names of columns that may be left out, but not be misspelled: another one of nearly that name is refused.
        read
            Names of columns that are read as something else, and so are no misspellings; they may not be there twice.

        Raises
        ------
        SourceError
            If a column is missing, misspelled or there twice (the message names all), or the table has no row.
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
    """The row padded or cut to the header's length if only blank cells differ; else empty, and reported."""
    width = len(header)
    num_titled = max(position for position, title in enumerate(header, start=1) if title.strip())
    if len(row) < num_titled or any(map(str.strip, row[width:])):
        counted = "1 cell" if len(row) == 1 else f"{len(row)} cells"
        problems.add(f"another number of cells than the header's {width}", line, counted)
        return ()
    return (*row[:width], *[""] * (width - len(row)))
