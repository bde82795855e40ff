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
    """The columns that are read, by name in lower case; empty for none. Several label columns are one-hot.

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
        """Names of all columns that are read."""
        return {self.path, *self.label, self.subject, self.split} - {""}


def choose_columns(
    table: CsvTable, options: ReadingOptions, is_file: Callable[[str], bool], *, need_classes: bool
) -> TableColumns:
    """Decide which columns are read.

    Parameters
    ----------
    table, options
        The table, and the columns that the user names.
    is_file
        Returns whether a path text of the table means an existing file.
    need_classes
        Whether labels are needed; otherwise they raise no question.

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

        def choose_again(chosen: ReadingOptions) -> TableColumns:
            return choose_columns(table, chosen, is_file, need_classes=need_classes)

        raise ask_at_once(error, choose_again) from None


def _choose_columns(
    table: CsvTable, options: ReadingOptions, is_file: Callable[[str], bool], *, need_classes: bool
) -> TableColumns:
    named = {role: column for role in _NAMES if (column := getattr(options, f"{role}_column")) is not None}
    given = {role: _given_columns(table, role, column) for role, column in named.items()}
    path = given["path"][0] if "path" in given else _path_column(table, is_file, options)
    table.require(path)
    split = given["split"] if "split" in given else _split_column(table, path, options)
    subject = given["subject"] if "subject" in given else _other_column(table, "subject", options, path)
    label = given.get("label", ())
    if "label" not in given and (need_classes or "label" in table.columns):
        label = _other_column(table, "label", options, path)
    columns = TableColumns(path, label, "".join(subject), "".join(split), frozenset(given))
    _guard_spelling(table, columns)
    if need_classes and not label and "label" not in given and options.class_level is None:
        _ask_for_labels(table, columns, options)
    return columns


def _given_columns(table: CsvTable, role: str, text: str) -> tuple[str, ...]:
    name = text.strip().lower()
    if name in table.columns:
        return (name,)
    if role != "path" and name == NO_COLUMN:
        return ()
    names = tuple(part.strip() for part in name.split(",")) if role == "label" else (name,)
    absent = [name for name in names if name not in table.columns]
    if absent:
        titles = listed((title.strip() for title in table.header), most=20)
        raise SourceError(
            f"{table.path}: --{role}-column {text}: there is no column {absent[0]}; its columns are {titles}"
        )
    return names


def _other_column(table: CsvTable, role: str, options: ReadingOptions, path: str) -> tuple[str, ...]:
    """The column with the role's own name, or the only one with a usual other name."""
    if role in table.columns:
        return (role,)
    return _only(table, role, [name for name in _usually_named(table, role) if name != path], options)


def _usually_named(table: CsvTable, role: str) -> list[str]:
    return [name for name in dict.fromkeys(table.columns) if squeezed(name) in _NAMES[role]]


def _only(table: CsvTable, role: str, found: Sequence[str], options: ReadingOptions) -> tuple[str, ...]:
    if len(found) > 1:
        raise AmbiguousSourceError(
            f"{table.path}: {len(found)} columns may hold the {role}",
            [_choice(table, role, name, options) for name in found],
        )
    return tuple(found)


def _choice(table: CsvTable, role: str, names: str, options: ReadingOptions) -> ReadingChoice:
    titles = ",".join(table.title(name) for name in names.split(","))
    if names == NO_COLUMN:
        text, titles = f"no {role}", NO_COLUMN
    elif "," in names:
        text = "one of these columns is 1 in each row"
    else:
        counts = Counter(word or "empty" for word in table.words(names)).most_common(4)
        text = f"{role}s {', '.join(f'{word} {count:,}' for word, count in counts)}"
    return ReadingChoice.of(text, options, **{f"{role}_column": titles})


def _path_column(table: CsvTable, is_file: Callable[[str], bool], options: ReadingOptions) -> str:
    if "path" in table.columns:
        return "path"
    found = _usually_named(table, "path") or [name for name in dict.fromkeys(table.columns) if name in _LAST_PATH_NAMES]
    if not found:
        table.require("path")
    hits = {name: sum(map(is_file, table.cells(name)[:_ROWS_TRIED])) for name in found}
    best = [name for name in found if hits[name] == max(hits.values())]
    return best[0] if not hits[best[0]] else _only(table, "path", best, options)[0]


def _split_column(table: CsvTable, path: str, options: ReadingOptions) -> tuple[str, ...]:
    """The column ``split``, or the only one with a usual other name and no words but splits."""
    if "split" in table.columns:
        return ("split",)
    found = [name for name in _usually_named(table, "split") if name != path and _are_splits(table.words(name))]
    return _only(table, "split", found, options)


def _are_splits(words: Sequence[str]) -> bool:
    known = {word for word in words if not is_unknown(word)}
    return bool(known) and all(map(split_word, known))


