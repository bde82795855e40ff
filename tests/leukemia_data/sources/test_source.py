from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.sources.reading_options import ReadingOptions
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
    listing = list_source([table], allow_outside=True)
    # Not a list of C-NMC: its numbers are names.
    assert listing.classes == ("1",)
    assert [record.path for record in listing.records] == [record.path]


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


def test_two_folders_of_one_name_are_distinguished_by_those_above(tmp_path, write_tree):
    for place in ("a/cells", "b/cells"):
        write_tree(tmp_path / place, "blast/1.png", "healthy/1.png")
    listing = list_source([tmp_path / "a" / "cells", tmp_path / "b" / "cells"])
    ids = [record.record_id for record in listing.records]
    assert ids == [f"{place}/cells/{name}/1.png" for place in "ab" for name in ("blast", "healthy")]
    assert listing.classes == ("blast", "healthy")


def test_a_folder_in_another_is_not_listed_twice(tmp_path, write_tree):
    write_tree(tmp_path, "train/blast/1.png", "train/healthy/1.png")
    with pytest.raises(SourceError, match="twice"):
        list_source([tmp_path, tmp_path / "train"])


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


# --- several roots --------------------------------------------------------------------------------------------


def counts(listing) -> tuple[dict[str, int], dict[str, int]]:
    return dict(listing.reading.classes), {split.name: split.num_images for split in listing.reading.splits}


@pytest.mark.parametrize("words", ["train val test", "DTrain DVal DTest", "训练集 验证集 测试集"])
@pytest.mark.parametrize("place", ["", "images"])
def test_roots_whose_names_are_splits(tmp_path, write_tree, words, place):
    roots = [write_tree(tmp_path / word / place, "hem/1.png", "all/1.png") for word in words.split()]
    together = list_source(roots)
    assert counts(together) == ({"hem": 3, "all": 3}, {"train": 2, "valid": 2, "test": 2})
    alone = list_source([tmp_path])
    assert counts(alone) == counts(together)
    assert [(r.label, r.split) for r in alone.records] == [(r.label, r.split) for r in together.records]


def test_one_root_whose_name_is_a_split(tmp_path, write_tree):
    root = write_tree(tmp_path / "test", "hem/1.png", "all/1.png")
    assert counts(list_source([root]))[1] == {"test": 2}
    # A word among others is the set's name.
    assert counts(list_source([write_tree(tmp_path / "cells-test", "hem/1.png", "all/1.png")]))[1] == {}


def test_roots_whose_names_are_classes(tmp_path, write_tree):
    roots = [write_tree(tmp_path / name, "1.png", "2.png") for name in ("healthy", "blast")]
    listing = list_source(roots)
    assert counts(listing)[0] == {"blast": 2, "healthy": 2}
    assert listing.reading.class_sources == ("the names of the sources",)
    assert counts(list_source(roots, options=ReadingOptions(classes=("healthy", "blast"))))[0] == {
        "healthy": 2,
        "blast": 2,
    }


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_roots_of_one_name_get_as_many_parts_as_needed(tmp_path, write_tree, depth):
    below = "/".join(["images", "png", "cells"][-depth:])
    roots = [write_tree(tmp_path / site / below, "blast/1.png", "healthy/1.png") for site in ("siteA", "siteB")]
    listing = list_source(roots)
    assert {record.record_id.rsplit("/", 2)[0] for record in listing.records} == {f"siteA/{below}", f"siteB/{below}"}
    assert counts(listing)[0] == {"blast": 2, "healthy": 2}


# --- options for folders and tables alike ---------------------------------------------------------------------


@pytest.fixture(params=["folders", "table"])
def four_classes(request, tmp_path, write_tree) -> Path:
    """Four classes of two images, and two that are no data; as folders, and as a table of the same images."""
    names = ("Benign", "Early", "Pre", "Pro")
    paths = [f"{name}/{n}.png" for name in names for n in (1, 2)]
    root = write_tree(tmp_path / "cells", *paths, "Pro/old/1.png", "Benign/draft.png")
    if request.param == "folders":
        return root
    rows = [f"{path},{path.split('/')[0]}" for path in (*paths, "Pro/old/1.png", "Benign/draft.png")]
    return write_csv(root / "cells.csv", "path,label", *rows)


def test_exclude_merge_and_classes_mean_the_same_for_folders_and_tables(four_classes):
    options = ReadingOptions.parse(
        exclude=["old", "draft.png"], merge=["Leukemia=Early+Pre+Pro"], classes="Leukemia,Benign"
    )
    listing = list_source([four_classes], options=options)
    assert (listing.classes, counts(listing)[0]) == (("Leukemia", "Benign"), {"Leukemia": 6, "Benign": 2})
    assert listing.reading.options == options
    assert {one.reason: one.count for one in listing.reading.passed_over}["what --exclude names"] == 2


