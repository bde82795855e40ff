from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.files.atomic import FileState
from leukemia_data.records.record import CELL_CLASSES, NO_FOLD, UNKNOWN_LABEL, CellName, Record, parse_cell_name

HEM, ALL = 0, 1


def test_labels_are_those_of_the_published_label_table():
    assert CELL_CLASSES[1] == "all"
    assert CELL_CLASSES[0] == "hem"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("UID_1_2_3_all.bmp", CellName("1", 2, 3, ALL)),
        ("UID_H1_2_3_hem.bmp", CellName("H1", 2, 3, HEM)),
        ("UID_h3_12_4_hem.bmp", CellName("H3", 12, 4, HEM)),
        ("uid_57_29_1_ALL.BMP", CellName("57", 29, 1, ALL)),
        ("UID_57_29_1_all", CellName("57", 29, 1, ALL)),
        ("UID_H10_100_12_hem.png", CellName("H10", 100, 12, HEM)),
    ],
)
def test_cell_names_give_subject_photo_cell_and_class(name, expected):
    assert parse_cell_name(name) == expected


def test_patient_and_healthy_subject_of_one_number_are_different_people():
    patient, healthy = parse_cell_name("UID_1_1_1_all.bmp"), parse_cell_name("UID_H1_1_1_hem.bmp")
    assert patient is not None
    assert healthy is not None
    assert patient.subject != healthy.subject


def test_case_does_not_make_another_subject():
    lower, upper = parse_cell_name("UID_h3_1_1_hem.bmp"), parse_cell_name("UID_H3_2_1_hem.bmp")
    assert lower is not None
    assert upper is not None
    assert lower.subject == upper.subject


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1.bmp",
        "UID_1_2_all.bmp",
        "UID_1_2_3_4_all.bmp",
        "UID_1_2_3_any.bmp",
        "UID_X1_2_3_hem.bmp",
        "UID_1_2_3_all.copy.bmp",
        "copy of UID_1_2_3_all.bmp",
        "UID_1_2_3_all .bmp",
        "._UID_1_2_3_all.bmp",
        "UID_-1_2_3_all.bmp",
    ],
)
def test_other_names_are_none(name):
    assert parse_cell_name(name) is None


def test_a_record_that_nothing_is_known_of():
    record = Record("1.bmp", Path("1.bmp"))
    assert (record.label, record.subject, record.split, record.fold) == (UNKNOWN_LABEL, "", "", NO_FOLD)
    assert record.is_missing


def test_an_empty_file_is_not_missing():
    assert not Record("1.bmp", Path("1.bmp"), state=FileState(0, 1)).is_missing


def test_a_name_of_endless_digits_is_no_cell_name() -> None:
    assert parse_cell_name(f"UID_{'9' * 5000}_1_1_all.bmp") is None
    assert parse_cell_name(f"UID_1_{'9' * 5000}_1_all.bmp") is None
