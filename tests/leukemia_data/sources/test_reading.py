"""Readings: stored, shown and compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukemia_data.sources.positive_class import PositiveClass, known_positive
from leukemia_data.sources.reading import (
    FrameFinding,
    FramesFound,
    NotRead,
    Reading,
    SplitFound,
    SubjectsFound,
    TableFound,
    differences,
)
from leukemia_data.sources.reading_options import ReadingOptions

text = st.text(st.characters(exclude_categories=["C"]), max_size=8)
count = st.integers(0, 10**7)


def many(items):
    return st.lists(items, max_size=4).map(tuple)


share = st.floats(0, 1)
readings = st.builds(
    Reading,
    options=st.builds(ReadingOptions, classes=st.lists(text, max_size=2, unique=True).map(tuple), label_column=text),
    classes=many(st.tuples(text, count)),
    class_sources=many(text),
    num_unlabelled=count,
    splits=many(st.builds(SplitFound, name=text, num_images=count, words=many(text))),
    folds=many(st.tuples(count, count)),
    subjects=st.builds(
        SubjectsFound,
        sources=many(text),
        count=count,
        num_unknown=count,
        examples=many(text),
        several_classes=many(text),
        num_several=count,
        is_confirmed=st.booleans(),
    ),
    other_folders=many(text),
    tables=many(
        st.builds(TableFound, name=text, read=st.dictionaries(text, text), not_read=many(text), is_source=st.booleans())
    ),
    passed_over=many(st.builds(NotRead, reason=text, count=count, examples=many(text))),
    notes=many(text),
    told_by=text,
    positive=st.none() | st.builds(PositiveClass, text, text),
    frames=many(
        st.builds(
            FramesFound,
            class_name=text,
            num_looked_at=count,
            sizes=many(st.tuples(count, count, count)),
            modes=many(st.tuples(text, count)),
            ground=text,
        )
    ),
    frame_finding=st.none()
    | st.builds(
        FrameFinding,
        balanced_accuracy=share,
        low=share,
        high=share,
        num_images=count,
        folds_by=text,
        features=many(text),
        classes=many(st.tuples(text, text)),
    ),
)


@settings(max_examples=40)
@given(readings)
def test_what_is_kept_is_the_same_reading(reading):
    assert Reading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading
    assert Reading.from_dict(json.loads(json.dumps(reading.to_record()))) == replace(reading, notes=())
    assert differences(reading, Reading.from_dict(reading.to_record())) == []


@pytest.mark.parametrize("name", sorted(Reading().to_dict().keys() - {"positive", "frame_finding"}))
def test_a_reading_that_lacks_something_is_none(name):
    values = Reading().to_dict()
    del values[name]
    with pytest.raises(KeyError):
        Reading.from_dict(values)


@settings(max_examples=40)
@given(readings, st.integers(2, 12), st.booleans())
def test_the_short_form_is_short_and_begins_with_what_matters(reading, most, with_notes):
    lines, short = reading.lines(), reading.short_lines(most, with_notes=with_notes)
    assert len(short) <= most
    assert [line.partition(":")[0] for line in short[:1]] == ["classes"]
    expected = [line for line in lines if with_notes or not line.startswith("note: ")]
    if len(expected) <= most:
        assert short == expected
    else:
        assert short[:-1] == expected[: most - 1]
        assert short[-1].startswith(f"and {len(expected) - most + 1} more")


FULL = Reading(
    options=ReadingOptions(subject_from="folder"),
    classes=(("blast", 1200), ("normal", 30)),
    class_sources=("folder level 2",),
    num_unlabelled=4,
    splits=(SplitFound(name="train", num_images=1000, words=("DTrain",)), SplitFound(name="", num_images=234)),
    folds=((0, 600), (1, 400)),
    subjects=SubjectsFound(
        sources=("folders",), count=12, num_unknown=4, examples=("p1", "p2"), several_classes=("p1",), num_several=1
    ),
    other_folders=("Original 600: treatments, no classes",),
    tables=(
        TableFound(name="cells.csv", read={"path": "Path", "label": "diagnosis"}, not_read=("age",)),
        TableFound(name="x/other.csv", not_read=("a", "b"), is_source=False),
    ),
    passed_over=(NotRead(reason="masks and annotations", count=2000, examples=("m/1.png",)),),
    notes=("look at this",),
    told_by="size",
    frames=(
        FramesFound(class_name="blast", num_looked_at=2, sizes=((450, 400, 2),), modes=(("RGB", 2),), ground="black"),
        FramesFound(class_name="normal", num_looked_at=1, sizes=((64, 64, 1),), modes=(("L", 1),), ground="bright"),
    ),
    positive=known_positive(("blast", "normal")),
)


def test_everything_is_shown():
    assert FULL.lines() == [
        "classes: blast 1,200, normal 30 (from folder level 2), unlabelled 4",
        "positive class: blast (of the pair blast/normal: normal is the negative one); --positive changes it",
        "splits: train 1,000 (from DTrain), none 234; folds 0: 600, 1: 400",
        "subjects: 12 (from folders, such as p1, p2); unknown for 4 images; "
        "WRONG: 1 with images of several classes (p1)",
        "frames: blast 450x400 RGB, black ground; normal 64x64 L, bright ground (3 of 1,234 looked at)",
        "folders: Original 600: treatments, no classes",
        "table: cells.csv: path, label from diagnosis; not read: age",
        "table: x/other.csv is not read (columns a, b); give it as SOURCE to read it",
        "passed over: 2,000 masks and annotations, such as m/1.png",
        "note: look at this",
    ]
    confirmed = replace(FULL, subjects=replace(FULL.subjects, is_confirmed=True))
    assert "WRONG" not in "\n".join(confirmed.lines())
    assert "unknown" in Reading().lines()[2]


def test_differences_are_those_that_decide_results():
    assert differences(FULL, FULL) == []
    grown = replace(
        FULL, classes=(("blast", 1300), ("normal", 31)), num_unlabelled=0, notes=(), passed_over=(), frames=()
    )
    assert differences(FULL, grown) == []
    changes = {
        "options": replace(FULL, options=ReadingOptions()),
        "classes ": replace(FULL, classes=(("normal", 30), ("blast", 1200))),
        "classes were read from": replace(FULL, class_sources=("C-NMC file names",)),
        "splits": replace(FULL, splits=FULL.splits[:1]),
        "subjects were read from": replace(FULL, subjects=SubjectsFound()),
    }
    for start, other in changes.items():
        (said,) = differences(FULL, other)
        assert said.startswith(start)
    assert differences(FULL, changes["options"]) == ["options: --subject-from folder, now none"]
    assert differences(changes["classes "], FULL) == ["classes normal, blast, now blast, normal"]


def test_a_reading_of_an_earlier_release_has_the_positive_class_of_known_names():
    values = FULL.to_dict()
    del values["positive"]
    assert Reading.from_dict(values) == FULL
    values["classes"] = [["late", 3], ["early", 4]]
    assert Reading.from_dict(values).positive is None
    assert "positive class: open" in Reading.from_dict(values).lines()[1]
