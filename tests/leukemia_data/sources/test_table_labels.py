"""Values of label columns: unknown values, numbers, one-hot rows, and C-NMC's 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.errors import AmbiguousSourceError, SourceError
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source


@pytest.fixture
def reading(tmp_path: Path, write_tree: Callable) -> Callable[..., Reading]:
    """``reading(["hem", "all"], classes="all,hem")``: how a table of these labels is understood."""

    def read(labels: list[str], *, title: str = "label", name: str = "i/{}.png", more: str = "", **options) -> Reading:
        paths = [name.format(number) for number in range(len(labels))]
        write_tree(tmp_path, *paths)
        rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
        (tmp_path / "cells.csv").write_text("\n".join([f"path,{title}", *rows]) + more + "\n", encoding="utf-8")
        return list_source([tmp_path / "cells.csv"], options=ReadingOptions.parse(**options)).reading

    return read


@pytest.mark.parametrize("unknown", ["", "NA", "nan", "None", "?", "unknown", "N/A", "-", "unbekannt"])
def test_unknown_values_are_no_class_and_shift_no_label(reading, unknown):
    found = reading(["hem", "all", unknown, "all"])
    assert (found.classes, found.num_unlabelled) == ((("hem", 1), ("all", 2)), 1)
    assert any(f"'{unknown}' in 1 rows" in note for note in found.notes) == bool(unknown)
    other = reading(["Zoo", "Ape", unknown, "Zoo"])
    assert (other.classes, other.num_unlabelled) == ((("Ape", 1), ("Zoo", 2)), 1)


def test_an_option_makes_a_class_of_an_unknown_word(reading):
    labels = ["AML", "None", "None", "NA"]
    assert reading(labels, classes="None,AML").classes == (("None", 2), ("AML", 1))
    assert reading(labels, merge=["rest=None+NA"]).classes == (("AML", 1), ("rest", 3))


def test_0_and_1_are_names_but_for_c_nmc(reading):
    assert reading(["0", "1", "1"]).classes == (("0", 1), ("1", 2))
    assert reading(["0", "1", "1"], classes="Healthy,Blast").classes == (("Healthy", 1), ("Blast", 2))
    named = reading(["0", "0", "0"], name="UID_H1_{}_1_hem.bmp")
    assert (named.classes, named.class_sources) == ((("hem", 3), ("all", 0)), ("column label, 0 hem and 1 all",))
    assert reading(["0", "1"], name="new_dataset/train/{}.bmp").classes == (("hem", 1), ("all", 1))
    assert reading(["0", "1", "hem"]).classes == (("hem", 2), ("all", 1))
    # One file of another name, and they are numbers.
    assert reading(["0", "1"], name="new_dataset/other/{}.bmp").classes == (("0", 1), ("1", 1))


@pytest.mark.parametrize("labels", [["1.0", "0.0", "1"], ["01", "0", "1."], ["1", "000", "001"]])
def test_numbers_as_programs_write_them(reading, labels):
    assert reading(labels).classes == (("0", 1), ("1", 2))


def test_numbers_are_in_the_order_of_their_values(reading):
    assert [name for name, _ in reading(["10", "2", "1"]).classes] == ["1", "2", "10"]


def test_negative_numbers_are_classes(reading):
    assert reading(["-1", "1", "1", "-1.0"]).classes == (("-1", 2), ("1", 2))
    assert reading(["1", "0", "-1", "+1"]).classes == (("-1", 1), ("0", 1), ("1", 2))
    assert reading(["-1", "1", "1"], merge=["normal=-1", "blast=1"]).classes == (("blast", 2), ("normal", 1))


@pytest.mark.parametrize("labels", [["True", "TRUE", "False"], ["Normal", "normal", "AML"], ["hem", "AML", "aml"]])
def test_ambiguous_spellings_are_refused(reading, labels):
    with pytest.raises(AmbiguousSourceError, match="--merge") as caught:
        reading(labels)
    same, different = (choice.options for choice in caught.value.readings)
    assert len(reading(labels, merge=[f"{new}={'+'.join(olds)}" for new, olds in same.merge]).classes) == 2
    assert len(reading(labels, classes=",".join(different.classes)).classes) == 3


def test_the_error_of_numbers_beside_names_lists_the_fewer_ones(reading):
    with pytest.raises(SourceError, match=r"a number in some rows and a name in others.*line 4 \('2'\)"):
        reading(["AML", "CML", "2"])
    with pytest.raises(SourceError, match=r"a number in some rows and a name in others.*line 5 \('AML'\)"):
        reading(["0", "1", "2", "AML"])
    with pytest.raises(SourceError, match=r"neither 0 \(hem\) nor 1 \(all\).*line 4 \('blast'\)"):
        reading(["0", "hem", "blast"])


def test_what_the_user_merges_or_lists_is_meant_so(reading):
    assert reading(["AML", "CML", "2"], merge=["AML=AML+2"]).classes == (("AML", 2), ("CML", 1))
    assert reading(["AML", "CML", "2.0"], classes="2,CML,AML").classes == (("2", 1), ("CML", 1), ("AML", 1))
    assert reading(["blast", "Blast", "normal"], merge=["Blast=Blast+blast"]).classes == (("Blast", 2), ("normal", 1))
    assert reading(["blast", "Blast"], classes="Blast,blast").classes == (("Blast", 1), ("blast", 1))
    with pytest.raises(SourceError, match="case of their names alone: NORMAL, normal"):
        reading(["blast", "Blast", "normal", "NORMAL"], merge=["Blast=Blast+blast"])


def test_spellings_of_c_nmc_s_classes_are_one(reading):
    assert reading(["ALL", "all", "Hem"]).classes == (("hem", 1), ("all", 2))


# --- one-hot ----------------------------------------------------------------------------------------------------


def test_one_hot_rows(reading):
    found = reading(["1,0,0", "0.0,1.0,0.0", "0,False,TRUE", ",,1"], title="a,b,c", label_column="a,B,c")
    assert found.classes == (("a", 1), ("b", 1), ("c", 2))
    assert reading(["1,0", "0,0", "NA,"], title="a,b", label_column="a,b").num_unlabelled == 2


@pytest.mark.parametrize("row", ["1,1", "2,0", "x,1", "0.5,0.5"])
def test_wrong_one_hot_rows(reading, row):
    with pytest.raises(SourceError, match=r"columns a, b are not one 1.*line 3"):
        reading(["1,0", row], title="a,b", label_column="a,b")


# --- subjects and splits ----------------------------------------------------------------------------------------


def test_unknown_subjects_and_splits(reading):
    found = reading(["x,p1,train", "y,NA,train", "x,unknown,?", "y,,test"], title="label,subject,split")
    assert (found.subjects.count, found.subjects.num_unknown) == (1, 3)
    assert {split.name: split.num_images for split in found.splits} == {"train": 2, "test": 1, "": 1}
    (note,) = [note for note in found.notes if "taken for unknown" in note]
    assert all(word in note for word in ("NA", "unknown", "?"))


def test_a_subject_column_of_c_nmc_names_gives_their_subjects(reading):
    found = reading(["x,UID_H7_1_1_hem.bmp", "y,UID_8_1_1_all.bmp"], title="label,patient_id")
    assert found.subjects.examples == ("8", "H7")


def test_labels_of_another_kind_than_the_names_are_noted(reading):
    found = reading(["Early", "Pre"], name="UID_1_{}_1_all.bmp")
    assert found.classes == (("Early", 1), ("Pre", 1))
    assert any("Early (named all) 1" in note for note in found.notes)


def test_subjects_of_several_classes_are_doubtful_until_confirmed(reading):
    rows = ["x,p1", "y,p1", "x,p2"]
    found = reading(rows, title="label,subject").subjects
    assert (found.num_several, found.several_classes, found.is_doubtful) == (1, ("p1",), True)
    confirmed = reading(rows, title="label,subject", subject_column="subject").subjects
    assert (confirmed.num_several, confirmed.is_doubtful) == (1, False)


@pytest.mark.parametrize(
    ("options", "subjects"),
    [
        ({"subject_from": "none"}, set()),
        ({"subject_from": "folder"}, {"anna", "bert"}),
        ({"subject_pattern": "/(\\w)-"}, {"0", "1"}),
        ({}, {"p1"}),
    ],
)
def test_where_a_table_s_subjects_come_from(reading, tmp_path, write_tree, options, subjects):
    write_tree(tmp_path, "anna/0-x.png", "bert/1-x.png")
    more = "\nanna/0-x.png,x,p1\nbert/1-x.png,y,"
    found = reading([], title="label,subject", more=more, **options).subjects
    assert (set(found.examples), found.count) == (subjects, len(subjects))
