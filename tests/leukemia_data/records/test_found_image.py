from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leukemia_data.records.record import printable_name


@given(st.text(alphabet=st.characters(codec=None, categories=None), max_size=30))
def test_names_are_one_line_of_valid_text(name: str) -> None:
    shown = printable_name(name)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    assert printable_name(shown) == shown


@given(st.text(alphabet=st.characters(min_codepoint=0xA0, exclude_categories=["Cf", "Cs", "Zl", "Zp"]), max_size=30))
def test_names_in_any_script_stay_as_they_are(name: str) -> None:
    assert printable_name(name) == name
