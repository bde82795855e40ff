"""Cells of a table's label columns in, class names out: unknown values, numbers, one-hot rows, and C-NMC's 0 and 1."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from leukemia_data.errors import listed
from leukemia_data.files.csv_table import CsvTable
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import CELL_CLASSES, parse_cell_name
from leukemia_data.sources.name_words import is_unknown, plain
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.table_columns import TableColumns, one_hot_label

_LAB_PATH = re.compile(r"(?:.*/)?new_dataset/(?:train|valid|test)/\d+\.bmp", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?)0*(\d{1,9}?)(?:\.0*)?", re.ASCII)
_NUMBERED_CLASSES = {text: CELL_CLASSES[int(float(text))] for text in ("0", "1", "0.0", "1.0")}


@dataclass(slots=True)
class Labels:
    """Class names of a table's rows.

    Attributes
    ----------
    names
        Per row; None where the class is unknown.
    meaning
        What was decided about all of them, after the column's name; may be empty.
    unknown
        Texts that were taken for an unknown class, and how often each occurs.
    wrong_lines
        Lines of rows whose label is no class; they are told to the table's problems.
    """

    names: list[str | None]
    meaning: str = ""
    unknown: Counter[str] = field(default_factory=Counter)
    wrong_lines: set[int] = field(default_factory=set)

    def is_wrong(self, line: int) -> bool:
        """Whether a row's label is no class."""
        return line in self.wrong_lines

    def notes(self, table: object) -> list[str]:
        """What a user should know."""
        if not self.unknown:
            return []
        counted = listed(f"{shown(text)} in {count:,} rows" for text, count in self.unknown.items())
        return [f"{table}: labels {counted} were taken for unknown; --classes makes a class of one"]


def class_of_label(label: str) -> str | None:
    """What a label means in the lab's tables: 0 and 1 are hem and all, empty is unknown, another text is a class."""
    return _NUMBERED_CLASSES.get(label, label) or None


def read_labels(table: CsvTable, columns: TableColumns, options: ReadingOptions, *, need_classes: bool) -> Labels:
    """Read the label of every row.

    Parameters
    ----------
    table
        The table; labels that are no class are told to its problems.
    columns
        Which columns hold them.
    options
        ``classes`` and ``merge`` may name a class that looks like an unknown value.
    need_classes
        Whether labels are compared with each other.
    """
    if not columns.label:
        return Labels([None] * len(table.rows))
    if len(columns.label) > 1:
        return _one_hot(table, columns.label)
    words = table.words(columns.label[0])
    wanted = frozenset((*options.classes, *(old for _, olds in options.merge for old in olds)))
    unknown = Counter(word for word in words if is_unknown(word) and word not in wanted)
    known = [word for word in dict.fromkeys(words) if word not in unknown]
    if need_classes and _is_cnmc(table, columns, known):
        labels = _cnmc_labels(table, columns.label[0], words, unknown)
    elif not need_classes:
        is_cnmc = _is_cnmc(table, columns, known)
        labels = Labels([None if word in unknown else _single_class(word, is_cnmc=is_cnmc) for word in words])
    else:
        labels = _plain_labels(table, columns.label[0], words, known, wanted)
    labels.unknown = Counter({text: count for text, count in unknown.items() if text})
    return labels


def _single_class(word: str, *, is_cnmc: bool) -> str | None:
    """The class that a label names by itself, whatever the others are."""
    return class_of_label(word) if is_cnmc else _whole_number(word) or word


def _is_cnmc(table: CsvTable, columns: TableColumns, known: Sequence[str]) -> bool:
    """Whether 0 and 1 are C-NMC's: the lab's list of files, file names of C-NMC, or its classes beside the numbers."""
    if any(plain(word) in CELL_CLASSES for word in known):
        return True
    if _NUMBERED_CLASSES.keys().isdisjoint(known):
        return False
    texts = [posixpath.normpath(text.strip().replace("\\", "/")) for text in table.cells(columns.path)]
    if all(_LAB_PATH.fullmatch(text) for text in texts if text):
        return True
    return all(parse_cell_name(text.rpartition("/")[2]) is not None for text in texts if text)


def _cnmc_labels(table: CsvTable, column: str, words: Sequence[str], unknown: Counter[str]) -> Labels:
    names = [None if word in unknown else class_of_label(word) for word in words]
    has_numbers = not _NUMBERED_CLASSES.keys().isdisjoint(words)
    labels = Labels(names, ", 0 hem and 1 all" if has_numbers else "")
    what = (
        f"column {table.title(column)} is neither 0 (hem) nor 1 (all) as in other rows (write names of classes "
        "everywhere, leave the cell empty where it is unknown)"
    )
    if has_numbers:
        _tell(table, labels, [name is not None and plain(name) not in CELL_CLASSES for name in names], what)
    return labels


def _plain_labels(
    table: CsvTable, column: str, words: Sequence[str], known: Sequence[str], wanted: frozenset[str]
) -> Labels:
    numbers = {word: number for word in known if (number := _whole_number(word))}
    known_set = set(known)
    labels = Labels([numbers.get(word, word) if word in known_set else None for word in words])
    doubtful = {word for word in known if numbers.get(word, word) not in wanted}
    if numbers and len(numbers) < len(known):
        what = f"column {table.title(column)} is a number in some rows and a name in others (write one kind everywhere)"
        few = len(numbers) < len(known) / 2
        _tell(table, labels, [word in doubtful and (word in numbers) == few for word in words], what)
    return labels


def _whole_number(word: str) -> str:
    """A whole number as a class's name: without zeros before it and ``.0`` behind it; empty of anything else."""
    match = _NUMBER.fullmatch(word)
    return "" if match is None else str(int(match[1] + match[2]))


def _tell(table: CsvTable, labels: Labels, is_wrong: Sequence[bool], what: str) -> None:
    for line, name, wrong in zip(table.lines, labels.names, is_wrong, strict=True):
        if wrong:
            table.problems.tell(what, line, shown(name or ""))
            labels.wrong_lines.add(line)


def _one_hot(table: CsvTable, columns: Sequence[str]) -> Labels:
    titles = [table.title(column) for column in columns]
    cells = zip(*(table.words(column) for column in columns), strict=True)
    labels = Labels([], ", one-hot")
    for line, row in zip(table.lines, cells, strict=True):
        name = one_hot_label(titles, row)
        if name is None:
            table.problems.tell(f"columns {', '.join(titles)} are not one 1 and else 0", line, shown(",".join(row)))
            labels.wrong_lines.add(line)
        labels.names.append(name or None)
    return labels
