"""Tables of images in the dialects that spreadsheets and scripts write, beside the folders of their images."""

from __future__ import annotations

import csv
import io
import unicodedata
from typing import Literal

from .draft import Draft
from .layout import Cell
from .table_rows import (
    Columns,
    draw_classes,
    draw_splits,
    draw_subjects,
    hide_some_labels,
    hide_some_subjects,
    label_columns,
    more_columns,
    subject_column,
)

PLAIN_PATHS = frozenset({"Path", "path", "filename", "filepath"})
_NAMES = {
    "plain": "labels",
    "train": "train",
    "test with other words": "resnet_18_test",
    "train_val_test": "train_val_test",
}
_FILE_SPLITS = {"train": "train", "test with other words": "test"}
_LINE_ENDS = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}


def compose_table(draft: Draft) -> None:
    """Draw one table or two, and their images, into an empty draft."""
    given = draft.pick("given")
    classes = draw_classes(draft)
    columns, cells = _rows(draft, classes, [draft.rng.choice(classes) for _ in range(draft.rng.randint(12, 48))])
    if given == "two tables":
        half = len(cells) // 2
        names = ("train", "test") if draft.rng.random() < 0.5 else ("part1", "part2")
        file_splits = ("train", "test") if names[0] == "train" else (None, None)
        _write(draft, names[0], {t: c[:half] for t, c in columns.items()}, cells[:half], file_splits[0])
        _write(draft, names[1], {t: c[half:] for t, c in columns.items()}, cells[half:], file_splits[1])
        draft.sources = [f"given/{name}.csv" for name in names]
        return
    name = draft.pick("table name")
    if name == "train_val_test" and draft.choices["split title"] == "none":
        draft.doubt("a file name of three splits")
    _write(draft, _NAMES[name], columns, cells, _FILE_SPLITS.get(name))
    draft.sources = [f"given/{_NAMES[name]}.csv"]
    if given == "folder":
        draft.sources = ["given"]
        draft.doubt("a folder with a table in it")
        draft.refusable_by.append(f"{_NAMES[name]}.csv")
        draft.are_subjects_given = False
        # Options speak of the source, which is the folder here.
        draft.options = {}


def _rows(draft: Draft, classes: list[str], drawn: list[str]) -> tuple[Columns, list[Cell]]:
    """Columns of all rows, and the cells that they tell of."""
    folders = _draw_folders(draft, classes)
    truth: list[str | None] = [true if draft.choices["labels"] != "none" else None for true in drawn]
    names = _file_names(draft, drawn, folders)
    columns = label_columns(draft, classes, truth)
    if folders == "names of cells":
        truth, subjects = _told_by_names(draft, drawn, names)
    else:
        subjects = hide_some_subjects(draft, draw_subjects(draft, truth))
        columns |= subject_column(draft, subjects)
        truth = hide_some_labels(draft, truth, columns)
    split_column, splits = draw_splits(draft, subjects if folders != "names of cells" else [None] * len(drawn))
    columns = {_path_title(draft): _written_paths(draft, names), **columns, **split_column}
    columns |= more_columns(draft, len(drawn))
    cells = [
        Cell(f"given/{name}", true, subject, split)
        for name, true, subject, split in zip(names, truth, subjects, splits, strict=True)
    ]
    return _reordered(draft, columns), cells


def _draw_folders(draft: Draft, classes: list[str]) -> str:
    """Where the images lie; folders of classes and C-NMC's names only where nothing contradicts them."""
    impossible = []
    if draft.choices["labels"] in ("none", "names in two cases") or draft.choices["given"] == "folder":
        impossible += ["by class", "names of cells"]
    if draft.choices["labels"] not in ("0 and 1", "one-hot", "names") or sorted(classes) not in (
        ["0", "1"],
        ["all", "hem"],
    ):
        impossible.append("names of cells")
    return draft.pick("folders of images", unless=impossible)


