from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.sources.image_rows import (
    ImageRow,
    first_of_each_file,
    list_image_rows,
    list_table_rows,
)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with test/0.bmp to test/3.bmp; a list names files, it does not read them."""
    (tmp_path / "test").mkdir()
    for number in range(4):
        (tmp_path / "test" / f"{number}.bmp").write_bytes(b"")
    return tmp_path


def written(lab: Path, *paths: str, header: str = "Path") -> Path:
    table = lab / "list.csv"
    table.write_text("".join(f"{line}\n" for line in (header, *paths)), encoding="utf-8")
    return table


def rows_of_list(table: Path, root: Path) -> list[ImageRow]:
    return list_table_rows(table, root, need_files=True)


def test_order_and_strings_are_the_list_s(lab: Path) -> None:
    texts = ["./test/2.bmp", "test/0.bmp", "test//3.bmp"]
    found = rows_of_list(written(lab, *texts), lab)
    assert [image.record.record_id for image in found] == texts
    assert [image.line for image in found] == [2, 3, 4]
    assert [image.record.path.name for image in found] == ["2.bmp", "0.bmp", "3.bmp"]


def test_one_image_has_one_key_however_its_path_is_written(lab: Path) -> None:
    forms = ["./test/1.bmp", "test/1.bmp", "test/./1.bmp", "./test/../test/1.bmp", str(lab / "test" / "1.bmp")]
    keys = {rows_of_list(written(lab, form), lab)[0].key for form in [*forms, ".\\test\\1.bmp", " test/1.bmp"]}
    assert len(keys) == 1
    other = rows_of_list(written(lab, "test/2.bmp"), lab)[0].key
    assert other not in keys


def test_backslashes_separate_folders_and_stay_in_the_string(lab: Path) -> None:
    [image] = rows_of_list(written(lab, ".\\test\\1.bmp"), lab)
    assert image.record.record_id == ".\\test\\1.bmp"
    assert (lab / "test" / "1.bmp").samefile(str(image.record.path))


@pytest.mark.skipif(os.name == "nt", reason="a backslash is no letter of a name here")
def test_backslash_that_is_a_letter(lab: Path) -> None:
    (lab / "odd\\name.bmp").write_bytes(b"")
    [image] = rows_of_list(written(lab, "odd\\name.bmp"), lab)
    assert image.record.path == lab / "odd\\name.bmp"
    (lab / "test\\1.bmp").write_bytes(b"")
    with pytest.raises(SourceError, match=r"column Path may mean two files.*line 2"):
        rows_of_list(written(lab, "test\\1.bmp"), lab)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege here")
def test_links_to_one_file_are_images_of_their_own(lab: Path) -> None:
    (lab / "link.bmp").symlink_to(lab / "test" / "1.bmp")
    first, second = rows_of_list(written(lab, "test/1.bmp", "link.bmp"), lab)
    assert first.key != second.key


def test_repeated_rows_stay_in_their_places(lab: Path) -> None:
    texts = ["test/0.bmp", "test/1.bmp", "test/0.bmp", "./test/1.bmp", "test/1.bmp"]
    rows = rows_of_list(written(lab, *texts), lab)
    assert [row.record.record_id for row in rows] == texts
    assert [row.line for row in rows] == [2, 3, 4, 5, 6]
    assert [row.record.record_id for row in first_of_each_file(rows)] == texts[:2]


def test_wrong_rows_are_reported_with_their_lines(lab: Path) -> None:
    table = written(lab, "test/0.bmp", "", "../1.bmp", "test/9.bmp", '" "', "test\\8.bmp", "test/1.bmp")
    with pytest.raises(SourceError) as caught:
        rows_of_list(table, lab)
    message = str(caught.value)
    for part in (
        "list.csv: 3 problems",
        "column Path leads out of",
        "no such file",
        "line 5 ('test/9.bmp'), line 7",
        "--root",
    ):
        assert part in message


def test_missing_files_are_rows_where_none_is_needed(lab: Path) -> None:
    rows = list_table_rows(written(lab, "test/0.bmp", "test/9.bmp"), lab)
    assert [row.record.is_missing for row in rows] == [False, True]


def test_no_row_is_found(lab: Path) -> None:
    with pytest.raises(SourceError, match=r"10 problems.*--root.*and 5 more"):
        rows_of_list(written(lab, *(f"elsewhere/{number}.bmp" for number in range(10))), lab)
    with pytest.raises(SourceError, match=r"none of its 2 files.*--root"):
        list_table_rows(written(lab, "elsewhere/0.bmp", "elsewhere/1.bmp"), lab)


def test_folder_is_no_image(lab: Path) -> None:
    with pytest.raises(SourceError, match=r"1 problem: .*line 3"):
        rows_of_list(written(lab, "test/1.bmp", "test"), lab)


@pytest.mark.parametrize("header", ["path", " PATH ", "\ufeffPath", "label,Path"])
def test_header_is_read_as_elsewhere(lab: Path, header: str) -> None:
    row = "1,test/2.bmp" if "," in header else "test/2.bmp"
    [image] = rows_of_list(written(lab, row, header=header), lab)
    assert image.record.record_id == "test/2.bmp"


@pytest.mark.parametrize(("content", "word"), [("a\n1\n", "Path"), ("Path\n", "no rows"), ("", "Path")])
def test_what_is_no_list(lab: Path, content: str, word: str) -> None:
    (lab / "list.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=word):
        rows_of_list(lab / "list.csv", lab)


def test_sources_are_listed_in_the_order_given_with_keys_of_one_kind(lab: Path) -> None:
    table = written(lab, "test/3.bmp", "test/1.bmp")
    image = lab / "test" / "1.bmp"
    rows = list_image_rows([table, image, lab / "test"], root=lab)
    names = [row.record.path.name for row in rows]
    assert names == ["3.bmp", "1.bmp", "1.bmp", "0.bmp", "1.bmp", "2.bmp", "3.bmp"]
    assert [row.line for row in rows] == [2, 3, 0, 0, 0, 0, 0]
    assert len(first_of_each_file(rows)) == 4
    assert len({row.key for row in rows if row.record.path.name == "1.bmp"}) == 1


def test_one_id_for_two_files_is_refused(lab: Path) -> None:
    (lab / "other" / "test").mkdir(parents=True)
    (lab / "other" / "test" / "1.bmp").write_bytes(b"")
    (lab / "other" / "list.csv").write_text("Path\ntest/1.bmp\n", encoding="utf-8")
    with pytest.raises(SourceError, match="several files"):
        list_image_rows([written(lab, "test/1.bmp"), lab / "other" / "list.csv"])


@pytest.mark.parametrize(
    ("label", "class_name"), [("1", "1"), ("01", "1"), ("Blast", "Blast"), ("", None), ("NA", None)]
)
def test_labels_keep_the_words_of_their_table(lab: Path, label: str, class_name: str | None) -> None:
    [row] = rows_of_list(written(lab, f"test/1.bmp,{label}", header="Path,label"), lab)
    assert row.class_name == class_name
    assert row.record.label == -1


def test_labels_of_the_lab_s_tables_are_c_nmc_s(lab: Path) -> None:
    (lab / "new_dataset").mkdir()
    (lab / "test").rename(lab / "new_dataset" / "test")
    rows = rows_of_list(written(lab, *(f"new_dataset/test/{n}.bmp,{n}" for n in (0, 1)), header="Path,label"), lab)
    assert [row.class_name for row in rows] == ["hem", "all"]
