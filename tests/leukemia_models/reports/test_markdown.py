"""Pieces of Markdown pages."""

from __future__ import annotations

from leukemia_models.reports.style import without_repeats


def test_a_paragraph_that_another_begins_with_is_left_out() -> None:
    assert without_repeats(["Few.", "Few. The same in all.", "Other.", "Few."]) == ["Few. The same in all.", "Other."]
    assert without_repeats([]) == []
