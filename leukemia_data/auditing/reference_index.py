"""Tables of names with SHA-256, a lab's tables, and an index of known images by content."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import subject_order
from leukemia_data.caches.cache import Cache
from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.decoding.decode import decode_rgb, frame_digest, map_in_threads, read_file
from leukemia_data.errors import ImageError, SourceError, UsageError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.csv_table import CsvTable, TableProblems, read_csv_table, shown
from leukemia_data.files.text import formula_safe
from leukemia_data.records.record import (
    CELL_CLASSES,
    GIVEN_SPLITS,
    NO_FOLD,
    UNKNOWN_LABEL,
    ImagePlace,
    Record,
    parse_cell_name,
)
from leukemia_data.sources.listed_file import FileFinder, Finder, ObjectFinder
from leukemia_data.sources.name_words import split_word
from leukemia_data.sources.table_columns import class_of_label

_COLUMNS = ("sha256", "path", "uid_name", "label", "subject", "photo", "part", "fold", "bytes")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUM_BYTES = re.compile(r"[0-9]{1,15}")
_FOLD = re.compile(r"(?:fold)?[_ -]?(\d{1,4})", re.IGNORECASE)
_PHASES = {"prelim": "valid", "preliminary": "valid", "final": "test"}


def read_reference_table(table: Path, argument: int = 0) -> list[AuditImage]:
    """Read a table of names with SHA-256 as images without pixels of the audit's `argument`.

    Raises
    ------
    UsageError
        If there is no such file.
    SourceError
        If it cannot be read, lacks a needed column or has no rows, or a row is wrong (the message names all).
    """
    if not table.exists():
        raise UsageError(f"table of names not found: {table}")
    read = read_csv_table(table, _COLUMNS)
    read.require("sha256", ("path", "uid_name"), guarded=("label", "subject", "part"))
    rows = list(_rows(read, argument))
    read.problems.raise_any()
    return rows


def reference_classes(rows: Iterable[AuditImage]) -> tuple[str, ...]:
    """Return the class names of a table by label: those of C-NMC, otherwise its own in alphabetical order."""
    names = {row.class_name for row in rows if row.class_name}
    return CELL_CLASSES if names <= set(CELL_CLASSES) else tuple(sorted(names))


def _rows(table: CsvTable, argument: int) -> Iterator[AuditImage]:
    """Yield the valid rows; problems of the others are added to the table's."""
    columns = {name: table.words(name) for name in _COLUMNS}
    for number, line in enumerate(table.lines):
        cells = {name: words[number] for name, words in columns.items()}
        problems = list(_row_problems(cells))
        for name, what, detail in problems:
            table.problems.add(f"column {table.title(name)} {what}", line, detail)
        if not problems:
            yield _row(cells, argument)


