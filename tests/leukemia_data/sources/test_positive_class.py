from __future__ import annotations

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.sources.positive_class import (
    PositiveClass,
    choose_positive,
    evaluated_order,
    known_positive,
    positive_text,
    require_positive,
)

KNOWN = [
    # negative, positive
    ("hem", "all"),
    ("HEM", "ALL"),
    ("Healthy", "Blast"),
    ("benign", "malignant"),
    ("Benign", "Early Pre-B"),
    ("normal", "abnormal"),
    ("Normal cells", "leukemia"),
    ("Uninfected", "Parasitized"),
    ("control", "AML"),
    ("Controls", "Patients"),
    ("negative", "positive"),
    ("test_negative", "test_positive"),
    ("no leukemia", "leukemia"),
    ("Non-Cancer", "cancer"),
    ("nonleukemic", "leukemic"),
    ("healthy", "not healthy"),
    ("normal", "non-normal"),
    ("normal", "nonnormal"),
    ("gesund", "krank"),
    ("sano", "enfermo"),
    ("sağlıklı", "hasta"),
    ("正常", "白血病"),
    ("正常细胞", "不正常细胞"),
    ("非白血病", "白血病"),
    ("0", "1"),
    ("-1", "1"),
]


@pytest.mark.parametrize(("negative", "positive"), KNOWN)
def test_names_give_the_positive_class_in_any_order(negative: str, positive: str) -> None:
    for classes in ((negative, positive), (positive, negative)):
        found = known_positive(classes)
        assert found is not None
        assert found.name == positive


@pytest.mark.parametrize(
    "classes",
    [
        ("early", "late"),
        ("lymphocyte", "monocyte"),
        ("A", "B"),
        ("1", "2"),
        ("0", "2"),
        ("yes", "no"),
        ("slide No 1", "slide No 2"),
        ("normal", "healthy"),
        ("benign", "normal"),
        ("unhealthy", "abnormal"),
        ("relapse", "remission"),
        ("hem",),
        ("hem", "all", "aml"),
        (),
    ],
)
def test_nothing_is_guessed(classes: tuple[str, ...]) -> None:
    assert known_positive(classes) is None


def test_an_option_precedes_the_cache_and_the_cache_known_names() -> None:
    classes = ("Blast", "Healthy")
    built = PositiveClass("Healthy", "chosen with --positive")
    assert choose_positive(classes, "blast", built_with=built) == ("Blast", "chosen with --positive")
    assert choose_positive(classes, built_with=built) == built
    # Of another cache.
    assert choose_positive(classes, built_with=PositiveClass("x", "")) == known_positive(classes)
    assert choose_positive(("a", "b")) is None


def test_a_class_that_is_none_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="--positive Blst: there is no such class; classes are Blast, Healthy"):
        choose_positive(("Blast", "Healthy"), "Blst")
    # They differ in case: neither is the known name.
    with pytest.raises(UsageError, match="no such class"):
        choose_positive(("blast", "BLAST"), "Blast")
    assert choose_positive(("blast", "Blast"), "Blast") == ("Blast", "chosen with --positive")


def test_without_a_known_pair_the_error_names_the_options() -> None:
    with pytest.raises(UsageError, match=r"say --positive early or --positive 'very late'"):
        require_positive(("early", "very late"))
    assert positive_text(("-1", "2"), None).endswith("say --positive -1 or --positive 2")
    assert require_positive(("hem", "all")).name == "all"
    assert positive_text(("hem", "all"), known_positive(("hem", "all"))) == (
        "positive class: all (of the pair hem/all: hem is the negative one); --positive changes it"
    )


def test_the_negative_class_comes_first() -> None:
    assert evaluated_order(("Blast", "Healthy"), "Blast") == ("Healthy", "Blast")
    assert evaluated_order(("Blast", "Healthy")) == ("Blast", "Healthy")
    assert evaluated_order(("a", "b", "c"), None) == ("a", "b", "c")
    assert evaluated_order(("hem", "all"), "all") == ("hem", "all")
    for classes, positive in ((("a", "b"), "c"), (("a", "b", "c"), "a")):
        with pytest.raises(UsageError, match="not one of two classes"):
            evaluated_order(classes, positive)
