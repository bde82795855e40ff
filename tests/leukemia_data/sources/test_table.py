from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.files.atomic import NO_FILE
from leukemia_data.records.record import FoundImage
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.table import read_image_table


def read_table_images(table: Path, root: Path) -> list[FoundImage]:
    return read_image_table(table, root).images


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@pytest.fixture
def lab(tmp_path, write_tree) -> Path:
    """The lab's folder with three images a part."""
    parts = ("train", "valid", "test")
    return write_tree(tmp_path, *(f"new_dataset/{part}/{n}.bmp" for part in parts for n in range(3)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", ["Path,label", "path,Label", "PATH , LABEL"])
def test_the_lab_s_train_table(lab, encoding, header):
    table = write_csv(lab / "train.csv", header, "./new_dataset/train/0.bmp,0", "./new_dataset/train/2.bmp,1")
    table.write_bytes(table.read_text(encoding="utf-8").encode(encoding))
    images = read_table_images(table, lab)
    assert [image.record_id for image in images] == ["./new_dataset/train/0.bmp", "./new_dataset/train/2.bmp"]
    assert [image.class_name for image in images] == ["hem", "all"]
    assert {image.split for image in images} == {"train"}
    assert {image.subject for image in images} == {""}
    assert images[0].path == lab / "new_dataset" / "train" / "0.bmp"
    status = images[0].path.stat()
    assert images[0].state == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@pytest.mark.parametrize(
    ("name", "split"),
    [("valid.csv", "valid"), ("resnet_18_test.csv", "test"), ("cells.csv", ""), ("TRAIN_1.csv", "train")],
)
def test_the_table_s_name_is_its_split(lab, name, split):
    (image,) = read_table_images(write_csv(lab / name, "Path", "./new_dataset/test/1.bmp"), lab)
    assert (image.split, image.class_name) == (split, None)


def test_subject_and_split_columns_win(lab):
    table = write_csv(
        lab / "train.csv",
        "split,Path,subject,label,remark",
        "validation,new_dataset/train/0.bmp,p 7,blast,x",
        ",new_dataset/train/1.bmp,,,",
    )
    first, second = read_table_images(table, lab)
    assert (first.split, first.subject, first.class_name) == ("valid", "p 7", "blast")
    assert (second.split, second.subject, second.class_name) == ("train", "", None)


def test_c_nmc_names_give_the_subject(tmp_path, write_tree):
    write_tree(tmp_path, "UID_h3_1_1_hem.bmp")
    table = write_csv(tmp_path / "cells.csv", "Path,label", "UID_h3_1_1_hem.bmp,0")
    (image,) = read_table_images(table, tmp_path)
    assert (image.subject, image.class_name) == ("H3", "hem")


@pytest.mark.parametrize("label", ["1", "all", "ALL"])
def test_a_label_that_the_c_nmc_name_denies_is_wrong(tmp_path, write_tree, label):
    write_tree(tmp_path, "UID_h3_1_1_hem.bmp")
    table = write_csv(tmp_path / "cells.csv", "Path,label", f"UID_h3_1_1_hem.bmp,{label}")
    with pytest.raises(SourceError, match=r"cells\.csv.*column label.*line 2.*hem"):
        read_table_images(table, tmp_path)


def test_ids_are_the_path_strings_unchanged(lab):
    texts = ["./new_dataset/train/0.bmp", " new_dataset//train/1.bmp ", '"new_dataset/train/./2.bmp"']
    images = read_table_images(write_csv(lab / "train.csv", "Path", *texts), lab)
    assert [image.record_id for image in images] == [texts[0], texts[1], texts[2].strip('"')]
    assert all(image.state.is_file for image in images)


def test_missing_files_are_listed_not_skipped(lab):
    table = write_csv(lab / "train.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/9.bmp,1")
    present, missing = read_table_images(table, lab)
    assert present.state.size_bytes > 0
    assert missing.state == NO_FILE


def test_an_error_of_a_wrong_root_names_the_first_missing_file(lab):
    table = write_csv(lab / "train.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/1.bmp,1")
    with pytest.raises(SourceError, match=r"none of its 2 files.*--root") as caught:
        read_table_images(table, lab / "elsewhere")
    assert f"'./new_dataset/train/0.bmp' and looked for in {lab / 'elsewhere'};" in str(caught.value)


def test_all_wrong_rows_are_in_one_message(lab):
    table = write_csv(
        lab / "train.csv",
        "Path,label,split",
        "./new_dataset/train/0.bmp,0,train",
        ",1,train",
        "./new_dataset/train/1.bmp,1,later",
        "  ,1,train",
    )
    with pytest.raises(SourceError) as caught:
        read_table_images(table, lab)
    told = (
        "train.csv: 3 problems",
        "column Path is empty: line 3, line 5",
        "column split is none of train, valid, test: ",
    )
    for fragment in (*told, "line 4 ('later')"):
        assert fragment in str(caught.value)


def test_very_many_wrong_rows_are_counted(lab):
    table = write_csv(lab / "train.csv", "Path,label", *[",1"] * 25)
    with pytest.raises(SourceError, match=r"25 problems.*\(and 20 more\)"):
        read_table_images(table, lab)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Place,label", "a.bmp,1"], r"no column Path; its columns are Place, label"),
        ([""], r"is empty: no column Path"),
        (["Path,label"], r"no rows"),
        (["Patient_ID,new_names,labels", "UID_57_29_1_all.bmp,1.bmp,1"], r"label table: give the folder"),
    ],
)
def test_tables_of_another_kind(tmp_path, lines, message):
    with pytest.raises(SourceError, match=rf"cells\.csv.*{message}"):
        read_table_images(write_csv(tmp_path / "cells.csv", *lines), tmp_path)


