"""Options of a reading: formatted, parsed, stored and compared."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cli.options import reading_options
from leukemia_data.errors import UsageError
from leukemia_data.sources.reading_options import ReadingOptions, matches_glob, subject_in

names = st.text(st.sampled_from(",+=\\") | st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
several = st.lists(names, min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def assignments(draw, keys):
    """Texts to disjoint groups of names."""
    groups, seen = [], set()
    for key in draw(st.lists(keys, max_size=3, unique=True)):
        group = tuple(name for name in draw(several) if name not in seen)
        seen.update(group)
        if group:
            groups.append((key, group))
    return tuple(groups)


options = st.builds(
    ReadingOptions,
    class_level=st.none() | st.integers(-9999, 9999),
    classes=st.just(()) | several,
    merge=assignments(names),
    exclude=st.lists(texts, max_size=3).map(tuple),
    subject_pattern=st.sampled_from([None, "(?P<subject>p\\d+)", "^[^/]+", "a b'c"]),
    subject_from=st.sampled_from([None, "name", "folder", "none"]),
    label_column=st.none() | texts,
    subject_column=st.none() | texts,
    split_column=st.none() | texts,
    path_column=st.none() | texts,
    split_folders=assignments(st.sampled_from(["train", "valid", "test"])),
)


@given(options)
def test_what_a_manifest_keeps_is_the_same_options(chosen):
    assert ReadingOptions.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert (chosen.to_dict() == {}) == (chosen == ReadingOptions()) == (chosen.command_text == "")


@click.command
@reading_options
def _print_options(reading: ReadingOptions) -> None:
    click.echo(json.dumps(reading.to_dict()))


@given(options)
def test_the_command_line_of_options_means_these_options(chosen):
    result = CliRunner().invoke(_print_options, shlex.split(chosen.command_text))
    assert result.exit_code == 0, result.output
    assert ReadingOptions.from_dict(json.loads(result.stdout)) == chosen


def test_every_option_is_one_of_the_command_line():
    assert {parameter.name for parameter in _print_options.params} == {field.name for field in fields(ReadingOptions)}


def test_texts_of_a_command_line():
    assert ReadingOptions.parse(
        class_level="-1",
        classes="Benign, Early,Pre",
        merge=["Leukemia=Early+Pre", " B = Benign "],
        exclude=["masks"],
        split_folders="train=TRAIN,test=TestA+TestB",
    ) == ReadingOptions(
        class_level=-1,
        classes=("Benign", "Early", "Pre"),
        merge=(("Leukemia", ("Early", "Pre")), ("B", ("Benign",))),
        exclude=("masks",),
        split_folders=(("train", ("TRAIN",)), ("test", ("TestA", "TestB"))),
    )
    assert ReadingOptions.parse(classes="CD4\\+,AML\\, NOS,lab\\x", merge=["CD+=CD4\\++CD8\\+"]) == ReadingOptions(
        classes=("CD4+", "AML, NOS", "lab\\x"), merge=(("CD+", ("CD4+", "CD8+")),)
    )
    assert ReadingOptions.parse(class_level="name").class_level == 0
    assert ReadingOptions.parse() == ReadingOptions()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"class_level": "one"}, "--class-level"),
        ({"class_level": "1.5"}, "--class-level"),
        ({"classes": "a,b,a"}, "--classes: a"),
        ({"merge": ["a"]}, "NEW=A+B"),
        ({"merge": ["=a+b"]}, "NEW=A+B"),
        ({"merge": ["new="]}, "NEW=A+B"),
        ({"merge": ["x=a+b", "y=b"]}, "--merge: b"),
        ({"subject_pattern": "(p"}, "--subject-pattern"),
        ({"subject_from": "table"}, "--subject-from"),
        ({"split_folders": "training=a"}, "--split-folders training"),
        ({"split_folders": "train"}, "train=TRAIN"),
        ({"split_folders": "train=a,test=a"}, "--split-folders: a"),
    ],
)
def test_wrong_options(wrong, word):
    with pytest.raises(UsageError) as caught:
        ReadingOptions.parse(**wrong)
    assert word in str(caught.value)


GLOBS = [
    # Without a slash: every file and folder of that name.
    ("Segmented", "Segmented/Benign/1.jpg", True),
    ("Segmented", "a/Segmented/1.jpg", True),
    ("Segmented", "a/Segmented", True),
    ("Segmented", "Segmented2/1.jpg", False),
    ("Segmented", "segmented/1.jpg", False),
    ("*.png", "a/b/1.png", True),
    ("*.png", "a/1.png.jpg", False),
    ("?.png", "a/1.png", True),
    ("?.png", "a/12.png", False),
    ("old/", "a/old/1.png", True),
    ("[ab].png", "a.png", False),
    ("[ab].png", "x/[ab].png", True),
    # With one: from the source on.
    ("*/old/*.png", "a/old/1.png", True),
    ("*/old/*.png", "a/b/old/1.png", False),
    ("a/old", "a/old/b/1.png", True),
    ("a/old", "b/a/old/1.png", False),
    ("/old", "old/1.png", True),
    ("/old", "a/old/1.png", False),
    ("**/old/*.png", "old/1.png", True),
    ("**/old/*.png", "a/b/old/1.png", True),
    ("a/**", "a/b/c.png", True),
    ("a/**", "a", False),
    ("a/**/c.png", "a/c.png", True),
    ("a/**/c.png", "a/b/b/c.png", True),
    ("a*/c.png", "ab/c.png", True),
    ("a*/c.png", "a/b/c.png", False),
    ("a/*", "a/two\nlines/1.png", True),
]


@pytest.mark.parametrize(("pattern", "path", "is_meant"), GLOBS)
def test_globs(pattern, path, is_meant):
    assert matches_glob(pattern, path) == is_meant
    assert bool(ReadingOptions(exclude=("x/y", pattern)).excluding(path)) == is_meant


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("p(\\d+)", "12"),
        ("p\\d+", "p12"),
        ("(hem|all)/(?P<subject>p\\d+)", "p12"),
        ("(x)?p12", ""),
        ("q\\d+", ""),
    ],
)
def test_the_subject_that_a_pattern_finds(pattern, subject):
    assert subject_in(pattern, "hem/p12/3.png") == subject


def test_texts_that_begin_with_a_dash_are_joined_to_their_option():
    """``--classes -1,1`` would be read as two options."""
    assert ReadingOptions(classes=("-1", "1")).command_text == "--classes=-1,1"
    assert ReadingOptions(class_level=-1, classes=("1", "-1")).command_text == "--class-level -1 --classes 1,-1"
