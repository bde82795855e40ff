from __future__ import annotations

import json

import pytest

from leukemia_data.files.documents import parse_json, parse_toml


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"b": {"a": 1, "a": 1}}', "'a' stands twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("1e400", "larger than"),
        ("-1e400", "larger than"),
        (str(2**64), "more than 64 bits"),
        (str(-(2**63) - 1), "more than 64 bits"),
        ("9" * 10_000, "more than 64 bits"),
        ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused_by_value_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_values_are_those_of_the_standard_library() -> None:
    value = {"a": [1, -1, 2**64 - 1, -(2**63), 0.1, 1e308, 5e-324, None, True, "é\udc80\0"], "": {"b": {}}}
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "a = ",
        "a = 1\na = 2",
        "a = " + "9" * 10_000,
        "a = [{b = 0x" + "f" * 10_000 + "}]",
        "a = " + "[" * 100_000,
        "a" + ".a" * 5_000 + " = [",
    ],
)
def test_what_is_no_toml_is_refused_by_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_toml(text)


def test_toml_values_are_those_of_the_standard_library() -> None:
    assert parse_toml('a = [1, 2.5]\n[b]\nc = "é"') == {"a": [1, 2.5], "b": {"c": "é"}}
