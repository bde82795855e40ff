from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.sources.source import list_images, list_source, listed

PARTS = {"train": [0, 1, 1], "valid": [1, 0], "test": [None, None, None]}


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def lab(tmp_path, write_tree) -> Path:
    """The lab's folder: images in new_dataset, five tables beside it, three of them the same test set shuffled."""
    write_tree(tmp_path, *(f"new_dataset/{part}/{n}.bmp" for part, labels in PARTS.items() for n in range(len(labels))))
    for part in ("train", "valid"):
        rows = [f"./new_dataset/{part}/{n}.bmp,{label}" for n, label in enumerate(PARTS[part])]
        write_csv(tmp_path / f"{part}.csv", "Path,label", *rows)
    for depth, order in ((18, (2, 0, 1)), (50, (0, 1, 2)), (152, (1, 2, 0))):
        rows = [f"./new_dataset/test/{n}.bmp" for n in order]
        write_csv(tmp_path / f"resnet_{depth}_test.csv", "Path", *rows)
    return tmp_path


def lab_tables(folder: Path) -> list[Path]:
    names = ("train", "valid", "resnet_18_test", "resnet_50_test", "resnet_152_test")
    return [folder / f"{name}.csv" for name in names]


# --- the lab's tables -----------------------------------------------------------------------------------------


def test_the_lab_s_five_tables(lab):
    listing = list_source(lab_tables(lab))
    assert listing.classes == ("hem", "all")
    by_id = {record.record_id: record for record in listing.records}
    assert len(by_id) == len(listing.records) == 8
    assert [by_id[f"./new_dataset/train/{n}.bmp"].label for n in range(3)] == [0, 1, 1]
    assert [by_id[f"./new_dataset/valid/{n}.bmp"].label for n in range(2)] == [1, 0]
    assert [by_id[f"./new_dataset/test/{n}.bmp"].label for n in range(3)] == [-1, -1, -1]
    assert {record.split for record in listing.records} == {"train", "valid", "test"}
    assert not any(record.is_missing for record in listing.records)


def test_tables_apart_from_the_images_need_the_root(lab, tmp_path):
    apart = tmp_path / "tables"
    apart.mkdir()
    for table in lab_tables(lab):
        (apart / table.name).write_bytes(table.read_bytes())
    with pytest.raises(SourceError, match="--root"):
        list_source(lab_tables(apart))
    listing = list_source(lab_tables(apart), root=lab)
    assert [record.record_id for record in listing.records] == [
        record.record_id for record in list_source(lab_tables(lab)).records
    ]


def test_one_image_with_two_labels_is_a_conflict(lab):
    table = write_csv(lab / "again.csv", "Path,label,split", "./new_dataset/train/0.bmp,1,train")
    with pytest.raises(SourceError, match=r"1 file .*train/0\.bmp' \(label: .*again\.csv line 2, .*train\.csv line 2"):
        list_source([lab / "train.csv", table])


def test_one_image_in_two_splits_is_a_conflict(lab):
    table = write_csv(lab / "valid_too.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/1.bmp,1")
    with pytest.raises(SourceError, match=r"2 rows .*split: .*valid_too\.csv line 3"):
        list_source([lab / "train.csv", table])


def test_conflicts_within_one_table_and_harmless_repeats(lab):
    row = "./new_dataset/train/0.bmp,0"
    assert len(list_source([write_csv(lab / "train.csv", "Path,label", row, row)]).records) == 1
    write_csv(lab / "train.csv", "Path,label", row, "./new_dataset/train/0.bmp,1")
    with pytest.raises(SourceError, match="column label contradicts"):
        list_source([lab / "train.csv"])


def test_one_file_by_two_paths_in_two_tables_is_in_one_split(lab):
    table = write_csv(lab / "valid_too.csv", "Path,label", "new_dataset/train/../train/0.bmp,0")
    with pytest.raises(SourceError, match=r"1 file .*\(split: .*valid_too\.csv line 2, .*train\.csv line 2\)"):
        list_source([lab / "train.csv", table])
    again = write_csv(lab / "train_too.csv", "Path,label", "new_dataset/train/../train/0.bmp,0")
    assert len(list_source([lab / "train.csv", again]).records) == 4


def test_files_outside_the_root_on_demand(lab):
    (lab.parent / "outside.bmp").write_bytes(b"x")
    table = write_csv(lab / "train.csv", "Path,label", "../outside.bmp,1")
    for listing in (list_source, list_images):
        with pytest.raises(SourceError, match="column Path leads out of"):
            listing([table])
    (record,) = list_images([table], allow_outside=True)
    assert (record.is_missing, record.label) == (False, 1)
    assert list_source([table], allow_outside=True).records == (record,)


def test_classes_that_differ_in_case_alone(lab):
    first = write_csv(lab / "a.csv", "Path,label", "new_dataset/train/0.bmp,blast")
    second = write_csv(lab / "b.csv", "Path,label", "new_dataset/train/1.bmp,Blast")
    with pytest.raises(SourceError, match="case of their names alone: Blast, blast"):
        list_source([first, second])


def test_missing_files_are_records(lab):
    table = write_csv(lab / "train.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/9.bmp,1")
    assert [record.is_missing for record in list_source([table]).records] == [False, True]


def test_numbers_beyond_the_lab_s_two_are_not_mixed_with_its_names(lab):
    rows = [f"./new_dataset/train/{n}.bmp,{n}" for n in range(3)]
    with pytest.raises(SourceError, match="label"):
        list_source([write_csv(lab / "train.csv", "Path,label", *rows)])


# --- classes --------------------------------------------------------------------------------------------------


