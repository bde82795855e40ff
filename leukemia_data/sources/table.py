"""CSV tables of images: the lab's ``Path,label`` and ``Path`` lists and others with a row per image.

A row's id is its path string unchanged, because submissions must repeat it. Without a column of splits, the table's
file name gives the split (``train.csv``, ``resnet_18_test.csv``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leukemia_data.errors import SourceError, listed
from leukemia_data.files.csv_table import CsvTable, shown
from leukemia_data.records.record import (
    CELL_CLASSES,
    GIVEN_SPLITS,
    NO_FOLD,
    CellName,
    FoundImage,
    ImagePlace,
    parse_cell_name,
    printable_name,
)
from leukemia_data.sources.classes import read_table, require_no_label_table
from leukemia_data.sources.kinds import ReadRequest
from leukemia_data.sources.listed_file import FileFinder, Finder, ListedFile, ObjectFinder
from leukemia_data.sources.name_words import (
    is_container,
    is_person,
    is_unknown,
    is_variant,
    plain,
    split_word,
    splits_in,
    subjects_as_numbers,
)
from leukemia_data.sources.reading import CNMC_NAMING, TableFound
from leukemia_data.sources.reading_options import BY_NAME, ReadingOptions, subject_in
from leukemia_data.sources.table_columns import Labels, TableColumns, choose_columns, read_labels
from leukemia_data.sources.tree_folders import EXCLUDED, PartReading, named_splits
from leukemia_data.sources.tree_images import Tree

_MAX_CLASSES = 50
_KNOWN_COLUMNS = ("path", "label", "subject", "split")


class TableImage(NamedTuple):
    """One row of a table.

    Attributes
    ----------
    line
        Line of the file on which the row starts, counted from 1.
    key
        Identifies its file, however its path is written.
    image
        The image and its metadata.
    """

    line: int
    key: str
    image: FoundImage

    def contradictions(self, other: TableImage) -> list[str]:
        """Return the columns in which two rows of one file differ: label, subject, split."""
        if self is other:
            return []
        images = (self.image, other.image)
        mine, theirs = (((image.class_name or "").lower(), image.subject, image.split) for image in images)
        return [column for column, one, another in zip(_KNOWN_COLUMNS[1:], mine, theirs, strict=True) if one != another]


class ImageTable(NamedTuple):
    """The rows of one table, in order, and how they were read.

    Attributes
    ----------
    path
        The table.
    rows
        Without repeated ones.
    part
        The images of `rows`, and how they were read.
    all_rows
        With repeated ones.
    """

    path: ImagePlace
    rows: tuple[TableImage, ...]
    part: PartReading
    all_rows: tuple[TableImage, ...] = ()

    @property
    def images(self) -> list[FoundImage]:
        """The images of `rows`."""
        return self.part.images

    @property
    def notes(self) -> list[str]:
        """What a user should know of the rows."""
        return self.part.notes


def read_image_table(
    table: ImagePlace,
    root: ImagePlace,
    options: ReadingOptions | None = None,
    *,
    allow_outside: bool = False,
    need_classes: bool = True,
    need_files: bool = False,
) -> ImageTable:
    """List the images of one table, including missing files.

    Parameters
    ----------
    table
        CSV file with a header and a column of paths.
    root
        Folder that relative paths start from.
    options, allow_outside
        As for :class:`~leukemia_data.sources.kinds.ReadRequest`.
    need_classes
        Whether the labels become classes, and are therefore compared with each other.
    need_files
        Whether a row that names no file is wrong.

    Raises
    ------
    SourceError
        If the table cannot be read, has no column of paths or no row, rows are wrong (the message names all), or every
        file is missing.
    AmbiguousSourceError
        If several columns may be meant.
    """
    options = options or ReadingOptions()
    read = read_table(table, _KNOWN_COLUMNS)
    require_no_label_table(table, read.columns)
    finder = FileFinder(root, allow_outside=allow_outside) if isinstance(root, Path) else ObjectFinder(root)
    columns = choose_columns(read, options, lambda text: _is_file(finder, text), need_classes=need_classes)
    labels = read_labels(read, columns, options, need_classes=need_classes)
    reader = _RowReader(read, columns, labels, options, finder, missing_from=root if need_files else None)
    rows = list(reader.rows())
    unique = _without_repeated(read, rows)
    read.problems.raise_any()
    _require_files(table, unique, root)
    part = PartReading([row.image for row in unique])
    _describe(part, reader)
    part.notes = [*_notes(table, unique, len(rows) - len(unique)), *reader.notes(), *labels.notes(table)]
    if need_classes and not any(columns.label) and options.class_level is None and "label" not in columns.given:
        part.notes.extend(_folder_notes(table, part.images))
    return ImageTable(table, tuple(unique), part, tuple(rows))


def _require_files(table: ImagePlace, rows: Sequence[TableImage], root: ImagePlace) -> None:
    if not rows:
        raise SourceError(f"{table}: --exclude leaves none of its rows")
    if not any(row.image.state.is_file for row in rows):
        raise SourceError(
            f"{table}: none of its {len(rows):,} files exists, the first is {shown(rows[0].image.record_id)} and "
            f"looked for in {root}; say with --root which folder the paths start from"
        )


def _is_file(finder: Finder, text: str) -> bool:
    try:
        return not finder.find(text).is_missing
    except ValueError:
        return False


class _RowReader:
    """Reads the rows of a table; adds wrong ones to its problems."""

    def __init__(
        self,
        table: CsvTable,
        columns: TableColumns,
        labels: Labels,
        options: ReadingOptions,
        finder: Finder,
        *,
        missing_from: ImagePlace | None = None,
    ) -> None:
        self.table, self.columns, self.labels, self.options = table, columns, labels, options
        self._finder, self._missing_from = finder, missing_from
        empty = [""] * len(table.rows)
        subjects = table.words(columns.subject) if columns.subject else empty
        self._subjects = subjects_as_numbers(subjects, filter(is_unknown, set(subjects)))
        self._splits = table.words(columns.split) if columns.split else empty
        self.table_split = split_word(table.path.stem) or ""
        self.excluded: list[str] = []
        self.patterns: set[str] = set()
        self._folder_split = named_splits(options)
        self._num_other_lists = Counter[str]()

    def rows(self) -> Iterator[TableImage]:
        """Yield the rows of which every cell could be read, without excluded paths."""
        table = self.table
        cells = table.cells(self.columns.path)
        columns = (table.lines, cells, self.labels.names, self._subjects, self._splits)
        for line, text, class_name, subject, split_text in zip(*columns, strict=True):
            path_text = _path_text(text)
            patterns = self.options.excluding(path_text)
            if patterns:
                self.patterns |= patterns
                self.excluded.append(text)
                continue
            num_before = table.problems.count
            split = self._split(line, split_text, path_text)
            file = self._file(line, text)
            if file is None:
                continue
            cell = parse_cell_name(file.path.name)
            if cell is not None and class_name is not None:
                self._compare(line, class_name, cell.label)
            if self.options.class_level is not None and not self.columns.label:
                class_name = self._class_by_level(path_text, cell)
            subject = self._subject(subject, "" if cell is None else cell.subject, path_text, class_name)
            if table.problems.count == num_before and line not in self.labels.wrong_lines:
                image = FoundImage(text, file.path, class_name, subject, split, NO_FOLD, file.state)
                yield TableImage(line, file.key, image)

    def _subject(self, given: str, by_name: str, path_text: str, class_name: str | None) -> str:
        options = self.options
        if options.subject_pattern is not None:
            found = subject_in(options.subject_pattern, path_text)
        elif options.subject_from == "none":
            found = ""
        elif options.subject_from == "name":
            found = by_name
        elif options.subject_from == "folder":
            found = _folder_subject(path_text, class_name)
        else:
            cell = parse_cell_name(given)
            found = cell.subject if cell is not None else ("" if is_unknown(given) else given) or by_name
        return "" if is_unknown(found) else found

    def _class_by_level(self, path_text: str, cell: CellName | None) -> str | None:
        level = self.options.class_level
        if level == BY_NAME or level is None:
            return None if cell is None else CELL_CLASSES[cell.label]
        folders = path_text.split("/")[:-1]
        position = level - 1 if level > 0 else len(folders) + level
        found = printable_name(folders[position]) if 0 <= position < len(folders) else ""
        return None if is_unknown(found) else found

    def _compare(self, line: int, class_name: str, name_label: int) -> None:
        """Report a label that the C-NMC file name contradicts; count labels of another class list."""
        folded = plain(class_name)
        if folded == CELL_CLASSES[1 - name_label]:
            what = f"column {self.table.title(self.columns.label[0])} is not what the file's name says"
            self.table.problems.add(what, line, f"{shown(class_name)}, the name says {CELL_CLASSES[name_label]}")
        elif folded not in CELL_CLASSES:
            self._num_other_lists[f"{class_name} (named {CELL_CLASSES[name_label]})"] += 1

    def _file(self, line: int, text: str) -> ListedFile[ImagePlace] | None:
        title = self.table.title(self.columns.path)
        try:
            file = self._finder.find(text)
        except ValueError as error:
            self.table.problems.add(f"column {title} {error}", line, shown(text) if text.strip() else "")
            return None
        if file.is_missing and self._missing_from is not None:
            what = f"there is no such file (paths start from {self._missing_from}, --root says from where)"
            self.table.problems.add(f"column {title}: {what}", line, shown(text))
        return file

    def _split(self, line: int, text: str, path_text: str) -> str:
        if not text and self._folder_split:
            return self._split_by_folder(plain(path_text).split("/")[:-1])
        if is_unknown(text):
            return "" if text else self.table_split
        split = split_word(text)
        if split is None:
            title = self.table.title(self.columns.split)
            self.table.problems.add(f"column {title} is none of {', '.join(GIVEN_SPLITS)}", line, shown(text))
        return split or ""

    def _split_by_folder(self, folders: Sequence[str]) -> str:
        """The split of the innermost folder in `split_folders`, by its name or its path."""
        for depth in range(len(folders), 0, -1):
            split = self._folder_split.get(folders[depth - 1]) or self._folder_split.get("/".join(folders[:depth]))
            if split:
                return split
        return ""

    def notes(self) -> Iterator[str]:
        """Yield what a user should know of the rows."""
        table = self.table.path
        several = splits_in(table.stem)
        if len(several) > 1 and not self.columns.split:
            yield (
                f"{table}: its name means {', '.join(several)} and no column says which row is what: no split is taken "
                "from it (--split-column)"
            )
        respelled = self._finder.respelled
        if respelled:
            text, spelled = next(iter(respelled.items()))
            example = f"{shown(text)} for {shown(spelled)}"
            yield f"{table}: {len(respelled):,} paths mean files of another spelling, such as {example}"
        if self._num_other_lists:
            counted = listed((f"{text} {count:,}" for text, count in self._num_other_lists.most_common()), most=4)
            yield f"{table}: labels of another kind than in the C-NMC file names: {counted}"
        unknown = Counter(text for text in (*self._subjects, *self._splits) if text and is_unknown(text))
        if unknown:
            yield f"{table}: subjects or splits {listed(unknown)} were taken for unknown"


def _folder_subject(path_text: str, class_name: str | None) -> str:
    """The person among the folders of a path, or the innermost folder that is neither the class nor a split."""
    taken = plain(class_name or "")
    names = [name for name in path_text.split("/")[:-1] if plain(name) != taken and split_word(name) is None]
    rest = [printable_name(name) for name in names if not (is_container(name) or is_variant(name))]
    return next((name for name in rest if is_person(name)), rest[-1] if rest else "")


def _path_text(text: str) -> str:
    """A path string as options compare it: with ``/``, and without ``./`` at its start."""
    return text.strip().replace("\\", "/").removeprefix("./")


def _without_repeated(table: CsvTable, rows: Sequence[TableImage]) -> list[TableImage]:
    """Rows without those that repeat an earlier one; contradictions to an earlier row are reported."""
    first_of: dict[str, TableImage] = {}
    unique: dict[str, TableImage] = {}
    for row in rows:
        first = first_of.setdefault(row.key, row)
        for column in row.contradictions(first):
            what = f"column {table.title(column)} contradicts an earlier row of the same file (keep the right one)"
            table.problems.add(what, row.line, f"{shown(row.image.record_id)} is in line {first.line} too")
        unique.setdefault(row.image.record_id, row)
    return list(unique.values())


def _notes(table: ImagePlace, unique: Sequence[TableImage], num_repeated: int) -> list[str]:
    notes = []
    if num_repeated:
        notes.append(f"{table}: {num_repeated:,} rows repeat an earlier one and count once")
    num_respelled = len(unique) - len({row.key for row in unique})
    if num_respelled:
        notes.append(f"{table}: {num_respelled:,} rows name a file again by another path and count as images")
    return notes


def _folder_notes(table: ImagePlace, images: Sequence[FoundImage]) -> Iterator[str]:
    """Note that the innermost folders of a table without labels could be classes."""
    names = {_path_text(image.record_id).rpartition("/")[0].rpartition("/")[2] for image in images}
    if 1 < len(names) <= _MAX_CLASSES and len(names) < len(images) and all(map(_may_be_class, names)):
        yield (
            f"{table}: no column gives a class, but the images lie in folders {listed(sorted(names), most=6)}: "
            "--class-level -1 makes them classes"
        )


def _may_be_class(name: str) -> bool:
    is_other = any(is_a(name) for is_a in (is_unknown, is_container, is_person, is_variant, split_word))
    return not is_other and not name.isdecimal()


def _describe(part: PartReading, reader: _RowReader) -> None:
    """Describe in `part` how the table was read."""
    table, columns, options = reader.table, reader.columns, reader.options
    name = Path(str(table.path)).name
    read = {"path": table.title(columns.path)}
    if columns.label:
        read["label"] = ", ".join(table.title(column) for column in columns.label)
        part.class_sources = [f"column {read['label']}{reader.labels.meaning}"]
    elif options.class_level is not None:
        by_name = options.class_level == BY_NAME
        part.class_sources = [CNMC_NAMING if by_name else f"folder level {options.class_level}"]
    if columns.subject and options.subject_from is None and options.subject_pattern is None:
        read["subject"] = table.title(columns.subject)
    if columns.split:
        read["split"] = table.title(columns.split)
    taken = {title.strip().lower() for title in (*read.values(), *(table.title(column) for column in columns.label))}
    rest = tuple(title.strip() for title in table.header if title.strip() and title.strip().lower() not in taken)
    part.tables = [TableFound(name=name, read=read, not_read=rest)]
    part.subject_sources = _subject_sources(part.images, table, columns, options)
    for split in dict.fromkeys(image.split for image in part.images if image.split):
        part.split_words[split] = {f"column {read['split']}" if columns.split else f"table {name}": None}
    part.passed_over.patterns |= reader.patterns
    for text in reader.excluded:
        part.passed_over.add(EXCLUDED, text)


def _subject_sources(
    images: Sequence[FoundImage], table: CsvTable, columns: TableColumns, options: ReadingOptions
) -> list[str]:
    if not any(image.subject for image in images):
        return []
    if options.subject_pattern is not None:
        return [f"--subject-pattern {options.subject_pattern}"]
    if options.subject_from is not None:
        return [{"name": CNMC_NAMING, "folder": "folders"}.get(options.subject_from, "")]
    sources = [f"column {table.title(columns.subject)}"] if columns.subject else []
    has_names = any(image.subject and parse_cell_name(image.path.name) is not None for image in images)
    return [*sources, CNMC_NAMING] if has_names else sources


class Tables:
    """CSV tables of images; see :class:`leukemia_data.sources.kinds.SourceKind`."""

    name = "table"
    is_table = True

    def matches(self, place: ImagePlace) -> bool:
        """Return whether this is an existing CSV file."""
        if place.suffix.lower() != ".csv":
            return False
        return place.is_file() if isinstance(place, Path) else place.state() is not None

    def read(self, places: Sequence[Tree], request: ReadRequest) -> list[PartReading]:
        """Read each table by itself, and refuse tables that contradict each other."""
        tables = [
            read_image_table(
                place.root,
                request.root if request.root is not None else place.root.parent,
                request.options,
                allow_outside=request.allow_outside,
                need_classes=request.need_classes,
            )
            for place in places
        ]
        if request.need_classes:
            _check_across(tables)
        return [table.part for table in tables]


TABLES = Tables()


def _check_across(tables: Sequence[ImageTable]) -> None:
    """Refuse tables that contradict each other."""
    first_of: dict[str, tuple[ImageTable, TableImage]] = {}
    contradicted: list[str] = []
    for table in tables:
        for row in table.rows:
            first_table, first = first_of.setdefault(row.key, (table, row))
            columns = row.contradictions(first)
            if columns:
                place = f"{table.path} line {row.line}, {first_table.path} line {first.line}"
                contradicted.append(f"{shown(row.image.record_id)} ({', '.join(columns)}: {place})")
    if contradicted:
        num = len(contradicted)
        raise SourceError(
            f"{'1 file is' if num == 1 else f'{num:,} rows name files that are'} listed twice with different labels, "
            f"subjects or splits: {listed(contradicted, most=5)}"
        )
