"""Images to predict, row by row: rows in are rows out, in their order, a repeated one as often as it stands there.

A row of a table keeps its ``Path`` string as it is written. Which file a string means is :attr:`ImageRow.key`,
which is the same for ``./test/1.bmp`` in one list and ``test/1.bmp`` in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from leukemia_data.errors import SourceError, listed
from leukemia_data.files.csv_table import shown
from leukemia_data.records.record import FoundImage, ImagePlace, Record
from leukemia_data.sources.kinds import ReadRequest, kind_of
from leukemia_data.sources.positive_class import composed
from leukemia_data.sources.source import given_names, is_image_file
from leukemia_data.sources.table import TABLES, read_image_table
from leukemia_data.sources.tree import describe_file, describe_object
from leukemia_data.sources.tree_images import Tree


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image to predict, as an argument or a table names it.

    Attributes
    ----------
    record
        Its id (in a table the ``Path`` string, unchanged), place, subject and state; the label is unknown.
    class_name
        The class that its source gives, in the source's words; None where it gives none.
    key
        Which file this is, however its path is written.
    table, line
        The table and the line on which the row starts, counted from 1; None and 0 for what no table names.
    """

    record: Record
    class_name: str | None
    key: str
    table: ImagePlace | None = None
    line: int = 0

    @property
    def place_text(self) -> str:
        """Where it is named, for messages: table, line and path string, or its path."""
        if self.table is None:
            return str(self.record.path)
        return f"{self.table} line {self.line}: {shown(self.record.record_id)}"


def list_image_rows(
    paths: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    need_files: bool = False,
) -> list[ImageRow]:
    """List images to predict: files, folders with or without class folders, and tables, in the order given.

    Parameters
    ----------
    paths
        Image files, folders and ``.csv`` files, of this machine or in a store.
    root
        Where the relative paths of tables start; by default each table's own folder.
    allow_outside
        Take files that a table names outside `root` too.
    need_files
        Whether a row of a table that names no file is wrong, as where each row has to be answered.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, a table cannot be read, or one id means several files.
    """
    names = given_names(paths)
    rows = [
        row
        for path in paths
        for row in _rows_of(path, names.get(path, ()), root, allow_outside=allow_outside, need_files=need_files)
    ]
    _require_one_file_an_id(rows)
    return rows


def list_table_rows(
    table: ImagePlace, root: ImagePlace | None = None, *, allow_outside: bool = False, need_files: bool = False
) -> list[ImageRow]:
    """List the rows of one table, as :func:`list_image_rows` does."""
    start = root if root is not None else table.parent
    read = read_image_table(table, start, allow_outside=allow_outside, need_classes=False, need_files=need_files)
    return [_row(image, key, table, line) for line, key, image in read.all_rows]


def first_of_each_file(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """Return the first row of each file, in order."""
    first: dict[str, ImageRow] = {}
    for row in rows:
        first.setdefault(row.key, row)
    return list(first.values())


def _rows_of(
    path: ImagePlace, given: tuple[str, ...], root: ImagePlace | None, *, allow_outside: bool, need_files: bool
) -> Iterator[ImageRow]:
    if is_image_file(path):
        image = describe_file(path) if isinstance(path, Path) else describe_object(path)
        yield _row(image, file_key(path))
        return
    kind = kind_of(path)
    if kind is TABLES:
        yield from list_table_rows(path, root, allow_outside=allow_outside, need_files=need_files)
        return
    for part in kind.read([Tree(path, given)], ReadRequest(root=root, allow_outside=allow_outside, need_classes=False)):
        yield from (_row(image, file_key(image.path)) for image in part.images)


def _row(image: FoundImage, key: str, table: ImagePlace | None = None, line: int = 0) -> ImageRow:
    record = Record(
        image.record_id,
        image.path,
        subject=composed(image.subject),
        split=image.split,
        fold=image.fold,
        state=image.state,
    )
    return ImageRow(record, image.class_name, key, table, line)


def file_key(place: ImagePlace) -> str:
    """Return which file lies at a place, as ``ListedFile.key`` does: links to folders are followed."""
    if not isinstance(place, Path):
        return str(place)
    return os.path.normcase(f"{_real_folder(str(place.parent))}{place.name}")


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - Path takes the separator away


def _require_one_file_an_id(rows: Sequence[ImageRow]) -> None:
    key_of: dict[str, str] = {}
    denied = {row.record.record_id for row in rows if key_of.setdefault(row.record.record_id, row.key) != row.key}
    if denied:
        raise SourceError(f"{len(denied)} ids mean several files: {listed(sorted(denied))}; predict them apart")
