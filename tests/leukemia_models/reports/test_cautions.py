"""Cautions: one line each, without repetition, the most important first."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.reports.results import (
    ORDER,
    Caution,
    SplitCounts,
    SplitSummary,
    cautions_of_parts,
    sorted_cautions,
    split_cautions,
)

EVERYTHING = LeakCheck(
    shared_subjects=1,
    shared_images=2,
    unknown_subjects=3,
    doubtful_subjects=4,
    contradictory_images=5,
    alike_subjects=6,
    start_subjects=7,
    start_images=8,
    unknown_start=1,
    start_namesakes=9,
)
DOUBTS = {"unknown_start", "start_namesakes"}
"""Counts that prove nothing."""
LONGEST_LINE = 200


def summary(leaks: LeakCheck, subjects: tuple[int, int] | None) -> SplitSummary:
    return SplitSummary("subject", leaks, "test", {"test": SplitCounts((30, 60), subjects)})


def test_each_kind_comes_once_and_in_one_line() -> None:
    found = sorted_cautions(list(split_cautions(summary(EVERYTHING, (2, 3)), ("hem", "all"))))
    kinds = [caution.kind for caution in found]
    assert kinds == ["mixed", "started", "labels", "unknown", "origin", "namesakes", "doubtful", "alike", "few"]
    assert kinds == sorted(set(kinds), key=ORDER.index)
    assert all(len(caution.text) <= LONGEST_LINE and "\n" not in caution.text for caution in found)
    assert list(split_cautions(summary(LeakCheck(0, 0, 0), (10, 10)), ("hem", "all"))) == []


@pytest.mark.parametrize("name", [field.name for field in fields(LeakCheck) if field.name != "subjects_from"])
def test_no_count_of_a_split_that_is_not_disjoint_stays_unsaid(name: str) -> None:
    leaks = replace(LeakCheck(0, 0, 0), **{name: 1})
    assert leaks.is_disjoint == (name in DOUBTS)
    assert list(split_cautions(summary(leaks, (10, 10)), ("hem", "all")))


def test_parts_have_the_same_cautions() -> None:
    few = {"valid": [Caution("few", "Few: 2.")], "test": [Caution("few", "Few: 3."), Caution("mixed", "Mixed.")]}
    # The numbers are those of the test part, which stands last.
    assert cautions_of_parts(few) == ["test: Mixed.", "Few: 3."]
    several = {part: [Caution("other", "One."), Caution("other", "Two.")] for part in ("valid", "test")}
    assert cautions_of_parts(several) == ["One.", "Two."]
    assert cautions_of_parts({"test": [Caution("few", "Few.")]}) == ["Few."]
    assert cautions_of_parts({}) == []
