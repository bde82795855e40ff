from __future__ import annotations

import sys
import types

import pytest

import leukemia_data as ld
import leukemia_models as lm
from leukemia_data.lazy_imports import lazy_names


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("made")
    made.__getattr__, made.__dir__ = lazy_names(
        "made", {"root": "math:sqrt", "calendar": "calendar", "upper": "builtins:str.upper"}, {"old": "made.root"}
    )
    monkeypatch.setitem(sys.modules, "made", made)
    return made


def test_names_are_found_where_they_are(module):
    import calendar
    import math

    assert module.root is math.sqrt
    assert module.calendar is calendar
    assert module.upper is str.upper
    assert dir(module) == ["calendar", "root", "upper"]


def test_what_is_not_there_or_was_renamed_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=r"made\.old is made\.root now"):
        _ = module.old
    with pytest.raises(AttributeError, match="no attribute 'rot'") as caught:
        _ = module.rot
    assert (caught.value.name, caught.value.obj) == ("rot", module)
    assert not hasattr(module, "nothing")


def test_rooms_of_version_0_1_are_refused_with_their_new_names():
    with pytest.raises(AttributeError, match=r"leukemia_data\.recipes is leukemia_data\.operations now"):
        _ = ld.recipes
    with pytest.raises(AttributeError, match=r"leukemia_models\.judging is leukemia_models\.evaluation now"):
        _ = lm.judging
