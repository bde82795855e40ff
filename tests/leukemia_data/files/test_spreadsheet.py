"""Texts in tables: not computed by spreadsheets, and read back unchanged."""

import pytest

from leukemia_data.files.text import formula_restored, formula_safe

TEXTS = ("=1+1", "+1", "-1", "@SUM(A1)", "\tcell", "\rcell", "'quoted", "''=1", "UID_1_1_1_all.bmp", "", " =1", "1=1")


@pytest.mark.parametrize("text", TEXTS)
def test_a_protected_text_starts_no_formula_and_is_restored(text: str) -> None:
    protected = formula_safe(text)
    assert not protected.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert formula_restored(protected) == text


def test_different_texts_stay_different() -> None:
    assert len({formula_safe(text) for text in TEXTS}) == len(TEXTS)


def test_ordinary_texts_stay_as_they_are() -> None:
    assert formula_safe("fold_0/all/UID_1_1_1_all.bmp") == "fold_0/all/UID_1_1_1_all.bmp"


def test_an_apostrophe_that_protects_nothing_stays() -> None:
    assert formula_restored("'tis.bmp") == "'tis.bmp"