def _file_names(draft: Draft, drawn: list[str], folders: str) -> list[str]:
    """Paths of the images below the table's folder."""
    stem = "Zelle_ä" if draft.rng.random() < 0.5 else "img"
    prefix = {"one": "images/", "none": "", "names of cells": "cells/"}.get(folders)
    paths = [f"{prefix if prefix is not None else f'{true}/'}{stem}_{n}.png" for n, true in enumerate(drawn, 1)]
    return [unicodedata.normalize("NFD", path) for path in paths] if stem != "img" else paths


def _told_by_names(draft: Draft, drawn: list[str], names: list[str]) -> tuple[list[str | None], list[str | None]]:
    """Give the images C-NMC's names, which agree with the labels and tell class and subject."""
    truth: list[str | None] = [("hem", "all")[int(true)] if true in "01" else true for true in drawn]
    subjects: list[str | None] = [f"{'H' * (true == 'hem')}{n % 3 + 1}" for n, true in enumerate(truth)]
    names[:] = [f"cells/UID_{s}_{n}_1_{t}.bmp" for n, (s, t) in enumerate(zip(subjects, truth, strict=True), 1)]
    draft.are_subjects_given = True
    return truth, subjects


def _path_title(draft: Draft) -> str:
    title = draft.pick("path title")
    draft.options["path_column"] = title
    if title not in PLAIN_PATHS:
        draft.doubt(f"path column {title}")
    return title


def _written_paths(draft: Draft, names: list[str]) -> list[str]:
    """Paths as the table writes them."""
    composed = [unicodedata.normalize("NFC", name) for name in names]
    is_spelled_alike = composed == names
    form = draft.pick("paths", unless=["nfc for nfd"] if is_spelled_alike else [])
    if form not in ("plain", "dot", "backslashes"):
        draft.doubt(f"paths: {form}")
        draft.refusable_by += [name.rpartition("/")[2].rpartition(".")[0] for name in (*composed, *names)]
        draft.refusable_by += [name.lower() for name in draft.refusable_by] + [
            name.upper() for name in draft.refusable_by
        ]
    return [_written_path(name, nfc, form) for name, nfc in zip(names, composed, strict=True)]


def _written_path(name: str, composed: str, form: str) -> str:
    folder, _, file = name.rpartition("/")
    match form:
        case "dot":
            return f"./{name}"
        case "backslashes":
            return name.replace("/", "\\")
        case "nfc for nfd":
            return composed
        case "without endings":
            return name.rpartition(".")[0]
        case "other case":
            return f"{folder}/{file.upper()}".lstrip("/")
        case "names only":
            return file
        case _:
            return name


def _reordered(draft: Draft, columns: Columns) -> Columns:
    titles = list(columns)
    if draft.pick("column order") == "any":
        draft.rng.shuffle(titles)
    return {title: columns[title] for title in titles}


def _write(draft: Draft, stem: str, columns: Columns, cells: list[Cell], file_split: str | None) -> None:
    """Write a table, and its cells: a column of splits counts more than the file's name."""
    has_column = draft.choices["split title"] != "none"
    draft.cells += [Cell(c.path, c.class_name, c.subject, c.split if has_column else file_split) for c in cells]
    draft.files[f"given/{stem}.csv"] = _table_bytes(draft, columns)


def _table_bytes(draft: Draft, columns: Columns) -> bytes:
    separator = draft.pick("separator")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if draft.pick("quoting") == "all" else csv.QUOTE_MINIMAL
    end = _LINE_ENDS[draft.pick("line end")]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if separator == "tab" else separator, quoting=quoting, lineterminator=end)
    writer.writerow(columns)
    rows = list(zip(*columns.values(), strict=True))
    has_blanks = draft.pick("blank lines") == "some"
    for number, row in enumerate(rows):
        if has_blanks and number % 5 == 4:
            text.write(end)
        writer.writerow(row)
    return text.getvalue().encode(draft.pick("encoding"))
