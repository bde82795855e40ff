"""C-NMC's label tables in the formats of several programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.records.record import CellName, parse_cell_name
from leukemia_data.sources.classes import is_label_table, label_key, read_label_tables, require_no_label_table

ROWS = [("UID_57_29_1_all.bmp", "1.bmp", "1"), ("UID_H49_31_1_hem.bmp", "2.bmp", "0")]
HEADER = ("Patient_ID", "new_names", "labels")


def write(path: Path, rows, *, header=HEADER, separator=",", encoding="utf-8", end="\r\n", more="") -> Path:
    text = end.join(separator.join(row) for row in (header, *rows)) + end + more
    path.write_bytes(text.encode(encoding))
    return path


def cells(path: Path) -> dict[str, CellName]:
    found, read = read_label_tables([path])
    assert read == [path]
    return found


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"separator": ";"},
        {"separator": "\t", "end": "\n"},
        {"encoding": "utf-16"},
        {"encoding": "utf-8-sig"},
        {"header": ("PATIENT_ID", "New_Names", " Labels ")},
        {"more": ",,\r\n\r\n , ,\r\n"},
        {"rows": [(*row[:2], f"{row[2]}.0") for row in ROWS]},
        {"rows": [(*row[:2], ("hem", "ALL")[int(row[2])]) for row in ROWS]},
        {"rows": [tuple(cell.removesuffix(".bmp") for cell in row) for row in ROWS]},
        {"rows": [tuple(cell.replace(".bmp", ".png") for cell in row) for row in ROWS]},
        {"header": (*HEADER, ""), "rows": [(*row, "x") for row in ROWS]},
        {"header": ("", *HEADER), "rows": [(str(n), *row) for n, row in enumerate(ROWS)]},
        {"header": HEADER[::-1], "rows": [row[::-1] for row in ROWS]},
        {"rows": [(f" {row[0]} ", *row[1:]) for row in ROWS]},
    ],
)
def test_tables_in_every_format_are_read_alike(tmp_path, form):
    rows = form.pop("rows", ROWS)
    table = write(tmp_path / "labels.csv", rows, **form)
    assert cells(table) == {"1": parse_cell_name(ROWS[0][0]), "2": parse_cell_name(ROWS[1][0])}


@pytest.mark.parametrize(
    ("name", "key"),
    [("1.bmp", "1"), (" 1.PNG ", "1"), ("1", "1"), ("Cell.7.tif", "cell.7"), ("cell.7", "cell.7"), ("1.txt", "1.txt")],
)
def test_names_are_compared_without_an_image_s_ending(name, key):
    assert label_key(name) == key


def test_every_wrong_row_is_reported(tmp_path):
    rows = [*ROWS, ("UID_57_29_1_all.bmp", "3.bmp", "0"), ("x.bmp", "4.bmp", "1"), ("UID_9_1_1_all.bmp", "", "1")]
    table = write(
        tmp_path / "labels.csv", [*rows, ("UID_8_1_1_all.bmp", "1.png", "1"), ("UID_8_1_1_all.bmp", "5", "NA")]
    )
    with pytest.raises(SourceError, match=r"labels\.csv: 5 problems") as caught:
        cells(table)
    assert all(f"line {line}" in str(caught.value) for line in (4, 5, 6, 7, 8))


def test_the_same_row_twice_is_harmless(tmp_path):
    assert len(cells(write(tmp_path / "labels.csv", [*ROWS, *ROWS]))) == 2


def test_other_tables_are_left_alone(tmp_path):
    other = tmp_path / "other.csv"
    other.write_bytes("größe,name\n1,ä\n".encode("latin-1"))
    assert read_label_tables([other]) == ({}, [])
    assert not is_label_table(["Patient_ID", "labels"])
    assert is_label_table(["x", "LABELS", "new_names", "Patient_ID"])


def test_a_label_table_is_no_source(tmp_path):
    with pytest.raises(SourceError, match="give the folder"):
        require_no_label_table(tmp_path / "labels.csv", ["patient_id", "new_names", "labels"])
    require_no_label_table(tmp_path / "cells.csv", ["path", "patient_id", "new_names"])
