"""CSV tables in the formats of common programs."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.files import csv_table as table_text
from leukemia_data.files.csv_table import CsvTable, read_csv_table

NAMES = ("path", "label")


def read(folder: Path, content: str | bytes) -> CsvTable:
    path = folder / "t.csv"
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return read_csv_table(path, NAMES)


def read_whole(folder: Path, content: str | bytes) -> CsvTable:
    table = read(folder, content)
    table.require("path", guarded=("label",))
    table.problems.raise_any()
    return table


def refusal(folder: Path, content: str | bytes) -> str:
    with pytest.raises(SourceError) as caught:
        read_whole(folder, content)
    message = str(caught.value)
    assert message.startswith(str(folder / "t.csv"))
    assert message.isprintable()
    return message.removeprefix(str(folder / "t.csv"))


TEXT = "Path,label\r\n./ü/1.bmp,0\r\n./2.bmp,1\r\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\r\n", "\n"),
        TEXT.replace("\r\n", "\r"),
        TEXT.replace("\r\n", "\n").removesuffix("\n"),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.replace(",", "\t").encode("utf-16-be"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        '"Path";"label"\n"./ü/1.bmp";"0"\n"./2.bmp";"1"\n',
        TEXT.replace("Path,label", "Path,label,,").replace("0\r", "0,,\r"),
    ],
    ids=["crlf", "lf", "cr", "no end", "bom", "utf-16", "utf-16 be tabs", "semicolons", "tabs", "quotes", "wide"],
)
def test_one_table_however_it_is_written(tmp_path, content):
    table = read_whole(tmp_path, content)
    assert table.cells("path") == ["./ü/1.bmp", "./2.bmp"]
    assert table.words("label") == ["0", "1"]
    assert table.lines == (2, 3)


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("Path;remark (a, b, c)\n1,5.bmp;x\n", ["1,5.bmp"]),
        ("Path\na;b.bmp\n", ["a;b.bmp"]),
        ('Path,remark\n"a,b.bmp",x\n', ["a,b.bmp"]),
        ('Path,remark\n"say ""a"".bmp",x\n', ['say "a".bmp']),
        ("sep=;\r\nPath;remark, more\r\na,b.bmp;x\r\n", ["a,b.bmp"]),
    ],
    ids=["commas in the header", "one column", "quoted", "doubled quotes", "separator line"],
)
def test_separators_within_cells(tmp_path, content, cells):
    assert read(tmp_path, content).cells("PATH".lower()) == cells


def test_lines_are_those_of_the_file(tmp_path):
    table = read(tmp_path, '\n\nPath,label\n\n"a\nb.bmp",1\n,\n   \nc.bmp,0\n\n')
    assert (table.cells("path"), table.lines) == (["a\nb.bmp", "c.bmp"], (5, 9))
    assert read(tmp_path, "sep=,\nPath\na\n").lines == (3,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty", "Path"]),
        (b"\n  \n\n", ["is empty", "Path"]),
        ("Path,label\n", ["a header but no rows"]),
        ("Path,label\n,\n", ["a header but no rows"]),
        ("Paths,label\na,1\n", ["no column Path (is it Paths? rename it)", "its columns are Paths, label"]),
        ("Path,Labels\na,1\n", ["the column Labels is not read: rename it to label"]),
        ("Path,label,PATH \na,1,b\n", ["the column Path is there twice"]),
        ("Paht,label,label\na,1,1\n", ["no column Path (is it Paht?", "the column label is there twice"]),
        ("a|b\n1|2\n", ["no column Path", "its columns are a|b"]),
        ("\x1b[2J\nx\n", ["its columns are \\x1b[2J"]),
        ("Path,label\na,1\nb\nc,1,x\nd,0,,\n", ["2 problems", "the header's 2: line 3 (1 cell), line 4 (3 cells)"]),
        ('Path,label\n"a,1\nb,0\n', [": line 2:", "quote"]),
        ('Path,label\na,1\n"b"x,0\n', [": line 3:", "quote"]),
        ('Path\tlabel\n"b"x\t0\n', [": line 2:", "'tab' expected after"]),
        ("Path\nä\nb\nö\n".encode("cp1252"), ["not UTF-8: line 2 (byte 1", "is 0xe4), line 4", "CSV UTF-8"]),
        ("Path\r1\rä\r".encode("latin-1"), ["line 3 (byte 1 of the line is 0xe4)"]),
        (b"Path,label\na,1\nb\0c,1\n", ["a NUL byte: line 3 (at character 2)"]),
        (TEXT.encode("utf-16-le"), ["UTF-16 without its mark"]),
        (codecs.BOM_UTF16_LE + b"P\0a", ["damaged UTF-16 at byte"]),
        (TEXT.encode("utf-32"), ["is UTF-32"]),
        (b"PK\x03\x04rest", ["is a workbook"]),
        ("Path,label\n" + "x" * 200_000 + ",1\n", ["line 2", "field larger"]),
    ],
)  # fmt: skip
def test_problems_are_reported_with_lines(tmp_path, content, words):
    message = refusal(tmp_path, content)
    assert [word for word in words if word not in message] == [], message


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    for name in ("", "absent.csv"):
        with pytest.raises(SourceError, match=r"no regular file|cannot be read"):
            read_csv_table(tmp_path / name, NAMES)
    monkeypatch.setattr(table_text, "MAX_TABLE_BYTES", 20)
    with pytest.raises(SourceError, match="larger than 20 bytes"):
        read(tmp_path, TEXT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match="no regular file"):
        read_csv_table(tmp_path / "pipe.csv", NAMES)
