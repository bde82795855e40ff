"""CSV tables of images: the lab's ``Path,label`` and ``Path`` lists, read as they are.

A row's id is its ``Path`` string unchanged, because submissions must repeat it. A table may also have the columns
``subject`` and ``split``; without the latter its file name says which split it lists (``train.csv``, ``valid.csv``,
``resnet_18_test.csv``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError
from leukemia_data.files.csv_table import CsvTable, parse_csv_table, read_csv_table
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import CELL_CLASSES, GIVEN_SPLITS, ImagePlace, parse_cell_name
from leukemia_data.sources.found_image import FoundImage, split_word
from leukemia_data.sources.listed_file import FileFinder, Finder, ListedFile
from leukemia_data.sources.listed_object import ObjectFinder

_OPTIONAL_COLUMNS = ("label", "subject", "split")
_NUMBERED_CLASSES = {text: CELL_CLASSES[int(float(text))] for text in ("0", "1", "0.0", "1.0")}


@dataclass(frozen=True, slots=True)
class TableImage:
    """One row of a table.

    Attributes
    ----------
    line
        Line of the file on which the row starts, counted from 1.
    key
        Which file it names, however its path is written.
    image
        What it says of the image.
    """

    line: int
    key: str
    image: FoundImage

    def contradictions(self, other: TableImage) -> list[str]:
        """Columns in which two rows of one file say different things of it."""
        mine, theirs = self.image, other.image
        if mine is theirs:
            return []
        pairs = zip(_OPTIONAL_COLUMNS, _meaning(mine), _meaning(theirs), strict=True)
        return [column for column, said, said_before in pairs if said != said_before]


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The rows of one table, in its order; a row that repeats an earlier one is left out and counted."""

    path: ImagePlace
    rows: tuple[TableImage, ...]
    num_repeated: int

    @property
    def images(self) -> list[FoundImage]:
        """The images alone."""
        return [row.image for row in self.rows]

    @property
    def notes(self) -> list[str]:
        """What a user should know of the rows."""
        notes = []
        if self.num_repeated:
            notes.append(f"{self.path}: {self.num_repeated:,} rows repeat an earlier one and count once")
        num_respelled = len(self.rows) - len({row.key for row in self.rows})
        if num_respelled:
            notes.append(f"{self.path}: {num_respelled:,} rows name a file again by another path and count as images")
        return notes


def read_image_table(
    table: ImagePlace, root: ImagePlace, *, allow_outside: bool = False, need_classes: bool = True
) -> ImageTable:
    """List the images of one table; files that do not exist are listed too, as missing.

    Parameters
    ----------
    table
        CSV file with a header that has at least ``Path`` (case does not matter).
    root
        Folder that relative paths start from.
    allow_outside
        Take files outside `root` too, where it is a folder of this machine.
    need_classes
        Whether the labels are to become classes, and are therefore compared with each other.

    Raises
    ------
    SourceError
        If the table cannot be read, has no ``Path`` column or no row, rows are wrong (all are told), or every file
        it names is missing.
    """
    read = _read_table(table, ("path", *_OPTIONAL_COLUMNS))
    if "path" not in read.columns and {"patient_id", "new_names"} <= set(read.columns):
        raise SourceError(f"{table} is a C-NMC label table: give the folder that holds the images instead")
    read.require("path", guarded=_OPTIONAL_COLUMNS)
    words = {name: read.words(name) for name in _OPTIONAL_COLUMNS}
    if need_classes:
        _compare_labels(read, words["label"])
    finder = FileFinder(root, allow_outside=allow_outside) if isinstance(root, Path) else ObjectFinder(root)
    rows = list(_rows(read, words, finder))
    unique = _without_repeated(read, rows)
    read.problems.raise_any()
    if not any(row.image.state.is_file for row in unique):
        raise SourceError(
            f"{table}: none of its {len(unique):,} files exists, the first is {shown(unique[0].image.record_id)} and "
            f"looked for in {root}; say with --root which folder the paths start from"
        )
    return ImageTable(table, tuple(unique), len(rows) - len(unique))


