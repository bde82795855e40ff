"""Subjects in several spellings."""

from __future__ import annotations

import pytest

from leukemia_data.sources.name_words import alike_subjects, subjects_as_numbers


@pytest.mark.parametrize(
    "names",
    [
        ("P1", "p1"),
        ("Patient 01", "patient_1"),
        ("01", "1", "1.0"),
        ("Mary-Jane", "mary jane"),
        ("A 007", "a7", "a_7.0"),
        ("Jos\u00e9", "Jose\u0301"),
        ("x-0", "x00"),
    ],
)
def test_one_person_in_several_ways(names):
    assert alike_subjects([*names, "other", "", *names]) == [tuple(sorted(names))]


@pytest.mark.parametrize("names", [("1", "H1"), ("1_2", "12"), ("p1", "p10"), ("1", "1.5"), ("", ""), ("--", "?")])
def test_different_people(names):
    assert alike_subjects(names) == []


def test_a_column_of_numbers_loses_what_programs_add():
    assert subjects_as_numbers(["1.0", "2.", "10", ""]) == ["1", "2", "10", ""]
    assert subjects_as_numbers(["1.0", "007", "nan"], ["nan"]) == ["1", "007", "nan"]
    for texts in (["1.0", "H1"], ["1.5", "2.0"], ["nan", "1.0"]):
        assert subjects_as_numbers(texts) == texts