def _row_problems(cells: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield column, problem and cell text of invalid cells."""
    if not _SHA256.fullmatch(cells["sha256"].lower()):
        yield "sha256", "is not 64 hexadecimal digits", shown(cells["sha256"])
    if not (cells["path"] or cells["uid_name"]):
        yield "path", "is empty", ""
    if cells["part"] and not _split(cells["part"]):
        yield "part", "is none of train, valid (or prelim), test (or final)", shown(cells["part"])
    if cells["fold"] and not _FOLD.fullmatch(cells["fold"]):
        yield "fold", "is not a number or fold_<number>", shown(cells["fold"])
    if cells["bytes"] and not _NUM_BYTES.fullmatch(cells["bytes"]):
        yield "bytes", "is not a number", shown(cells["bytes"])


def _row(cells: Mapping[str, str], argument: int) -> AuditImage:
    names = (cells[column].replace("\\", "/").rsplit("/", 1)[-1] for column in ("uid_name", "path"))
    cell = next(filter(None, map(parse_cell_name, names)), None)
    subject = cells["subject"].upper() if cell is not None else cells["subject"]
    subject = subject or (cell.subject if cell is not None else "")
    photo = cells["photo"] or (str(cell.photo) if cell is not None else "")
    own_class = "" if cell is None else CELL_CLASSES[cell.label]
    fold = _FOLD.fullmatch(cells["fold"])
    return AuditImage(
        name=cells["path"] or cells["uid_name"],
        argument=argument,
        sha256=bytes.fromhex(cells["sha256"]),
        class_name=class_of_label(cells["label"]) or own_class,
        subject=subject,
        photo=f"{subject}/{photo}" if subject and photo else "",
        split=_split(cells["part"]),
        fold=NO_FOLD if fold is None else int(fold[1]),
        size_bytes=int(cells["bytes"]) if cells["bytes"] else -1,
    )


def _split(text: str) -> str:
    return _PHASES.get(text.lower()) or split_word(text) or ""


_LAB_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True, slots=True)
class LabTable(CsvTable):
    """A table with a column ``Path``."""

    path: Path

    @property
    def image_paths(self) -> list[str]:
        """The cells of the column ``Path``."""
        return self._stripped("path")

    @property
    def class_names(self) -> list[str]:
        """The class of each row, or empty; 0 and 1 are hem and all."""
        return [class_of_label(label) or "" for label in self._stripped("label")]

    @property
    def splits(self) -> list[str]:
        """The split of each row: from its cell, or from the table's name."""
        own = split_word(self.path.stem) or ""
        return [(split_word(word) or "") if word else own for word in self._stripped("split")]

    def _stripped(self, column: str) -> list[str]:
        return [cell.strip() for cell in self.cells(column)]


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
    read = read_csv_table(path, _LAB_COLUMNS)
    read.require("path", guarded=_LAB_COLUMNS[1:])
    if "subject" in read.columns:
        raise SourceError(f"{path} has a column {read.title('subject')} already: take it out or rename it first")
    read.words("label")
    for line, text, split in zip(read.lines, read.cells("path"), read.words("split"), strict=True):
        if not text.strip():
            read.problems.add(f"column {read.title('path')} is empty", line)
        if split and split_word(split) is None:
            what = f"column {read.title('split')} is none of {', '.join(GIVEN_SPLITS)}"
            read.problems.add(what, line, shown(split))
    read.problems.raise_any()
    return LabTable(path, read.separator, read.header, read.rows, read.lines, read.problems)


def locate_files(table: LabTable, root: ImagePlace, *, allow_outside: bool = False) -> dict[str, ImagePlace]:
    """Return the file or object for each ``Path`` of a table, existing or not.

    Raises
    ------
    SourceError
        If paths lead out of `root` without `allow_outside`, or may mean two files.
    """
    finder: Finder = FileFinder(root, allow_outside=allow_outside) if isinstance(root, Path) else ObjectFinder(root)
    problems = TableProblems(table.path)
    files: dict[str, ImagePlace] = {}
    for line, text in zip(table.lines, table.image_paths, strict=True):
        try:
            files[text] = finder.find(text).path
        except ValueError as error:
            problems.add(f"column Path {error}", line, shown(text))
    problems.raise_any()
    return files


def write_lab_table(path: Path, table: LabTable, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a table with columns appended, atomically; only added cells are protected from spreadsheets."""
    added = zip(*columns.values(), strict=True)
    # Folder names that are invalid UTF-8 may be subjects.
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, delimiter=table.separator, lineterminator="\n")
        writer.writerow((*table.header, *columns))
        writer.writerows((*row, *map(formula_safe, more)) for row, more in zip(table.rows, added, strict=True))


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image of the reference: name, subject and class; the latter two may be empty."""

    name: str
    subject: str
    class_name: str


@dataclass(frozen=True, slots=True)
class ReferenceIndex:
    """Known images by content: by SHA-256 of the file (32 bytes), and by digest of the decoded pixels (16 bytes)."""

    by_bytes: dict[bytes, list[KnownImage]] = field(default_factory=lambda: defaultdict(list))
    by_pixels: dict[bytes, list[KnownImage]] = field(default_factory=lambda: defaultdict(list))

    @property
    def num_images(self) -> int:
        """Number of images added."""
        return sum(map(len, [*self.by_bytes.values(), *self.by_pixels.values()]))

    def linked_subjects(self) -> list[tuple[str, ...]]:
        """Return sets of subjects that share identical images, transitively; each in natural order."""
        entries = [*self.by_bytes.values(), *self.by_pixels.values()]
        return linked_sets([{image.subject for image in known if image.subject} for known in entries])

    def add_table(self, rows: Iterable[AuditImage]) -> None:
        """Add a table of names."""
        for row in rows:
            self.by_bytes[row.sha256].append(KnownImage(row.name, row.subject, row.class_name))

    def add_cache(self, cache: Cache) -> None:
        """Add the images of a cache, by the digests of its originals."""
        table, classes = cache.table, cache.manifest.classes
        rows = zip(table.id_texts, table.subject_texts, table.labels.tolist(), table.pixel_digests, strict=True)
        for name, subject, label, digest in rows:
            class_name = "" if label == UNKNOWN_LABEL else classes[label]
            self.by_pixels[digest.tobytes()].append(KnownImage(name, subject, class_name))

    def add_files(
        self, records: Sequence[Record], *, num_threads: int = 1, console: Console = NULL_CONSOLE
    ) -> list[str]:
        """Decode and add images; return those that cannot be used, with reasons."""
        digests = map_in_threads(_pixel_digest, [record.path for record in records], num_threads)
        unusable = []
        shown = tracked(digests, console, len(records), "reading the reference")
        for record, digest in zip(records, shown, strict=True):
            if isinstance(digest, bytes):
                class_name = "" if record.label == UNKNOWN_LABEL else CELL_CLASSES[record.label]
                self.by_pixels[digest].append(KnownImage(record.record_id, record.subject, class_name))
            else:
                unusable.append(f"{record.path}: {digest}")
        return unusable


def linked_sets(sets: Iterable[set[str]]) -> list[tuple[str, ...]]:
    """Join overlapping sets; return those of at least two names, in natural order, ordered by first name."""
    joined: list[set[str]] = []
    for names in sets:
        if len(names) > 1:
            touching = [other for other in joined if other & names]
            joined = [other for other in joined if not other & names] + [names.union(*touching)]
    return sorted(
        (tuple(sorted(names, key=subject_order)) for names in joined), key=lambda names: subject_order(names[0])
    )


def _pixel_digest(path: ImagePlace) -> bytes | ImageError:
    try:
        return frame_digest(decode_rgb(read_file(path).data))
    except ImageError as error:
        return error
