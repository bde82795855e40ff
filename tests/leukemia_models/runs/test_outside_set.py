"""Classes of an outside set compared with those of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.sources.positive_class import place_of_class
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_models.runs.evaluate_outside import read_outside_set


@pytest.mark.parametrize(
    ("name", "classes", "place"),
    [
        ("Blast", ("Blast", "Healthy"), 0),
        (" blast", ("Blast", "Healthy"), 0),
        ("CAFE\u0301", ("x", "caf\u00e9"), 1),
        ("all", ("Blast", "Healthy"), None),
        ("ALL", ("All", "all"), None),
        ("all", ("All", "all"), 1),
        ("1", ("0", "1"), 1),
        ("1", ("hem", "all"), None),
    ],
)
def test_a_class_is_another_s_by_its_name(name: str, classes: tuple[str, ...], place: int | None) -> None:
    assert place_of_class(name, classes) == place


def test_labels_are_positions_among_the_run_s_classes(tmp_path: Path, write_tree: Callable[..., Path]) -> None:
    root = write_tree(tmp_path / "set", "HEALTHY/P1/1.png", "HEALTHY/P2/2.png", "blast/P3/3.png")
    options = ReadingOptions(class_level=1, subject_from="folder")
    found = read_outside_set([root], ("blast", "Other", "healthy"), "blast", options=options)
    assert found.name == "outside-set"
    assert [(row.record.record_id, label) for row, label in zip(found.rows, found.labels, strict=True)] == [
        ("HEALTHY/P1/1.png", 2),
        ("HEALTHY/P2/2.png", 2),
        ("blast/P3/3.png", 0),
    ]
    assert [row.record.subject for row in found.rows] == ["P1", "P2", "P3"]
    assert found.places == (str(root),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["Early", "Pre", "Healthy", "--merge", "--classes"]),
        ({"merge": ("Blast=Early",)}, ["no class Pre", "--merge"]),
        (
            {"merge": ("BLAST=Early", "blast=Pre"), "classes": "BLAST,blast,Healthy"},
            ["one class of the run", "--merge"],
        ),
    ],
)
def test_classes_that_the_run_has_not_got_are_refused(
    options: dict[str, Any], words: list[str], tmp_path: Path, write_tree: Callable[..., Path]
) -> None:
    root = write_tree(tmp_path / "set", "Early/1.png", "Pre/2.png", "Healthy/3.png")
    reading = ReadingOptions.parse(class_level=1, **options)
    with pytest.raises(UsageError) as caught:
        read_outside_set([root], ("Blast", "Healthy"), "Blast", options=reading)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("classes", "positive"),
    [(("Blast", "Healthy"), "Blast"), (("Blast, early", "=Healthy"), "Blast, early")],
)
def test_the_options_that_are_named_map_disease_to_disease_and_work(
    classes: tuple[str, ...], positive: str, tmp_path: Path, write_tree: Callable[..., Path]
) -> None:
    root = write_tree(tmp_path / "set", "all/1.png", "hem/2.png")
    with pytest.raises(UsageError) as caught:
        read_outside_set([root], classes, positive, options=ReadingOptions(class_level=1))
    named = shlex.split(str(caught.value).partition("such as ")[2].partition("; ")[0])
    options = ReadingOptions.parse(class_level=1, merge=named[1::2])
    found = read_outside_set([root], classes, positive, options=options)
    assert {row.record.record_id: classes[label] for row, label in zip(found.rows, found.labels, strict=True)} == {
        "all/1.png": classes[0],
        "hem/2.png": classes[1],
    }


@pytest.mark.parametrize(
    ("merge", "classes", "labels"),
    [(("Blast=Early+Pre",), None, [0, 0, 1]), ((), "Healthy", [1])],
)
def test_options_say_what_other_classes_mean(
    merge: tuple[str, ...],
    classes: str | None,
    labels: list[int],
    tmp_path: Path,
    write_tree: Callable[..., Path],
) -> None:
    root = write_tree(tmp_path / "set", "Early/1.png", "Pre/2.png", "Healthy/3.png")
    options = ReadingOptions.parse(class_level=1, merge=merge, classes=classes)
    found = read_outside_set([root], ("Blast", "Healthy"), "Blast", options=options)
    assert sorted(found.labels) == labels


def test_numbers_are_named_in_order_by_an_option(tmp_path: Path, write_tree: Callable[..., Path]) -> None:
    write_tree(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("Path,label\n1.png,0\n2.png,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--classes Healthy,Blast makes of the numbers 0 Healthy, 1 Blast"):
        read_outside_set([tmp_path / "t.csv"], ("Blast", "Healthy"), "Blast")
    options = ReadingOptions.parse(classes="Blast,Healthy")
    assert read_outside_set([tmp_path / "t.csv"], ("Blast", "Healthy"), "Blast", options=options).labels == (0, 1)


def test_a_set_without_labels_is_for_predict(tmp_path: Path, write_tree: Callable[..., Path]) -> None:
    write_tree(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("Path,label\n1.png,\n2.png,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="ltrain predict"):
        read_outside_set([tmp_path / "t.csv"], ("Blast", "Healthy"), "Blast")


def test_the_positive_class_is_the_run_s(tmp_path: Path, write_tree: Callable[..., Path]) -> None:
    root = write_tree(tmp_path / "set", "Blast/1.png", "Healthy/2.png")
    with pytest.raises(UsageError, match="the run's positive class is Healthy"):
        read_outside_set(
            [root], ("Blast", "Healthy"), "Healthy", options=ReadingOptions(class_level=1, positive="Blast")
        )
    options = ReadingOptions(class_level=1, positive="Healthy")
    found = read_outside_set([root], ("Blast", "Healthy"), "Healthy", options=options)
    assert found.labels == (0, 1)
    assert not any("positive" in line for line in found.lines)