def test_c_nmc_labels_whatever_the_case_of_the_folders(tmp_path, write_tree):
    write_tree(tmp_path, "ALL/a.png", "HEM/a.png")
    listing = list_source([tmp_path])
    assert listing.classes == ("hem", "all")
    assert [record.label for record in listing.records] == [1, 0]


def test_one_c_nmc_class_alone_keeps_its_label(tmp_path, write_tree):
    write_tree(tmp_path, "all/UID_1_1_1_all.bmp")
    listing = list_source([tmp_path])
    assert listing.classes == ("hem", "all")
    assert listing.records[0].label == 1


def test_other_classes_are_in_alphabetical_order(tmp_path, write_tree):
    write_tree(tmp_path, "relapse/a.png", "blast/a.png", "healthy/a.png")
    listing = list_source([tmp_path])
    assert listing.classes == ("blast", "healthy", "relapse")
    assert {record.record_id: record.label for record in listing.records} == {
        "blast/a.png": 0,
        "healthy/a.png": 1,
        "relapse/a.png": 2,
    }


# --- ids and names --------------------------------------------------------------------------------------------


def test_records_are_in_the_order_of_their_ids(sample_tree):
    ids = [record.record_id for record in list_source([sample_tree]).records]
    assert ids == sorted(ids)
    assert len(ids) == 32


def test_a_moved_tree_has_the_same_ids_and_no_absolute_path(tmp_path, write_tree):
    listings = []
    for place in ("here/cells", "there/deeper/cells"):
        write_tree(tmp_path / place, "blast/p1/a.png", "healthy/p2/ü ö.png")
        listings.append(list_source([tmp_path / place]))
    first, second = listings
    assert [r.record_id for r in first.records] == ["blast/p1/a.png", "healthy/p2/ü ö.png"]
    assert [r.record_id for r in first.records] == [r.record_id for r in second.records]
    assert first.name == second.name == "cells"


def test_relative_and_absolute_arguments_give_the_same_listing(tmp_path, write_tree, monkeypatch):
    write_tree(tmp_path / "cells", "blast/a.png", "healthy/a.png")
    absolute = list_source([tmp_path / "cells"])
    monkeypatch.chdir(tmp_path / "cells")
    relative = list_source([Path()])
    assert [r.record_id for r in relative.records] == [r.record_id for r in absolute.records]
    assert relative.name == absolute.name == "cells"


def test_several_folders_keep_their_images_apart(tmp_path, write_tree):
    for name in ("hospital-a", "hospital-b"):
        write_tree(tmp_path / name, "blast/1.png", "healthy/1.png")
    listing = list_source([tmp_path / "hospital-a", tmp_path / "hospital-b"])
    assert [record.record_id for record in listing.records] == [
        "hospital-a/blast/1.png",
        "hospital-a/healthy/1.png",
        "hospital-b/blast/1.png",
        "hospital-b/healthy/1.png",
    ]


def test_two_folders_of_one_name_are_not_mixed_up(tmp_path, write_tree):
    for place in ("a/cells", "b/cells"):
        write_tree(tmp_path / place, "blast/1.png", "healthy/1.png")
    with pytest.raises(SourceError, match=r"2 ids .*cells/blast/1\.png"):
        list_source([tmp_path / "a" / "cells", tmp_path / "b" / "cells"])


@pytest.mark.parametrize(
    ("folder", "name"),
    [("C-NMC 2019 (PKG)", "C-NMC-2019-PKG"), ("..cells..", "cells"), ("細胞", "images"), ("a_b.c", "a_b.c")],
)
def test_suggested_names_are_plain(tmp_path, write_tree, folder, name):
    write_tree(tmp_path / folder, "blast/1.png")
    assert list_source([tmp_path / folder]).name == name


def test_a_table_s_folder_gives_the_name(lab):
    assert list_source(lab_tables(lab)).name == list_source([lab_tables(lab)[0]]).name
    assert list_source(lab_tables(lab)).name.startswith(lab.name[:5])


# --- what is refused ------------------------------------------------------------------------------------------


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"not found.*absent"):
        list_source([tmp_path / "absent"])
    other = tmp_path / "cells.xlsx"
    other.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"cells\.xlsx is neither"):
        list_source([other])
    with pytest.raises(SourceError, match="no images"):
        list_source([tmp_path])


def test_listed_is_short():
    assert listed("abc") == "a, b, c"
    assert listed(str(n) for n in range(13)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 (and 3 more)"


# --- images to predict ----------------------------------------------------------------------------------------


def test_files_folders_and_tables_to_predict(tmp_path, write_tree, lab):
    write_tree(tmp_path / "loose", "2.png", "1.png", "UID_H3_1_1_hem.bmp")
    records = list_images([tmp_path / "loose" / "UID_H3_1_1_hem.bmp", tmp_path / "loose", lab / "resnet_18_test.csv"])
    assert [record.label for record in records] == [0, -1, -1, 0, -1, -1, -1]
    # The table's order is the submission's order.
    assert [record.record_id for record in records[-3:]] == [f"./new_dataset/test/{n}.bmp" for n in (2, 0, 1)]


def test_classes_of_another_kind_are_unknown_to_predict(tmp_path, write_tree):
    write_tree(tmp_path, "blast/a.png", "all/a.png")
    assert {record.record_id: record.label for record in list_images([tmp_path])} == {
        "all/a.png": 1,
        "blast/a.png": -1,
    }


# --- real images ----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_real_tree(real_data):
    listing = list_source([real_data])
    assert listing.classes == ("hem", "all")
    named = [record for record in listing.records if record.label >= 0]
    assert named
    assert all(record.subject.startswith("H") == (record.label == 0) for record in named)
