from __future__ import annotations

import pytest

from leukemia_data.files.documents import (
    COUNT,
    NUMBER,
    NUMBER_OR_NONE,
    OBJECT,
    OBJECT_OR_NONE,
    TEXT,
    TEXTS,
    WHOLE_NUMBER,
    Kind,
    require_kinds,
)

VALUES = [None, True, 0, 3, -3, 2.5, "x", [], ["a"], ["a", 1], {}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TEXT, ["x"]),
        (TEXTS, [[], ["a"]]),
        (COUNT, [3]),
        (WHOLE_NUMBER, [0, 3, -3]),
        (NUMBER, [0, 3, -3, 2.5]),
        (NUMBER_OR_NONE, [None, 0, 3, -3, 2.5]),
        (OBJECT, [{}]),
        (OBJECT_OR_NONE, [None, {}]),
    ],
)
def test_each_kind_takes_its_own_values_and_no_others(kind: Kind, expected: list[object]) -> None:
    assert [repr(value) for value in VALUES if kind.includes(value)] == [repr(value) for value in expected]


def test_a_wrong_value_is_named_shortly_and_a_missing_one_is_not_checked() -> None:
    require_kinds({"other": 1}, {"size_px": COUNT})
    with pytest.raises(ValueError, match=r"^size_px must be a whole number above 0, got 'a{59}$"):
        require_kinds({"size_px": "a" * 10_000}, {"size_px": COUNT})
