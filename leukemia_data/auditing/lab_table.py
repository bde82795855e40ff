"""A lab's table of images as text: read whole, written again with columns more and nothing else changed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.atomic import atomic_path
from leukemia_data.samples.record import CELL_CLASSES
from leukemia_data.sources.found_image import split_word

_ENCODING = "utf-8-sig"


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
        Number of the line on which each row ends.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

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
        return [CELL_CLASSES[int(label)] if label in ("0", "1") else label for label in labels]

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
    try:
        with path.open(encoding=_ENCODING, errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            header = tuple(next(reader, ()))
            numbered = [(reader.line_num, tuple(row)) for row in reader if row]
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from error
    names = [name.strip().lower() for name in header]
    if "path" not in names:
        raise SourceError(f"{path} has no column Path; its header is {','.join(header) or 'empty'}")
    if "subject" in names:
        raise SourceError(
            f"{path} has a column {header[names.index('subject')]} already: take it out or rename it first"
        )
    wrong = [f"line {line}" for line, row in numbered if len(row) != len(header)]
    if wrong:
        raise SourceError(f"{path}: another number of cells than the header's {len(header)} in {listed(wrong)}")
    if not numbered:
        raise SourceError(f"{path} has a header but no rows")
    return LabTable(path, header, tuple(row for _, row in numbered), tuple(line for line, _ in numbered))


def write_lab_table(path: Path, table: LabTable, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a table with columns added at its end, atomically; all other cells stay as they were, in their order."""
    added = zip(*columns.values(), strict=True)
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*table.header, *columns))
        writer.writerows((*row, *more) for row, more in zip(table.rows, added, strict=True))
