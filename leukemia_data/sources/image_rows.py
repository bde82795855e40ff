"""Images to predict, row by row: each row of a table gives one row, in order, repeated ones included.

A row of a table keeps its ``Path`` string. :attr:`ImageRow.key` identifies the file: it is the same for
``./test/1.bmp`` in one list and ``test/1.bmp`` in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from leukemia_data.errors import SourceError, listed
from leukemia_data.files.csv_table import shown
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.sources.classes import as_record
from leukemia_data.sources.kinds import ReadRequest, kind_of
from leukemia_data.sources.source import given_names, images_of, is_image_file
from leukemia_data.sources.table import TABLES, read_image_table


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image to predict, as given by an argument or a table.

    Attributes
    ----------
    record
        Its id (in a table the ``Path`` string, unchanged), place, subject and state; the label is unknown.
    class_name
        The class that its source gives, or None.
    key
        Identifies the file, however its path is written.
    table, line
        The table and the line on which the row starts, counted from 1; None and 0 if it is in no table.
    """

    record: Record
    class_name: str | None
    key: str
    table: ImagePlace | None = None
    line: int = 0

    @property
    def place_text(self) -> str:
        """Its place for messages: table, line and path string, or its path."""
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
    root, allow_outside
        As for :class:`~leukemia_data.sources.kinds.ReadRequest`.
    need_files
        Whether a row of a table that names no file is an error.

    Raises
    ------
    UsageError
        If a path is no folder, CSV table or image file.
    SourceError
        If there are no images, a table cannot be read, or one id means several files.
    """
    names = given_names(paths)
    request = ReadRequest(root=root, allow_outside=allow_outside, need_classes=False)
    rows: list[ImageRow] = []
    for path in paths:
        if not is_image_file(path) and kind_of(path) is TABLES:
            rows.extend(list_table_rows(path, root, allow_outside=allow_outside, need_files=need_files))
        else:
            images = images_of(path, names.get(path, ()), request)
            rows.extend(ImageRow(as_record(image), image.class_name, file_key(image.path)) for image in images)
    _require_one_file_an_id(rows)
    return rows


def list_table_rows(
    table: ImagePlace, root: ImagePlace | None = None, *, allow_outside: bool = False, need_files: bool = False
) -> list[ImageRow]:
    """List the rows of one table, as :func:`list_image_rows` does."""
    start = root if root is not None else table.parent
    read = read_image_table(table, start, allow_outside=allow_outside, need_classes=False, need_files=need_files)
    return [ImageRow(as_record(image), image.class_name, key, table, line) for line, key, image in read.all_rows]


def first_of_each_file(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """Return the first row of each file, in order."""
    first: dict[str, ImageRow] = {}
    for row in rows:
        first.setdefault(row.key, row)
    return list(first.values())


def file_key(place: ImagePlace) -> str:
    """Return what identifies the file at a place, as ``ListedFile.key`` does: links to folders are followed."""
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
