"""CSV tables of images: the lab's ``Path,label`` and ``Path`` lists, read as they are.

A row's id is its ``Path`` string unchanged, because submissions must repeat it. A table may also have the columns
``subject`` and ``split``; without the latter its file name says which split it lists (``train.csv``, ``valid.csv``,
``resnet_18_test.csv``).
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from leukemia_data.errors import SourceError, listed
from leukemia_data.samples.record import CELL_CLASSES, GIVEN_SPLITS, CellName, parse_cell_name
from leukemia_data.sources.found_image import FoundImage, split_word


def read_table_images(table: Path, root: Path) -> list[FoundImage]:
    """List the images of one table; files that do not exist are listed too, as missing.

    Parameters
    ----------
    table
        CSV file with a header that has at least ``Path`` (case does not matter).
    root
        Folder that relative paths start from.

    Raises
    ------
    SourceError
        If the table has no ``Path`` column or no row, a row is wrong (all wrong rows are told), or every file it
        names is missing.
    """
    rows = read_rows(table)
    table_split = split_word(table.stem) or ""
    problems: list[str] = []
    images: list[FoundImage] = []
    for line, row in rows:
        try:
            images.append(_image(row, root, table_split))
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise SourceError(f"{table}: {listed(problems, separator='; ')}")
    if all(image.size_bytes < 0 for image in images):
        raise SourceError(
            f"{table}: none of its {len(images)} files exists, the first is looked for at {images[0].path}; "
            "say with --root which folder the paths start from"
        )
    return images


def read_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the line it ends in and its values by column name in lower case.

    Raises
    ------
    SourceError
        If the table cannot be read, or has no ``Path`` column or no row.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
            if "path" not in columns.values():
                if {"patient_id", "new_names"} <= set(columns.values()):
                    raise SourceError(f"{table} is a C-NMC label table: give the folder that holds the images instead")
                raise SourceError(f"{table} has no column Path; its header is {','.join(columns) or 'empty'}")
            rows = [
                (reader.line_num, {columns[name]: value for name, value in row.items() if name in columns})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table} cannot be read as CSV: {error}") from error
    if not rows:
        raise SourceError(f"{table} has a header but no rows")
    return rows


def _image(row: Mapping[str, str | None], root: Path, table_split: str) -> FoundImage:
    text = row.get("path") or ""
    if not text.strip():
        raise ValueError("Path is empty")
    path = root / text.strip()
    cell = parse_cell_name(path.name)
    class_name = _class_name(row.get("label"))
    if cell is not None and class_name is not None and _denies(class_name, cell):
        raise ValueError(f"label is {class_name}, but the file name says {CELL_CLASSES[cell.label]}")
    size_bytes, mtime_ns = _status(path)
    return FoundImage(
        record_id=text,
        path=path,
        class_name=class_name,
        subject=(row.get("subject") or "").strip() or (cell.subject if cell is not None else ""),
        split=_split(row.get("split"), table_split),
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
    )


def _class_name(text: str | None) -> str | None:
    """0 and 1 are the lab's labels for hem and all; any other text is a class's name."""
    label = (text or "").strip()
    if not label:
        return None
    return CELL_CLASSES[int(label)] if label in ("0", "1") else label


def _denies(class_name: str, cell: CellName) -> bool:
    name = class_name.lower()
    return name in CELL_CLASSES and name != CELL_CLASSES[cell.label]


def _split(text: str | None, table_split: str) -> str:
    word = (text or "").strip()
    if not word:
        return table_split
    split = split_word(word)
    if split is None:
        raise ValueError(f"split is {word!r}, known are {', '.join(GIVEN_SPLITS)}")
    return split


def _status(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a third faster than Path.stat over ten thousand rows
    except (OSError, ValueError):
        return -1, -1
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, -1)
