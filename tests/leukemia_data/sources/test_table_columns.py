"""Columns of a table: found by usual names, by content or by option, or ambiguous."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.errors import AmbiguousSourceError, SourceError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

from .answers import ask, classes_of

NUM_ROWS = 6


@pytest.fixture
def table(tmp_path: Path, write_tree: Callable) -> Callable[..., Path]:
    """``table("diagnosis", "AML", "ALL", ...)``: a table of six images with further columns, each as its cells."""
    write_tree(tmp_path, *(f"i/{n}.png" for n in range(NUM_ROWS)))

    def write(*columns: tuple[str, str], path: str = "path", name: str = "cells.csv") -> Path:
        cells = [title_and_cells[1].split(" ") for title_and_cells in columns]
        assert all(len(column) == NUM_ROWS for column in cells)
        rows = [",".join((f"i/{n}.png", *(column[n] for column in cells))) for n in range(NUM_ROWS)]
        lines = [",".join((path, *(title for title, _ in columns))), *rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


def read(table: Path, **options) -> SourceListing:
    return list_source([table], options=ReadingOptions.parse(**options))


LABELS = "AML AML CML CML CML AML"
PEOPLE = "a a b c c d"
PARTS = "train train train test test valid"


def meaning(listing: SourceListing) -> tuple[list[str], list[str], list[str]]:
    """Classes, subjects and splits of the rows, in their order."""
    names = (*listing.classes, "")
    return (
        [names[record.label] for record in listing.records],
        [record.subject for record in listing.records],
        [record.split for record in listing.records],
    )


@pytest.mark.parametrize("path", ["path", "Filepath", "Image Path", "image_id", "file name", "文件名", "id"])
@pytest.mark.parametrize("label", ["label", "Class", "diagnosis", "Cell Type", "DX", "标签"])
def test_columns_of_usual_names(table, path, label):
    listing = read(table((label, LABELS), path=path))
    assert meaning(listing)[0] == LABELS.split()
    (found,) = listing.reading.tables
    assert (found.read, found.not_read) == ({"path": path, "label": label}, ())
    assert listing.reading.class_sources == (f"column {label}",)


@pytest.mark.parametrize("subject", ["subject", "patient_id", "Donor", "Case ID", "患者"])
@pytest.mark.parametrize("split", ["split", "set", "Subset", "Partition"])
def test_columns_of_subjects_and_splits(table, subject, split):
    listing = read(table(("label", LABELS), (subject, PEOPLE), (split, PARTS), ("age", "3 4 5 6 7 8")))
    assert meaning(listing) == (LABELS.split(), PEOPLE.split(), PARTS.split())
    (found,) = listing.reading.tables
    assert found.not_read == ("age",)
    assert listing.reading.subjects.sources == (f"column {subject}",)
    assert all(one.words == (f"column {split}",) for one in listing.reading.splits)


def test_a_columns_own_name_comes_first_and_the_others_are_listed(table):
    listing = read(table(("class", "x y x y x y"), ("label", LABELS), ("patient", PEOPLE), ("subject", "p q r s t u")))
    assert meaning(listing)[:2] == (LABELS.split(), list("pqrstu"))
    assert listing.reading.tables[0].not_read == ("class", "patient")


@pytest.mark.parametrize(
    ("role", "first", "second"),
    [("label", "diagnosis", "category"), ("subject", "patient", "donor"), ("split", "set", "subset")],
)
def test_two_possible_columns_need_an_option(table, role, first, second):
    cells = {"label": LABELS, "subject": PEOPLE, "split": PARTS}[role]
    label = () if role == "label" else (("label", LABELS),)
    listings = ask([table(*label, (first, cells), (second, cells))])
    assert set(listings) == {f"--{role}-column {name}" for name in (first, second)}
    position = ("label", "subject", "split").index(role)
    assert all(meaning(listing)[position] == cells.split() for listing in listings.values())


def test_two_columns_of_paths_are_distinguished_by_their_files(table, tmp_path):
    other = ("image_id", "7 8 9 10 11 12")
    assert meaning(read(table(("label", LABELS), other, path="file")))[0] == LABELS.split()
    same = ("image", " ".join(f"i/{n}.png" for n in range(NUM_ROWS)))
    assert set(ask([table(("label", LABELS), same, path="file")])) == {"--path-column file", "--path-column image"}


def test_one_hot_labels_need_an_option(table):
    listings = ask([table(("hem", "1 0 1 0 0 1"), ("all", "0 1 0 1 1 0"))])
    one_hot = listings["--label-column hem,all"]
    assert meaning(one_hot)[0] == ["hem", "all", "hem", "all", "all", "hem"]
    assert one_hot.reading.class_sources == ("column hem, all, one-hot",)
    assert listings["--label-column none"].reading.num_unlabelled == NUM_ROWS


def test_one_hot_rows_without_a_class_are_unlabelled(table):
    listings = ask([table(("blast", "1 0 1 0 0 1"), ("normal", "0 0 0 1 0 0"))])
    assert meaning(listings["--label-column blast,normal"])[0] == ["blast", "", "blast", "normal", "", "blast"]
    mostly_none = table(("blast", "1 0 0 0 0 1"), ("normal", "0 0 0 0 0 0"), name="few.csv")
    assert "--label-column blast,normal" not in ask([mostly_none])


@pytest.mark.parametrize(
    "titles",
    ["label,Label", "label,label ", "label,subject,subject", "label,split,SPLIT", "diagnosis,diagnosis", "dx,who,who"],
)
def test_a_column_that_is_read_is_there_once(table, titles):
    cells = {"label": LABELS, "subject": PEOPLE, "split": PARTS, "diagnosis": LABELS, "dx": LABELS, "who": PEOPLE}
    path = table(*((title, cells[title.strip().lower()]) for title in titles.split(",")))
    options = {"subject_column": "who"} if "who" in titles else {}
    with pytest.raises(SourceError, match="there twice"):
        read(path, **options)


def test_other_titles_may_be_there_twice(table):
    listing = read(table(("label", LABELS), ("note", PEOPLE), ("note", PARTS)))
    assert meaning(listing)[0] == LABELS.split()


def test_columns_that_may_be_labels_need_an_option(table):
    cells = ("finding", "x x y y x x"), ("age", "30 41 52 63 30 41"), ("comment", "b b b c c c"), ("key", "a b c d e f")
    assert classes_of(ask([table(*cells)])) == {
        "--label-column finding": {"x": 4, "y": 2},
        "--label-column none": {"hem": 0, "all": 0},
    }


def test_a_table_without_any_such_column_is_read_as_unlabelled(table):
    listing = read(table(("age", "30 41 52 63 30 41"), ("comment", "b b b c c c")))
    assert listing.reading.num_unlabelled == NUM_ROWS
    assert listing.reading.tables[0].not_read == ("age", "comment")


def test_the_user_s_columns(table):
    path = table(("label", LABELS), ("Finding", "x x y y x x"), ("who", PEOPLE), ("part", PARTS))
    options = {"label_column": "finding", "subject_column": "WHO", "split_column": "Part"}
    listing = read(path, **options)
    assert meaning(listing) == (["x", "x", "y", "y", "x", "x"], PEOPLE.split(), PARTS.split())
    assert listing.reading.tables[0].not_read == ("label",)
    assert listing.reading.subjects.is_confirmed
    nothing = read(path, label_column="none", subject_column="none", split_column="none")
    assert meaning(nothing) == ([""] * NUM_ROWS, [""] * NUM_ROWS, [""] * NUM_ROWS)
    assert not nothing.reading.subjects.is_confirmed


@pytest.mark.parametrize("option", ["label_column", "subject_column", "split_column", "path_column"])
def test_a_column_that_is_not_there(table, option):
    with pytest.raises(SourceError, match=r"no column absent; its columns are path, label"):
        read(table(("label", LABELS)), **{option: "absent"})


@pytest.mark.parametrize("title", ["lable", "subjekt", "splitt"])
def test_a_column_that_is_nearly_called_so_is_no_other(table, title):
    with pytest.raises(SourceError, match=f"column {title} is not read"):
        read(table(("label" if title != "lable" else "x", LABELS), (title, PEOPLE)))


def test_a_split_column_needs_words_of_splits(table):
    listing = read(table(("label", LABELS), ("set", "1 2 1 2 1 2")))
    assert listing.reading.splits == ()
    assert listing.reading.tables[0].not_read == ("set",)
    with pytest.raises(SourceError, match=r"column set is none of train, valid, test"):
        read(table(("label", LABELS), ("set", "1 2 1 2 1 2")), split_column="set")


def test_what_a_choice_leads_to_is_asked_at_once(table):
    listings = ask([table(("diagnosis", LABELS), ("category", LABELS.lower()), ("patient", PEOPLE), ("donor", PEOPLE))])
    assert listings
    assert all(
        {"label_column", "subject_column"} <= listing.reading.options.to_dict().keys() for listing in listings.values()
    )


def test_images_to_predict_need_no_columns(table):
    with pytest.raises(AmbiguousSourceError):
        read(table(("finding", "x x y y x x")))
