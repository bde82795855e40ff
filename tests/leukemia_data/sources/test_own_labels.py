from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.sources.classes import is_other_class, label_of, others_text, own_label
from leukemia_data.sources.source import list_images

CLASSES = ("Blast", "Healthy")


@pytest.mark.parametrize(
    ("record_id", "class_name", "label"),
    [
        ("Blast/a.png", "Blast", 0),
        ("blast/a.png", "blast", 0),
        ("a.png", None, -1),
        ("x/a.png", "all", -1),
        # The file name has a class of another list; the folder has one of the run's.
        ("Healthy/UID_7_1_1_all.bmp", "all", 1),
        ("Healthy/slide_3/a.png", "slide_3", 1),
        ("Healthy\\a.png", None, 1),
        ("Blast/unknown/a.png", None, -1),
        ("Blast/Healthy/a.png", None, 1),
        ("a.png", "1", -1),
    ],
)
def test_labels_are_those_of_the_runs_own_classes(record_id: str, class_name: str | None, label: int) -> None:
    assert own_label(class_name, record_id, CLASSES) == label


def test_numbers_are_labels_of_c_nmc_only_or_names() -> None:
    assert [label_of(text, ("hem", "all")) for text in ("0", "1", "HEM", "All", "2")] == [0, 1, 0, 1, -1]
    assert [label_of(text, ("1", "0")) for text in ("0", "1")] == [1, 0]
    assert [label_of(text, ("all", "hem")) for text in ("0", "1", "all")] == [-1, -1, 0]


def test_case_counts_where_it_alone_differs() -> None:
    assert [label_of(text, ("blast", "Blast")) for text in ("blast", "Blast", "BLAST")] == [0, 1, -1]


def test_other_lists_are_counted_and_ambiguous_folders_are_not() -> None:
    images = [("all/1.png", "all"), ("2_all.png", "all"), ("P3/3.png", "P3"), ("t.png", "Rest")]
    assert [is_other_class(name, record_id) for record_id, name in images] == [True, True, False, True]
    assert others_text({"all": 2, "Rest": 1}, CLASSES).startswith("all (2 images), Rest (1 images): named by another")


def test_folders_and_names_and_tables(tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, "new/all/UID_7_1_1_all.png", "new/Healthy/x.png", "new/Healthy/UID_7_1_2_all.png")
    records = list_images([tmp_path / "new"], classes=CLASSES)
    assert {record.record_id: record.label for record in records} == {
        "all/UID_7_1_1_all.png": -1,
        "Healthy/x.png": 1,
        "Healthy/UID_7_1_2_all.png": 1,
    }
    table = tmp_path / "t.csv"
    table.write_text("Path,label\nnew/Healthy/x.png,blast\nnew/all/UID_7_1_1_all.png,Rest\n", encoding="utf-8")
    assert [record.label for record in list_images([table], classes=CLASSES)] == [0, -1]
