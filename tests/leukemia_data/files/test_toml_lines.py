from __future__ import annotations

import tomllib

import pytest

from leukemia_data.files.documents import find_line

TEXT = '''\
# a comment with epochs = 3
name = "two stages"
description = """
epochs = 1
[[stage]]
"""

[[stage]]
name = "small"
epochs = 550

[stage.optimizer]
name = "sgd"
lr = 0.005

[[stage]]   # the second
name = "large"
"epochs" = 20
schedule.name = "cosine"
optimizer = { name = "adamw", lr = 1 }
text = \'\'\'one line\'\'\'

[judging]
tta = "d4"
'''


def line_of(part: str) -> int:
    [number] = [n for n, line in enumerate(TEXT.splitlines(), 1) if line == part]
    return number


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 'name = "two stages"'),
        (("stage", 0, "epochs"), "epochs = 550"),
        (("stage", 0, "optimizer", "lr"), "lr = 0.005"),
        (("stage", 0, "optimizer"), "[stage.optimizer]"),
        (("stage", 0, "optimizer", "absent"), "[stage.optimizer]"),
        (("stage", 1), "[[stage]]   # the second"),
        (("stage", 1, "epochs"), '"epochs" = 20'),
        (("stage", 1, "schedule", "name"), 'schedule.name = "cosine"'),
        (("stage", 1, "optimizer", "lr"), 'optimizer = { name = "adamw", lr = 1 }'),
        (("stage", 1, "batch_size"), "[[stage]]   # the second"),
        (("judging", "tta"), 'tta = "d4"'),
    ],
)
def test_keys_are_found_where_they_stand(path, line):
    tomllib.loads(TEXT)
    assert find_line(TEXT, path) == line_of(line)


def test_a_key_that_is_nowhere_has_no_line():
    assert find_line(TEXT, ("model",)) is None
    assert find_line("", ("model",)) is None


def test_nested_arrays_of_tables_count_within_their_entry():
    text = "[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]\nx = 3\n"
    assert find_line(text, ("a", 0, "b", 1, "x")) == 5
    assert find_line(text, ("a", 1, "b", 0, "x")) == 8