def _read_table(table: ImagePlace, names: Sequence[str]) -> CsvTable:
    return (
        read_csv_table(table, names) if isinstance(table, Path) else parse_csv_table(table, table.read_bytes(), names)
    )


def class_of_label(label: str) -> str | None:
    """0 and 1 are the lab's labels for hem and all, empty means unknown; any other text is a class's name."""
    return _NUMBERED_CLASSES.get(label, label) or None


def _rows(table: CsvTable, words: Mapping[str, Sequence[str]], finder: Finder) -> Iterator[TableImage]:
    """Rows of which every cell could be read; all that is wrong with the others is told."""
    table_split = split_word(table.path.stem) or ""
    columns = (table.lines, table.cells("path"), *(words[name] for name in _OPTIONAL_COLUMNS))
    for line, text, label, subject, split_text in zip(*columns, strict=True):
        num_before = table.problems.count
        split = _split(table, line, split_text) if split_text else table_split
        file = _file(table, line, text, finder)
        class_name = class_of_label(label)
        cell = parse_cell_name(file.path.name) if file is not None else None
        if cell is not None and class_name is not None and class_name.lower() == CELL_CLASSES[1 - cell.label]:
            what = f"column {table.title('label')} is not what the file's name says"
            table.problems.tell(what, line, f"{shown(label)}, the name says {CELL_CLASSES[cell.label]}")
        if file is not None and table.problems.count == num_before:
            image = FoundImage(
                record_id=text,
                path=file.path,
                class_name=class_name,
                subject=subject or (cell.subject if cell is not None else ""),
                split=split,
                state=file.state,
            )
            yield TableImage(line, file.key, image)


def _file(table: CsvTable, line: int, text: str, finder: Finder) -> ListedFile[ImagePlace] | None:
    try:
        return finder.find(text)
    except ValueError as error:
        table.problems.tell(f"column {table.title('path')} {error}", line, shown(text) if text.strip() else "")
        return None


def _split(table: CsvTable, line: int, text: str) -> str:
    split = split_word(text)
    if split is None:
        table.problems.tell(f"column {table.title('split')} is none of {', '.join(GIVEN_SPLITS)}", line, shown(text))
    return split or ""


def _compare_labels(table: CsvTable, labels: Sequence[str]) -> None:
    """Tell labels that can be no class beside the others: names beside 0 and 1, and names in another case."""
    spellings: dict[str, str] = {}
    for name in map(class_of_label, dict.fromkeys(labels)):
        if name is not None:
            spellings.setdefault(name.lower(), name)
    if spellings.keys() <= set(CELL_CLASSES):
        return
    has_numbers = not _NUMBERED_CLASSES.keys().isdisjoint(labels)
    title = table.title("label")
    for line, label in zip(table.lines, labels, strict=True):
        name = class_of_label(label)
        if name is None:
            continue
        if has_numbers and name.lower() not in CELL_CLASSES:
            what = (
                f"column {title} is neither 0 (hem) nor 1 (all) as in other rows (write names of classes everywhere, "
                "leave the cell empty where it is unknown)"
            )
            table.problems.tell(what, line, shown(name))
        elif spellings[name.lower()] != name:
            what = f"column {title} differs from other rows in its case alone"
            table.problems.tell(what, line, f"{shown(name)}, before {shown(spellings[name.lower()])}")


def _without_repeated(table: CsvTable, rows: Sequence[TableImage]) -> list[TableImage]:
    """Rows without those that say again what an earlier one says; rows that contradict an earlier one are told."""
    first_of: dict[str, TableImage] = {}
    unique: dict[str, TableImage] = {}
    for row in rows:
        first = first_of.setdefault(row.key, row)
        for column in row.contradictions(first):
            what = f"column {table.title(column)} contradicts an earlier row of the same file (keep the right one)"
            table.problems.tell(what, row.line, f"{shown(row.image.record_id)} is in line {first.line} too")
        unique.setdefault(row.image.record_id, row)
    return list(unique.values())


def _meaning(image: FoundImage) -> tuple[str, str, str]:
    """Values of the optional columns as they are compared."""
    return (image.class_name or "").lower(), image.subject, image.split
