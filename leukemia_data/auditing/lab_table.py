"""A lab's table of images as text: read whole, written again with columns more and nothing else changed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.csv_table import CsvTable, read_csv_table
from leukemia_data.files.spreadsheet import formula_safe
from leukemia_data.files.table_problems import TableProblems, shown
from leukemia_data.samples.record import GIVEN_SPLITS
from leukemia_data.sources.listed_file import FileFinder
from leukemia_data.sources.name_words import split_word
from leukemia_data.sources.table_labels import class_of_label

_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True, slots=True)
class LabTable:
    """A CSV table with a column ``Path``; blank lines are left out.

    Attributes
    ----------
    path
        The file.
    header, rows
        Its cells, unchanged; every row is as long as the header.
    lines
        Number of the line on which each row starts.
    separator
        What stands between its cells.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str = ","

    def column(self, name: str) -> list[str] | None:
        """Cells of a column without blanks around them, ``None`` where there is none; case does not matter."""
        names = [title.strip().lower() for title in self.header]
        if name not in names:
            return None
        position = names.index(name)
        return [row[position].strip() for row in self.rows]

    @property
    def image_paths(self) -> list[str]:
        """What the column ``Path`` says."""
        return self.column("path") or []

    @property
    def class_names(self) -> list[str]:
        """Class of each row, empty where there is none; 0 and 1 are hem and all."""
        labels = self.column("label") or [""] * len(self.rows)
        return [class_of_label(label) or "" for label in labels]

    @property
    def splits(self) -> list[str]:
        """Split of each row: its own word, or what the table's name says."""
        words = self.column("split") or [""] * len(self.rows)
        own = split_word(self.path.stem) or ""
        return [(split_word(word) or "") if word else own for word in words]


def read_lab_table(path: Path) -> LabTable:
    """Read a table.

    Raises
    ------
    UsageError
        If it is no CSV file.
    SourceError
        If it cannot be read, has no column ``Path``, has a column ``subject`` already, no rows, or wrong rows.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        raise UsageError(f"{path} is no .csv file")
    read = read_csv_table(path, _COLUMNS)
    read.require("path", guarded=_COLUMNS[1:])
    if "subject" in read.columns:
        raise SourceError(f"{path} has a column {read.title('subject')} already: take it out or rename it first")
    _check_cells(read)
    read.problems.raise_any()
    return LabTable(path, read.header, read.rows, read.lines, read.separator)


def locate_files(table: LabTable, root: Path, *, allow_outside: bool = False) -> dict[str, Path]:
    """The file that each ``Path`` of a table means, whether there is one or not.

    Raises
    ------
    SourceError
        If paths lead out of `root` without `allow_outside`, or may mean two files.
    """
    finder = FileFinder(root, allow_outside=allow_outside)
    problems = TableProblems(table.path)
    files: dict[str, Path] = {}
    for line, text in zip(table.lines, table.image_paths, strict=True):
        try:
            files[text] = finder.find(text).path
        except ValueError as error:
            problems.tell(f"column Path {error}", line, shown(text))
    problems.raise_any()
    return files


def write_lab_table(path: Path, table: LabTable, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a table with columns added at its end, atomically; all other cells stay as they were, in their order.

    Added cells that a spreadsheet would take for a formula are protected (:mod:`leukemia_data.files.spreadsheet`).
    """
    added = zip(*columns.values(), strict=True)
    # Names of folders that are no UTF-8 may have become subjects.
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, delimiter=table.separator, lineterminator="\n")
        writer.writerow((*table.header, *columns))
        writer.writerows((*row, *map(formula_safe, more)) for row, more in zip(table.rows, added, strict=True))


def _check_cells(table: CsvTable) -> None:
    table.words("label")
    for line, text, split in zip(table.lines, table.cells("path"), table.words("split"), strict=True):
        if not text.strip():
            table.problems.tell(f"column {table.title('path')} is empty", line)
        if split and split_word(split) is None:
            what = f"column {table.title('split')} is none of {', '.join(GIVEN_SPLITS)}"
            table.problems.tell(what, line, shown(split))