def test_a_path_that_no_system_knows_is_missing(lab):
    table = write_csv(lab / "train.csv", "Path", "./new_dataset/train/0.bmp", "x" * 5000, "a|b.bmp")
    assert [not image.state.is_file for image in read_table_images(table, lab)] == [False, True, True]


def test_a_folder_is_no_image(lab):
    table = write_csv(lab / "train.csv", "Path", "./new_dataset/train/0.bmp", "./new_dataset/train")
    assert [not image.state.is_file for image in read_table_images(table, lab)] == [False, True]


def test_repeated_rows_count_once(lab):
    rows = ["./new_dataset/train/0.bmp,0", "./new_dataset/train/1.bmp,1", "./new_dataset/train/0.bmp,hem"]
    table = read_image_table(write_csv(lab / "train.csv", "Path,label", *rows), lab)
    assert [row.line for row in table.rows] == [2, 3]
    assert [note.split(": ")[1] for note in table.notes] == ["1 rows repeat an earlier one and count once"]


def test_another_path_of_one_file_is_an_image_and_may_not_contradict(lab):
    rows = ["./new_dataset/train/0.bmp,0", "new_dataset/train/../train/0.bmp,0"]
    table = read_image_table(write_csv(lab / "train.csv", "Path,label", *rows), lab)
    assert len(table.images) == 2
    assert "1 rows name a file again" in table.notes[0]
    write_csv(lab / "train.csv", "Path,label", rows[0], "new_dataset/train/../train/0.bmp,1")
    with pytest.raises(SourceError, match=r"column label contradicts .*: line 3 \(.* line 2 too\)"):
        read_image_table(lab / "train.csv", lab)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["0", "1", "hme"], ["column label is neither 0 (hem) nor 1 (all)", "line 4 ('hme')"]),
        (["0", "1", "-1", "2"], ["2 problems", "line 4 ('-1'), line 5 ('2')"]),
        (["all", "\u200ball"], ["column label holds an invisible character", "line 3 ('\\u200ball')"]),
        (["all", ' "all"'], ["a quote after a blank", "line 3"]),
    ],
)
def test_labels_that_are_no_class(lab, labels, words):
    rows = [f"new_dataset/train/{number}.bmp,{label}" for number, label in enumerate(labels)]
    table = write_csv(lab / "cells.csv", "Path,label", *rows)
    with pytest.raises(SourceError) as caught:
        read_image_table(table, lab)
    assert [word for word in words if word not in str(caught.value)] == []


def test_labels_are_not_compared_for_images_to_predict(lab):
    rows = [f"new_dataset/train/{number}.bmp,{label}" for number, label in enumerate(["0", "-1", "2"])]
    table = read_image_table(write_csv(lab / "cells.csv", "Path,label", *rows), lab, need_classes=False)
    assert [image.class_name for image in table.images] == ["hem", "-1", "2"]


@pytest.mark.parametrize(("label", "class_name"), [(" 1 ", "all"), ("0.0", "hem"), ("1.0", "all"), ("'=x", "=x")])
def test_labels_as_programs_write_them(lab, label, class_name):
    (image,) = read_table_images(write_csv(lab / "c.csv", "Path,label", f"new_dataset/train/0.bmp,{label}"), lab)
    assert image.class_name == class_name


def test_every_wrong_cell_of_a_row_is_reported(lab):
    table = write_csv(lab / "t.csv", "Path,label,split", "../x.bmp,hme,later", "new_dataset/train/0.bmp,1,train")
    told = r"3 problems: column label .*line 2 .*; column split .*line 2 .*; column Path leads out .*line 2"
    with pytest.raises(SourceError, match=told):
        read_image_table(table, lab)


def test_a_hundred_thousand_wrong_rows_are_one_short_message(lab):
    rows = [f"../{number}.bmp,{number % 2}" for number in range(100_000)]
    with pytest.raises(SourceError, match=r"100,000 problems.*and 99,995 more") as caught:
        read_image_table(write_csv(lab / "t.csv", "Path,label", *rows), lab)
    assert len(str(caught.value)) < 1000


def test_folders_that_may_be_classes_are_named(tmp_path, write_tree):
    paths = [f"deep/{name}/{n}.png" for name in ("blast", "normal") for n in range(2)]
    write_tree(tmp_path, *paths)
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(["path", *paths]) + "\n", encoding="utf-8")
    (note,) = read_image_table(table, tmp_path).notes
    assert "--class-level -1" in note
    assert "blast, normal" in note
    assert read_image_table(table, tmp_path, ReadingOptions(class_level=-1)).notes == []
    for folder in ("train", "test"):
        write_tree(tmp_path, *(f"{folder}/{n}.png" for n in range(2)))
    table.write_text("path\ntrain/0.png\ntrain/1.png\ntest/0.png\ntest/1.png\n", encoding="utf-8")
    assert read_image_table(table, tmp_path).notes == []