def _guard_spelling(table: CsvTable, columns: TableColumns) -> None:
    """Refuse a column with nearly the name of a missing one, which would not be read."""
    missing = [role for role in _NAMES if not getattr(columns, role) and role not in columns.given]
    table.require(columns.path, guarded=missing, read=tuple(columns.all_names))


def _ask_for_labels(table: CsvTable, columns: TableColumns, options: ReadingOptions) -> None:
    """Raise AmbiguousSourceError if no column is called label, but some may hold labels."""
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
    """Columns of 0 and 1 with at most one 1 in each row, and one in most; a row without is unlabelled."""
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


def _one_hot_label(names: Sequence[str], cells: Sequence[str]) -> str | None:
    """The column that is 1 in a row; empty if all are 0 or unknown, None otherwise."""
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
        Per row; None if the class is unknown.
    meaning
        How all of them were interpreted, to follow the column's name; may be empty.
    unknown
        Texts taken for an unknown class, with their counts.
    wrong_lines
        Lines of rows whose label is no class; they are also among the table's problems.
    """

    names: list[str | None]
    meaning: str = ""
    unknown: Counter[str] = field(default_factory=Counter)
    wrong_lines: set[int] = field(default_factory=set)

    def notes(self, table: object) -> list[str]:
        """Return notes on unknown classes."""
        if not self.unknown:
            return []
        counted = listed(f"{shown(text)} in {count:,} rows" for text, count in self.unknown.items())
        return [f"{table}: labels {counted} were taken for unknown; --classes makes a class of one"]


def class_of_label(label: str) -> str | None:
    """Return the class of a label in the lab's tables: 0 and 1 are hem and all, empty is unknown."""
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
    is_cnmc = _is_cnmc(table, columns, known)
    if not need_classes:
        class_of = {word: class_of_label(word) if is_cnmc else _whole_number(word) or word for word in known}
        labels = Labels([class_of.get(word) for word in words])
    elif is_cnmc:
        labels = _cnmc_labels(table, columns.label[0], words, unknown)
    else:
        labels = _plain_labels(table, columns.label[0], words, known, wanted)
    labels.unknown = Counter({text: count for text, count in unknown.items() if text})
    return labels


def _is_cnmc(table: CsvTable, columns: TableColumns, known: Sequence[str]) -> bool:
    """Whether 0 and 1 are C-NMC's: in the lab's list of files, with C-NMC file names, or beside its classes."""
    if any(plain(word) in CELL_CLASSES for word in known):
        return True
    if _NUMBERED_CLASSES.keys().isdisjoint(known):
        return False
    texts = [posixpath.normpath(text.strip().replace("\\", "/")) for text in table.cells(columns.path)]
    is_lab_list = all(_LAB_PATH.fullmatch(text) for text in texts if text)
    return is_lab_list or all(parse_cell_name(text.rpartition("/")[2]) is not None for text in texts if text)


def _cnmc_labels(table: CsvTable, column: str, words: Sequence[str], unknown: Counter[str]) -> Labels:
    names = [None if word in unknown else class_of_label(word) for word in words]
    has_numbers = not _NUMBERED_CLASSES.keys().isdisjoint(words)
    labels = Labels(names, ", 0 hem and 1 all" if has_numbers else "")
    what = (
        f"column {table.title(column)} is neither 0 (hem) nor 1 (all) as in other rows (write names of classes "
        "everywhere, leave the cell empty where it is unknown)"
    )
    if has_numbers:
        _add_problems(table, labels, [name is not None and plain(name) not in CELL_CLASSES for name in names], what)
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
        _add_problems(table, labels, [word in doubtful and (word in numbers) == few for word in words], what)
    return labels


def _whole_number(word: str) -> str:
    """A whole number as the name of a class, without leading zeros and ``.0``; empty for other texts."""
    match = _WHOLE_NUMBER.fullmatch(word)
    return "" if match is None else str(int(match[1] + match[2]))


def _add_problems(table: CsvTable, labels: Labels, is_wrong: Sequence[bool], what: str) -> None:
    for line, name, wrong in zip(table.lines, labels.names, is_wrong, strict=True):
        if wrong:
            table.problems.add(what, line, shown(name or ""))
            labels.wrong_lines.add(line)


def _one_hot_labels(table: CsvTable, columns: Sequence[str]) -> Labels:
    titles = [table.title(column) for column in columns]
    cells = zip(*(table.words(column) for column in columns), strict=True)
    labels = Labels([], ", one-hot")
    for line, row in zip(table.lines, cells, strict=True):
        name = _one_hot_label(titles, row)
        if name is None:
            table.problems.add(f"columns {', '.join(titles)} are not one 1 and else 0", line, shown(",".join(row)))
            labels.wrong_lines.add(line)
        labels.names.append(name or None)
    return labels
