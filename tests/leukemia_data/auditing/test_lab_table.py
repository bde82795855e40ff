from __future__ import annotations

import csv
from pathlib import Path

import pytest

from leukemia_data.auditing.reference_index import locate_files, read_lab_table, write_lab_table
from leukemia_data.errors import SourceError, UsageError
from leukemia_data.files.csv_table import read_csv_table


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_everything_but_the_new_columns_stays(tmp_path):
    text = 'note,Path,label\r\n"a, ""b""",./x/ 0.bmp,1\r\n\r\n=1+1,./x/ü.bmp,0\r\n'
    table = read_lab_table(write(tmp_path / "train.csv", text, "utf-8-sig"))
    assert table.image_paths == ["./x/ 0.bmp", "./x/ü.bmp"]
    assert (table.class_names, table.splits) == (["all", "hem"], ["train", "train"])
    assert table.lines == (2, 4)
    out = tmp_path / "out.csv"
    write_lab_table(out, table, {"subject": ["H3", ""], "more": ["", "x"]})
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["note", "Path", "label", "subject", "more"],
        ['a, "b"', "./x/ 0.bmp", "1", "H3", ""],
        ["=1+1", "./x/ü.bmp", "0", "", "x"],
    ]


def test_separator_stays_and_subjects_that_are_formulas_are_protected(tmp_path):
    table = read_lab_table(write(tmp_path / "train.csv", "Path;label\r\n1,5.bmp;1\r\n"))
    write_lab_table(tmp_path / "out.csv", table, {"subject": ["=1+1"]})
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "Path;label;subject\n1,5.bmp;1;'=1+1\n"
    assert read_csv_table(tmp_path / "out.csv", ("path", "subject")).words("subject") == ["=1+1"]


def test_subjects_that_are_no_text_are_written_with_escapes(tmp_path):
    table = read_lab_table(write(tmp_path / "train.csv", "Path\na.bmp\n"))
    write_lab_table(tmp_path / "out.csv", table, {"subject": ["p\udcff"]})
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "Path,subject\na.bmp,p\\udcff\n"


def test_paths_that_lead_out_of_the_root_are_refused(tmp_path):
    table = read_lab_table(write(tmp_path / "train.csv", "Path\na.bmp\n../b.bmp\nc.bmp\n../d.bmp\n"))
    with pytest.raises(SourceError, match=r"2 problems: column Path leads out of .*: line 3 .*line 5"):
        locate_files(table, tmp_path)
    files = locate_files(table, tmp_path, allow_outside=True)
    assert list(files) == ["a.bmp", "../b.bmp", "c.bmp", "../d.bmp"]
    assert files["c.bmp"] == tmp_path / "c.bmp"


def test_split_column_wins_over_the_name(tmp_path):
    table = read_lab_table(write(tmp_path / "valid.csv", "Path,split\na,\nb,test\n"))
    assert (table.splits, table.class_names) == (["valid", "test"], ["", ""])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column Path"),
        ("", "empty"),
        ("Path,label\n", "no rows"),
        ("Path,label\na,1\nb\n", "line 3"),
        ("Path,Subject\na,1\n", "has a column Subject"),
        ("Path,split\na,train\n,later\n", "2 problems: column Path is empty: line 3; column split is none of"),
    ],
)
def test_wrong_tables(tmp_path, text, words):
    with pytest.raises(SourceError, match=words):
        read_lab_table(write(tmp_path / "train.csv", text))


def test_what_is_no_table(tmp_path):
    with pytest.raises(UsageError):
        read_lab_table(tmp_path / "absent.csv")
    with pytest.raises(UsageError):
        read_lab_table(tmp_path)
