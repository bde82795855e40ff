"""From class names to labels: order, choice, merging, and ambiguous names."""

from __future__ import annotations

import pytest

from leukemia_data.errors import AmbiguousSourceError, UsageError
from leukemia_data.sources.classes import LEFT_OUT, number_classes
from leukemia_data.sources.positive_class import composed
from leukemia_data.sources.reading_options import ReadingOptions


def number(names: str | list[str], **options) -> tuple[tuple[str, ...], dict[str, int]]:
    listed = names.split() if isinstance(names, str) else names
    return number_classes(dict.fromkeys(listed, 1), ReadingOptions.parse(**options))


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        ("relapse blast healthy", ("blast", "healthy", "relapse"), [2, 0, 1]),
        ("ALL Hem", ("hem", "all"), [1, 0]),
        ("all", ("hem", "all"), [1]),
        ("", ("hem", "all"), []),
        ("all blast", ("all", "blast"), [0, 1]),
        # Numbers in the order of their values.
        ("10 9 0", ("0", "9", "10"), [2, 1, 0]),
        # Capitals first, as everywhere.
        ("b A", ("A", "b"), [1, 0]),
    ],
)
def test_classes_of_a_source(names, classes, labels):
    assert number(names) == (classes, dict(zip(names.split(), labels, strict=True)))


def test_classes_that_the_user_orders_and_chooses():
    names = "Benign Early Pre Pro"
    classes, labels = number(names, classes="Pro,Benign")
    assert classes == ("Pro", "Benign")
    assert labels == {"Benign": 1, "Early": LEFT_OUT, "Pre": LEFT_OUT, "Pro": 0}
    # The user's spelling, whatever the folders' case is.
    assert number(names, classes="pro,benign")[1] == {"Benign": 1, "Early": LEFT_OUT, "Pre": LEFT_OUT, "Pro": 0}


def test_names_for_numbers():
    assert number("1 0", classes="Healthy,Blast") == (("Healthy", "Blast"), {"0": 0, "1": 1})
    assert number("2 0", classes="a,b,c")[1] == {"0": 0, "2": 2}
    # The numbers themselves.
    assert number("1 0", classes="1,0")[1] == {"0": 1, "1": 0}
    assert number("1 0", classes="1")[1] == {"0": LEFT_OUT, "1": 0}
    with pytest.raises(UsageError, match="only 2 classes"):
        number("0 2", classes="a,b")


def test_merged_classes():
    names = "Benign Early Pre Pro"
    assert number(names, merge=["Leukemia=Early+Pre+pro"]) == (
        ("Benign", "Leukemia"),
        {"Benign": 0, "Early": 1, "Pre": 1, "Pro": 1},
    )
    assert number(names, merge=["L=Early+Pre+Pro"], classes="L,Benign")[1] == {
        "Benign": 1,
        "Early": 0,
        "Pre": 0,
        "Pro": 0,
    }
    assert number(names, merge=["all=Early+Pre+Pro", "hem=Benign"]) == (
        ("hem", "all"),
        {"Benign": 0, "Early": 1, "Pre": 1, "Pro": 1},
    )
    # Into one that is there.
    assert number(names, merge=["Pro=Early+Pre"]) == (("Benign", "Pro"), {"Benign": 0, "Early": 1, "Pre": 1, "Pro": 1})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"merge": ["L=Early+Late"]}, "no class Late"),
        ({"classes": "Benign,Late"}, "--classes Late"),
        ({"merge": ["L=Early+Pre"], "classes": "Early,Pre"}, "--classes Early"),
    ],
)
def test_classes_that_the_source_has_not_got(options, word):
    with pytest.raises(UsageError, match=word):
        number("Benign Early Pre Pro", **options)


def test_accents_are_composed():
    decomposed, same = "ge\u0301ant", "g\u00e9ant"
    assert composed(decomposed) == same
    assert number([decomposed, same, "b"]) == (("b", same), {decomposed: 1, same: 1, "b": 0})
    assert number([decomposed, "b"], classes=f"{same},b")[1] == {decomposed: 0, "b": 1}
    assert number([decomposed, "b"], merge=[f"x={same}"])[1] == {decomposed: 1, "b": 0}


def _readings(names: str) -> list[tuple[tuple[str, ...], dict[str, int]]]:
    with pytest.raises(AmbiguousSourceError) as caught:
        number(names)
    counts = dict.fromkeys(names.split(), 1)
    return [number_classes(counts, reading.options) for reading in caught.value.readings]


def test_classes_that_differ_in_case_alone():
    assert _readings("Blast blast normal") == [
        (("Blast", "normal"), {"Blast": 0, "blast": 0, "normal": 1}),
        (("Blast", "blast", "normal"), {"Blast": 0, "blast": 1, "normal": 2}),
    ]


def test_numbers_beside_names():
    assert _readings("0 1 all hem") == [
        (("hem", "all"), {"0": 0, "1": 1, "all": 1, "hem": 0}),
        (("0", "1", "all", "hem"), {"0": 0, "1": 1, "all": 2, "hem": 3}),
    ]
    assert _readings("1 hem") == [
        (("hem", "all"), {"1": 1, "hem": 0}),
        (("1", "hem"), {"1": 0, "hem": 1}),
    ]
    assert _readings("2 blast") == [(("2", "blast"), {"2": 0, "blast": 1})]


def test_merging_classes_resolves_an_ambiguity():
    assert number("0 1 blast", merge=["blast=1", "healthy=0"])[0] == ("blast", "healthy")