def test_classes_that_are_left_out_are_counted(four_classes):
    listing = list_source(
        [four_classes], options=ReadingOptions.parse(classes="Pre,Benign", exclude=["old", "draft.*"])
    )
    assert counts(listing)[0] == {"Pre": 2, "Benign": 2}
    (left_out,) = [one for one in listing.reading.passed_over if "--classes" in one.reason]
    assert (left_out.count, len(left_out.examples)) == (4, 3)


def test_options_that_leave_nothing(four_classes):
    with pytest.raises(UsageError, match="no such class"):
        list_source([four_classes], options=ReadingOptions.parse(classes="Late", exclude=["old", "draft.*"]))
    with pytest.raises(SourceError):
        list_source([four_classes], options=ReadingOptions.parse(exclude=["*.png"]))


def test_split_folders_mean_the_same_for_folders_and_tables(tmp_path, write_tree):
    paths = [f"{part}/{name}/1.png" for part in ("A", "B", "test") for name in ("blast", "normal")]
    root = write_tree(tmp_path / "cells", *paths)
    table = write_csv(root / "cells.csv", "path,label", *(f"{path},{path.split('/')[1]}" for path in paths))
    for text in ("train=A+test,test=b", "train=/A+/test,test=B/"):
        options = ReadingOptions.parse(split_folders=text, class_level=2)
        assert counts(list_source([root], options=options)) == ({"blast": 3, "normal": 3}, {"train": 4, "test": 2})
        options = ReadingOptions.parse(split_folders=text)
        assert counts(list_source([table], options=options)) == ({"blast": 3, "normal": 3}, {"train": 4, "test": 2})


def test_folders_as_subjects_are_never_the_classes(tmp_path, write_tree):
    paths = ["blast/anna/1.png", "blast/bert/1.png", "normal/carl/1.png"]
    root = write_tree(tmp_path / "cells", *paths)
    table = write_csv(root / "cells.csv", "path,label", *(f"{path},{path.split('/')[0]}" for path in paths))
    options = ReadingOptions.parse(subject_from="folder", class_level=1)
    subjects = [record.subject for record in list_source([root], options=options).records]
    assert subjects == ["anna", "bert", "carl"]
    options = ReadingOptions.parse(subject_from="folder")
    assert [record.subject for record in list_source([table], options=options).records] == subjects
    turned = write_tree(tmp_path / "turned", "anna/blast/1.png", "carl/normal/1.png")
    table = write_csv(turned / "cells.csv", "path,label", "anna/blast/1.png,blast", "carl/normal/1.png,normal")
    assert [record.subject for record in list_source([table], options=options).records] == ["anna", "carl"]


# --- the reading ----------------------------------------------------------------------------------------------


def test_a_table_named_after_several_splits_has_none(lab):
    rows = ["./new_dataset/train/0.bmp,hem", "./new_dataset/valid/0.bmp,all"]
    listing = list_source([write_csv(lab / "train_val_test.csv", "Path,label", *rows)])
    assert listing.reading.splits == ()
    (note,) = [note for note in listing.notes if "--split-column" in note]
    assert "train, valid, test" in note


def test_folders_and_tables_together(tmp_path, write_tree):
    root = write_tree(tmp_path / "train", "blast/1.png", "normal/1.png")
    images = write_tree(tmp_path / "more", "a.png", "b.png")
    table = write_csv(images / "test.csv", "path,diagnosis,patient,age", "a.png,blast,x,30", "b.png,NA,y,40")
    reading = list_source([root, table]).reading
    assert reading.classes == (("blast", 2), ("normal", 1))
    assert reading.num_unlabelled == 1
    assert {split.name: (split.num_images, split.words) for split in reading.splits} == {
        "train": (2, ("train",)),
        "test": (2, ("table test.csv",)),
    }
    assert reading.class_sources == ("folder level 1", "column diagnosis")
    assert reading.subjects.sources == ("column patient",)
    (found,) = reading.tables
    assert (found.name, found.not_read) == ("test.csv", ("age",))
    assert reading.num_images == 4


def test_tables_below_a_folder_are_named_with_their_columns(tmp_path, write_tree):
    root = write_tree(tmp_path / "cells", "blast/1.png", "normal/1.png")
    write_csv(root / "ages.csv", "file;age", "1.png;3")
    (found,) = list_source([root]).reading.tables
    assert (found.name, found.not_read, found.is_source) == ("ages.csv", ("file", "age"), False)


def test_subjects_that_a_program_wrote_as_numbers_are_the_same(tmp_path, write_tree):
    """pandas writes 1.0 as soon as one cell of the column is empty."""
    write_tree(tmp_path, *(f"{n}.png" for n in range(5)))
    train = write_csv(tmp_path / "train.csv", "path,label,subject", "0.png,x,1", "1.png,y,2")
    test = write_csv(tmp_path / "test.csv", "path,label,subject", "2.png,x,1.0", "3.png,y,3.0", "4.png,y,")
    listing = list_source([train, test])
    assert [record.subject for record in listing.records] == ["1", "2", "1", "3", ""]
    assert (listing.reading.subjects.count, listing.reading.subjects.num_alike) == (3, 0)
