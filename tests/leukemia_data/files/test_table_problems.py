from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.files.csv_table import TableProblems, shown


def test_problems_are_reported_by_kind_with_their_first_lines():
    problems = TableProblems(Path("train.csv"))
    problems.raise_any("never told")
    for line in range(2, 1009):
        problems.add("column Path is empty", line)
    problems.add("column label is odd", 9, "'x'")
    with pytest.raises(SourceError) as caught:
        problems.raise_any("mend it")
    assert str(caught.value) == (
        "train.csv: 1,008 problems: column Path is empty: line 2, line 3, line 4, line 5, line 6 (and 1,002 more); "
        "column label is odd: line 9 ('x'); mend it"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [("a.bmp", "'a.bmp'"), ("a\nb\x1b[2J", "'a\\nb\\x1b[2J'"), ("x" * 81, f"'{'x' * 80}...'"), ("\u202e", "'\\u202e'")],
)
def test_texts_are_shown_on_one_short_line(text, told):
    assert shown(text) == told
