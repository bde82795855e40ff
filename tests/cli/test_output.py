from __future__ import annotations

import pytest

from cli.console import format_table
from leukemia_data.files.text import format_bytes


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (7, "7 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (12_345, "12 kB"),
        (538_999_999, "539 MB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (6_490_000_000, "6.5 GB"),
        (2_300_000_000_000, "2.3 TB"),
    ],
)
def test_bytes_read_like_a_person_writes_them(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


def test_table_puts_the_first_column_left_and_the_others_right() -> None:
    table = format_table(["part", "images"], [["all", "1,234"], ["validation", "7"]])
    assert table.splitlines() == [
        "part        images",
        "all          1,234",
        "validation       7",
    ]


def test_table_without_rows_is_its_header() -> None:
    assert format_table(["a", "bc"], []) == "a  bc"


def test_table_lines_do_not_end_in_spaces() -> None:
    assert format_table(["", "x"], [["long name", ""]]).splitlines() == ["           x", "long name"]
