from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.sources.source_table import read_table_images


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
    assert (images[0].size_bytes, images[0].mtime_ns) == (status.st_size, status.st_mtime_ns)


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


def test_c_nmc_names_tell_the_subject(tmp_path, write_tree):
    write_tree(tmp_path, "UID_h3_1_1_hem.bmp")
    table = write_csv(tmp_path / "cells.csv", "Path,label", "UID_h3_1_1_hem.bmp,0")
    (image,) = read_table_images(table, tmp_path)
    assert (image.subject, image.class_name) == ("H3", "hem")


@pytest.mark.parametrize("label", ["1", "all", "ALL"])
def test_a_label_that_the_c_nmc_name_denies_is_wrong(tmp_path, write_tree, label):
    write_tree(tmp_path, "UID_h3_1_1_hem.bmp")
    table = write_csv(tmp_path / "cells.csv", "Path,label", f"UID_h3_1_1_hem.bmp,{label}")
    with pytest.raises(SourceError, match=r"cells\.csv.*line 2.*hem"):
        read_table_images(table, tmp_path)


def test_ids_are_the_path_strings_unchanged(lab):
    texts = ["./new_dataset/train/0.bmp", " new_dataset//train/1.bmp ", '"new_dataset/train/./2.bmp"']
    images = read_table_images(write_csv(lab / "train.csv", "Path", *texts), lab)
    assert [image.record_id for image in images] == [texts[0], texts[1], texts[2].strip('"')]
    assert not any(image.size_bytes < 0 for image in images)


def test_missing_files_are_listed_not_skipped(lab):
    table = write_csv(lab / "train.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/9.bmp,1")
    present, missing = read_table_images(table, lab)
    assert present.size_bytes > 0
    assert (missing.size_bytes, missing.mtime_ns) == (-1, -1)


def test_a_wrong_root_is_told_with_the_first_place_looked_at(lab):
    table = write_csv(lab / "train.csv", "Path,label", "./new_dataset/train/0.bmp,0", "./new_dataset/train/1.bmp,1")
    with pytest.raises(SourceError, match=r"none of its 2 files.*--root") as caught:
        read_table_images(table, lab / "elsewhere")
    assert str(lab / "elsewhere" / "new_dataset" / "train" / "0.bmp") in str(caught.value)


def test_all_wrong_rows_are_told_at_once(lab):
    table = write_csv(
        lab / "train.csv",
        "Path,label,split",
        "./new_dataset/train/0.bmp,0,train",
        ",1,train",
        "./new_dataset/train/1.bmp,1,holdout",
        "  ,1,train",
    )
    with pytest.raises(SourceError) as caught:
        read_table_images(table, lab)
    for fragment in ("train.csv", "line 3: Path is empty", "line 4: split is 'holdout'", "line 5: Path is empty"):
        assert fragment in str(caught.value)


def test_very_many_wrong_rows_are_counted(lab):
    table = write_csv(lab / "train.csv", "Path,label", *[",1"] * 25)
    with pytest.raises(SourceError, match=r"\(and 15 more\)"):
        read_table_images(table, lab)


def test_blank_lines_and_short_and_long_rows(lab):
    table = write_csv(
        lab / "train.csv", "Path,label", "", "./new_dataset/train/0.bmp", "./new_dataset/train/1.bmp,1,2,3", ""
    )
    first, second = read_table_images(table, lab)
    assert (first.class_name, second.class_name) == (None, "all")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["File,label", "a.bmp,1"], r"no column Path; its header is File,label"),
        (["Path;label", "a.bmp;1"], r"no column Path; its header is Path;label"),
        ([""], r"no column Path; its header is empty"),
        (["Path,label"], r"no rows"),
        (["Patient_ID,new_names,labels", "UID_57_29_1_all.bmp,1.bmp,1"], r"label table: give the folder"),
    ],
)
def test_tables_of_another_kind(tmp_path, lines, message):
    with pytest.raises(SourceError, match=rf"cells\.csv.*{message}"):
        read_table_images(write_csv(tmp_path / "cells.csv", *lines), tmp_path)


def test_what_is_no_utf_8_or_no_text(tmp_path):
    table = write_csv(tmp_path / "cells.csv", "Path,label", "größe.bmp,1", encoding="latin-1")
    with pytest.raises(SourceError, match=r"cells\.csv cannot be read"):
        read_table_images(table, tmp_path)
    table.write_bytes(b"Path,label\n\x00\xff\xfe\n")
    with pytest.raises(SourceError, match=r"cells\.csv"):
        read_table_images(table, tmp_path)


def test_a_path_that_no_system_knows_is_missing(lab):
    table = write_csv(lab / "train.csv", "Path", "./new_dataset/train/0.bmp", "x" * 5000, "a\x01b.bmp")
    assert [image.size_bytes < 0 for image in read_table_images(table, lab)] == [False, True, True]


def test_a_folder_is_no_image(lab):
    table = write_csv(lab / "train.csv", "Path", "./new_dataset/train/0.bmp", "./new_dataset/train")
    assert [image.size_bytes < 0 for image in read_table_images(table, lab)] == [False, True]
