from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .answer import Answer, ReadImage
from .generate import layout_of_seed
from .layout import Cell, Layout
from .verdict import Outcome, check_reading

FOLDER = Path("/layouts/7")
CELLS = (
    Cell("given/train/blast/1.png", "blast", "P1", "train"),
    Cell("given/train/blast/2.png", "blast", "P1", "train"),
    Cell("given/test/normal/3.png", "normal", "P2", "test"),
)
PLAIN = Layout(7, {"kind": "tree"}, ("given",), CELLS, passed_over=("given/train/masks/1.png",))
OPEN = replace(PLAIN, doubts=("sites may be classes",))


def read(*changes: tuple[int, str, str]) -> Answer:
    """The true answer, with some fields of some images changed."""
    images = [ReadImage(str(FOLDER / c.path), c.class_name or "", c.subject or "", c.split or "") for c in PLAIN.cells]
    for position, name, value in changes:
        images[position] = replace(images[position], **{name: value})
    return Answer(tuple(images), tuple(sorted({image.class_name for image in images} - {""})))


def refusal(message: str = "two ways", **readings: Answer) -> Callable[[Any], Answer]:
    """A reader that refuses, and gives these readings by their names."""
    answers: dict[Any, Answer] = {None: Answer(refusal=message, readings=tuple((n, n) for n in readings))}
    return (answers | readings).__getitem__


def outcome(layout: Layout, ask: Answer | Callable[[Any], Answer], **options: Any) -> Outcome:
    return check_reading(layout, FOLDER, ask if callable(ask) else lambda _: ask, **options).outcome


@pytest.mark.parametrize(
    "answer",
    [
        read(),
        read((0, "subject", ""), (1, "subject", ""), (2, "subject", "")),
        read((0, "subject", "person 1"), (1, "subject", "person 1")),
    ],
    ids=["the truth", "unknown subjects", "subjects by another name"],
)
def test_the_truth_and_unknown_subjects_are_equal(answer: Answer) -> None:
    assert outcome(PLAIN, answer) is Outcome.EQUAL


@pytest.mark.parametrize(
    "answer",
    [
        read((2, "class_name", "test")),
        read((2, "class_name", "")),
        read((2, "split", "")),
        read((2, "split", "valid")),
        read((1, "subject", "P9")),
        read((2, "subject", "P1")),
        replace(read(), images=read().images[:2]),
        replace(read(), images=(*read().images, ReadImage(f"{FOLDER}/given/train/masks/1.png", "blast", "", ""))),
        replace(read(), images=(*read().images, read().images[0])),
        replace(read(), classes=("blast", "normal", "runs")),
    ],
    ids=[
        "another class",
        "no class",
        "no split",
        "another split",
        "one subject as two",
        "two subjects as one",
        "an image left out",
        "a mask listed",
        "an image twice",
        "a class too many",
    ],
)
def test_what_differs_from_the_truth_is_silently_wrong(answer: Answer) -> None:
    assert outcome(PLAIN, answer) is Outcome.SILENTLY_WRONG
    assert outcome(OPEN, answer) is Outcome.SILENTLY_WRONG


def test_a_subject_where_there_is_none_is_wrong() -> None:
    layout = replace(PLAIN, cells=tuple(replace(cell, subject=None) for cell in CELLS))
    assert outcome(layout, read()) is Outcome.SILENTLY_WRONG


def test_the_truth_of_every_layout_is_equal_to_itself() -> None:
    for layout in map(layout_of_seed, range(600)):
        images = [
            ReadImage(str(FOLDER / c.path), c.class_name or "", c.subject or "", c.split or "") for c in layout.cells
        ]
        truth = Answer(tuple(images), tuple({image.class_name for image in images} - {""}))
        silent = Outcome.SILENTLY_WRONG if layout.is_never_silent else Outcome.EQUAL
        assert outcome(layout, truth) is silent, layout.described()
        offered = Outcome.REFUSED_THOUGH_PLAIN if layout.is_plain else Outcome.REFUSED_WITH_TRUTH
        answers = {None: Answer(refusal="two ways", readings=(("the truth", 1),)), 1: truth}
        assert outcome(layout, answers.__getitem__) is offered, layout.described()


