from __future__ import annotations

import csv
from pathlib import Path

import pytest

from leukemia_data.auditing.lab_table import read_lab_table, write_lab_table
from leukemia_data.errors import SourceError, UsageError


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
