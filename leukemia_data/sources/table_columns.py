"""Which columns of a table give path, class, subject and split, and what its label cells mean."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leukemia_data.errors import AmbiguousSourceError, SourceError, listed
from leukemia_data.files.csv_table import CsvTable, shown
from leukemia_data.records.record import CELL_CLASSES, parse_cell_name
from leukemia_data.sources.name_words import is_unknown, plain, split_word, squeezed, words_of
from leukemia_data.sources.reading_options import NO_COLUMN, ReadingChoice, ReadingOptions, ask_at_once

_NAMES = {role: words_of("columns", role) for role in ("path", "label", "subject", "split")}
_REMARKS = words_of("columns", "remarks")
_LAST_PATH_NAMES = ("name", "id", "uid")
_MAX_CLASSES = 50
_MAX_CHOICES = 6
_SMALL_NUMBER = re.compile(r"-?1?\d(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?(?:e[+-]?\d+)?", re.IGNORECASE)
_ROWS_TRIED = 20


class TableColumns(NamedTuple):
    """The columns that are read, by name (in lower case); several labels are one-hot, and empty means none.

    Attributes
    ----------
    given
        Roles whose column the user named.
    """

    path: str
    label: tuple[str, ...] = ()
    subject: str = ""
    split: str = ""
    given: frozenset[str] = frozenset()

    @property
    def all_names(self) -> set[str]:
        """Names of the columns that are read."""
        return {self.path, *self.label, self.subject, self.split} - {""}


def choose_columns(
    table: CsvTable, options: ReadingOptions, is_file: Callable[[str], bool], *, need_classes: bool
) -> TableColumns:
    """Decide which columns are read.

    Parameters
    ----------
    table
        The table.
    options
        Columns that the user names.
    is_file
        Whether a path text of the table means a file that is there.
    need_classes
        Whether labels are wanted; without, nothing is asked for their sake.

    Raises
    ------
    SourceError
        If a column that the user names, or one for paths, is absent.
    AmbiguousSourceError
        If several columns may be meant.
    """
    try:
        return _choose_columns(table, options, is_file, need_classes=need_classes)
    except AmbiguousSourceError as error:
        readings = [each for each in error.readings if isinstance(each, ReadingChoice)]

        def choose_again(chosen: ReadingOptions) -> TableColumns:
            return choose_columns(table, chosen, is_file, need_classes=need_classes)

        raise ask_at_once(error.what, readings, choose_again) from None


def _choose_columns(
    table: CsvTable, options: ReadingOptions, is_file: Callable[[str], bool], *, need_classes: bool
) -> TableColumns:
    given = {
        role: column
        for role, column in (
            ("path", options.path_column),
            ("label", options.label_column),
            ("subject", options.subject_column),
            ("split", options.split_column),
        )
        if column is not None
    }
    path = _given_columns(table, "path", given["path"])[0] if "path" in given else _path_column(table, is_file, options)
    table.require(path)
    split = _one_given(table, "split", given) if "split" in given else _split_column(table, path, options)
    subject = (
        _one_given(table, "subject", given) if "subject" in given else _other_column(table, "subject", options, path)
    )
    label: tuple[str, ...]
    if "label" in given:
        label = _given_columns(table, "label", given["label"])
    else:
        found = _other_column(table, "label", options, path) if need_classes or "label" in table.columns else ""
        label = (found,) if found else ()
    columns = TableColumns(path, label, subject, split, frozenset(given))
    _guard_spelling(table, columns)
    if need_classes and not label and "label" not in given and options.class_level is None:
        _ask_for_labels(table, columns, options)
    return columns


def _one_given(table: CsvTable, role: str, given: dict[str, str]) -> str:
    found = _given_columns(table, role, given[role])
    return found[0] if found else ""


def _given_columns(table: CsvTable, role: str, text: str) -> tuple[str, ...]:
    if text.strip().lower() in table.columns:
        return (text.strip().lower(),)
    if role != "path" and text.strip().lower() == NO_COLUMN:
        return ()
    names = tuple(name.strip().lower() for name in text.split(",")) if role == "label" else (text.strip().lower(),)
    absent = [name for name in names if name not in table.columns]
    if absent:
        titles = listed((title.strip() for title in table.header), most=20)
        raise SourceError(
            f"{table.path}: --{role}-column {text}: there is no column {absent[0]}; its columns are {titles}"
        )
    return names


def _other_column(table: CsvTable, role: str, options: ReadingOptions, path: str) -> str:
    """The column of a role: of its own name, or the only one of a usual other name."""
    if role in table.columns:
        return role
    found = [name for name in dict.fromkeys(table.columns) if squeezed(name) in _NAMES[role] and name != path]
    return found[0] if len(found) < 2 and found else _ask_which(table, role, found, options) if found else ""


def _ask_which(table: CsvTable, role: str, found: Sequence[str], options: ReadingOptions) -> str:
    raise AmbiguousSourceError(
        f"{table.path}: {len(found)} columns may tell the {role}",
        [_choice(table, role, name, options) for name in found],
    )


def _choice(table: CsvTable, role: str, names: str, options: ReadingOptions) -> ReadingChoice:
    column = f"{role}_column"
    if names == NO_COLUMN:
        return ReadingChoice.of(f"no {role}", options, **{column: NO_COLUMN})
    titles = ",".join(table.title(name) for name in names.split(","))
    counts = Counter(table.words(names.split(",")[0])) if "," not in names else {}
    shown = listed((f"{value or 'empty'} {count:,}" for value, count in Counter(counts).most_common(4)), most=4)
    return ReadingChoice.of(
        f"{role}s {shown}" if shown else "one of these columns is 1 in each row", options, **{column: titles}
    )


def _path_column(table: CsvTable, is_file: Callable[[str], bool], options: ReadingOptions) -> str:
    if "path" in table.columns:
        return "path"
    found = [name for name in dict.fromkeys(table.columns) if squeezed(name) in _NAMES["path"]]
    found = found or [name for name in dict.fromkeys(table.columns) if name in _LAST_PATH_NAMES]
    if not found:
        table.require("path")
    hits = {name: sum(map(is_file, table.cells(name)[:_ROWS_TRIED])) for name in found}
    best = [name for name in found if hits[name] == max(hits.values())]
    if len(best) > 1 and hits[best[0]]:
        _ask_which(table, "path", best, options)
    return best[0]


def _split_column(table: CsvTable, path: str, options: ReadingOptions) -> str:
    """The column ``split``, or the only other one of a usual name in which every word means a split."""
    if "split" in table.columns:
        return "split"
    found = [name for name in dict.fromkeys(table.columns) if squeezed(name) in _NAMES["split"] and name != path]
    found = [name for name in found if _are_splits(table.words(name))]
    return _ask_which(table, "split", found, options) if len(found) > 1 else found[0] if found else ""


def _are_splits(words: Sequence[str]) -> bool:
    known = {word for word in words if not is_unknown(word)}
    return bool(known) and all(map(split_word, known))


def _guard_spelling(table: CsvTable, columns: TableColumns) -> None:
    """Refuse a column that is nearly called like one that is missing: it would be passed over unnoticed."""
    missing = [
        role
        for role, found in (("label", columns.label), ("subject", columns.subject), ("split", columns.split))
        if not found and role not in columns.given
    ]
    table.require(columns.path, guarded=missing, read=tuple(columns.all_names))


def _ask_for_labels(table: CsvTable, columns: TableColumns, options: ReadingOptions) -> None:
    """Ask where there is no column of labels, but columns that might be: classes are never lost in silence."""
    rest = [name for name in dict.fromkeys(table.columns) if name and name not in columns.all_names]
    one_hot = _one_hot(table, rest)
    named = [name for name in rest if name not in one_hot and squeezed(name) not in _REMARKS]
    candidates = [name for name in named if _may_be_labels(table.words(name))]
    if not one_hot and not candidates:
        return
    names = [",".join(one_hot)] if one_hot else []
    choices = [_choice(table, "label", name, options) for name in (*names, *candidates[:_MAX_CHOICES], NO_COLUMN)]
    raise AmbiguousSourceError(f"{table.path}: no column is called label", choices)


def _one_hot(table: CsvTable, names: Sequence[str]) -> list[str]:
    """Columns of 0 and 1 of which no row has two 1 and most have one; a row without is unlabelled."""
    flags = {name: [_flag(word) for word in table.words(name)] for name in names}
    flags = {name: values for name, values in flags.items() if None not in values}
    if len(flags) < 2:
        return []
    sums = [sum(filter(None, row)) for row in zip(*flags.values(), strict=True)]
    return list(flags) if max(sums, default=0) == 1 and sum(sums) * 2 > len(sums) else []


def _flag(word: str) -> int | None:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}.get(word.lower())


def _may_be_labels(words: Sequence[str]) -> bool:
    known = [word for word in words if not is_unknown(word)]
    values = set(known)
    if any(map(_NUMBER.fullmatch, values)) and not all(map(_SMALL_NUMBER.fullmatch, values)):
        return False
    return 1 < len(values) <= _MAX_CLASSES and len(values) < len(known)


def one_hot_label(names: Sequence[str], cells: Sequence[str]) -> str | None:
    """The column of a row that is 1; empty where all are 0 or unknown, None where several or something else is."""
    flags = [0 if is_unknown(cell) else _flag(cell) for cell in cells]
    if None in flags or sum(filter(None, flags)) > 1:
        return None
    return next((name for name, flag in zip(names, flags, strict=True) if flag), "")


_LAB_PATH = re.compile(r"(?:.*/)?new_dataset/(?:train|valid|test)/\d+\.bmp", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"([+-]?)0*(\d{1,9}?)(?:\.0*)?", re.ASCII)
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
        Lines of rows whose label is no class; they are added to the table's problems.
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
        The table; labels that are no class are added to its problems.
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
        return _one_hot_labels(table, columns.label)
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
    match = _WHOLE_NUMBER.fullmatch(word)
    return "" if match is None else str(int(match[1] + match[2]))


def _tell(table: CsvTable, labels: Labels, is_wrong: Sequence[bool], what: str) -> None:
    for line, name, wrong in zip(table.lines, labels.names, is_wrong, strict=True):
        if wrong:
            table.problems.add(what, line, shown(name or ""))
            labels.wrong_lines.add(line)


def _one_hot_labels(table: CsvTable, columns: Sequence[str]) -> Labels:
    titles = [table.title(column) for column in columns]
    cells = zip(*(table.words(column) for column in columns), strict=True)
    labels = Labels([], ", one-hot")
    for line, row in zip(table.lines, cells, strict=True):
        name = one_hot_label(titles, row)
        if name is None:
            table.problems.add(f"columns {', '.join(titles)} are not one 1 and else 0", line, shown(",".join(row)))
            labels.wrong_lines.add(line)
        labels.names.append(name or None)
    return labels