def test_subjects_that_are_given_must_not_be_lost() -> None:
    layout = replace(PLAIN, are_subjects_given=True)
    assert outcome(layout, read()) is Outcome.EQUAL
    assert outcome(layout, read((0, "subject", ""))) is Outcome.SUBJECTS_LOST


def test_other_names_of_a_class_are_right_as_long_as_it_stays_one() -> None:
    layout = replace(PLAIN, aliases={"blast": ("all", "ALL")})
    assert outcome(layout, read((0, "class_name", "all"), (1, "class_name", "all"))) is Outcome.EQUAL
    assert outcome(layout, read((0, "class_name", "all"), (1, "class_name", "ALL"))) is Outcome.SILENTLY_WRONG


def test_composed_and_decomposed_names_are_one() -> None:
    layout = replace(PLAIN, cells=tuple(replace(cell, class_name="célula") for cell in CELLS))
    answer = read(*((position, "class_name", "ce\u0301lula") for position in range(3)))
    assert outcome(layout, answer) is Outcome.EQUAL


def test_a_refusal_has_to_offer_the_truth() -> None:
    wrong = read((2, "class_name", "test"))
    assert outcome(OPEN, refusal(a=wrong, b=read())) is Outcome.REFUSED_WITH_TRUTH
    assert outcome(OPEN, refusal(a=wrong)) is Outcome.REFUSED_WITHOUT_TRUTH
    assert outcome(OPEN, refusal()) is Outcome.REFUSED_WITHOUT_TRUTH


def test_a_refusal_must_not_offer_everything() -> None:
    assert outcome(OPEN, refusal(**{f"level {n}": read() for n in range(12)})) is Outcome.REFUSED_WITH_TRUTH
    assert outcome(OPEN, refusal(**{f"level {n}": read() for n in range(13)})) is Outcome.REFUSED_WITHOUT_TRUTH


def test_a_plain_layout_must_not_be_refused() -> None:
    assert outcome(PLAIN, refusal(a=read())) is Outcome.REFUSED_THOUGH_PLAIN


def test_a_reading_that_is_offered_must_not_be_refused() -> None:
    assert outcome(OPEN, refusal(a=read(), b=Answer(refusal="no"))) is Outcome.REFUSED_WITHOUT_TRUTH


def test_a_refusal_without_readings_has_to_name_the_cause() -> None:
    layout = replace(OPEN, refusable_by=("overview.png",))
    assert outcome(layout, refusal("overview.png lies in no class folder")) is Outcome.REFUSED_BY_NAME
    assert outcome(layout, refusal("an image lies in no class folder")) is Outcome.REFUSED_WITHOUT_TRUTH


def test_contradictions_are_never_taken_silently() -> None:
    layout = replace(OPEN, is_never_silent=True)
    assert outcome(layout, read()) is Outcome.SILENTLY_WRONG
    assert outcome(layout, refusal(a=read())) is Outcome.REFUSED_WITH_TRUTH


def test_options_that_name_the_truth_have_to_give_it() -> None:
    wrong = read((2, "split", ""))
    answers = {None: read(), "known": wrong}
    assert outcome(PLAIN, answers.__getitem__, options="known") is Outcome.WRONG_WITH_OPTIONS
    answers["known"] = Answer(refusal="no such level")
    assert outcome(PLAIN, answers.__getitem__, options="known") is Outcome.WRONG_WITH_OPTIONS
    answers["known"] = read()
    assert outcome(PLAIN, answers.__getitem__, options="known") is Outcome.EQUAL


def test_subjects_of_a_column_that_was_named_have_to_be_read() -> None:
    layout = replace(PLAIN, options={"subject_column": "donor"})
    answers = {None: read((0, "subject", "")), "known": read((0, "subject", ""))}
    assert outcome(layout, answers.__getitem__, options="known") is Outcome.WRONG_WITH_OPTIONS
    answers["known"] = read()
    assert outcome(layout, answers.__getitem__, options="known") is Outcome.EQUAL


def test_other_errors_are_crashes() -> None:
    def ask(_: Any) -> Answer:
        raise RecursionError("maximum recursion depth exceeded")

    assert outcome(PLAIN, ask) is Outcome.CRASHED


def test_only_three_outcomes_are_right() -> None:
    right = {outcome for outcome in Outcome if outcome.is_right}
    assert right == {Outcome.EQUAL, Outcome.REFUSED_WITH_TRUTH, Outcome.REFUSED_BY_NAME}
