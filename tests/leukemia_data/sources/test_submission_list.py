from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.sources.submission_list import read_submission_list


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


def test_order_and_strings_are_the_list_s(lab: Path) -> None:
    texts = ["./test/2.bmp", "test/0.bmp", "test//3.bmp"]
    found = read_submission_list(written(lab, *texts), lab)
    assert [image.text for image in found] == texts
    assert [image.line for image in found] == [2, 3, 4]
    assert [image.path.name for image in found] == ["2.bmp", "0.bmp", "3.bmp"]


def test_one_image_has_one_key_however_its_path_is_written(lab: Path) -> None:
    forms = ["./test/1.bmp", "test/1.bmp", "test/./1.bmp", "./test/../test/1.bmp", str(lab / "test" / "1.bmp")]
    keys = {read_submission_list(written(lab, form), lab)[0].key for form in [*forms, ".\\test\\1.bmp", " test/1.bmp"]}
    assert len(keys) == 1
    other = read_submission_list(written(lab, "test/2.bmp"), lab)[0].key
    assert other not in keys


def test_backslashes_separate_folders_and_stay_in_the_string(lab: Path) -> None:
    [image] = read_submission_list(written(lab, ".\\test\\1.bmp"), lab)
    assert image.text == ".\\test\\1.bmp"
    assert image.path.samefile(lab / "test" / "1.bmp")


@pytest.mark.skipif(os.name == "nt", reason="a backslash is no letter of a name here")
def test_backslash_that_is_a_letter(lab: Path) -> None:
    (lab / "odd\\name.bmp").write_bytes(b"")
    [image] = read_submission_list(written(lab, "odd\\name.bmp"), lab)
    assert image.path == lab / "odd\\name.bmp"
    (lab / "test\\1.bmp").write_bytes(b"")
    with pytest.raises(SourceError, match=r"column Path may mean two files.*line 2"):
        read_submission_list(written(lab, "test\\1.bmp"), lab)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege here")
def test_links_to_one_file_are_images_of_their_own(lab: Path) -> None:
    (lab / "link.bmp").symlink_to(lab / "test" / "1.bmp")
    first, second = read_submission_list(written(lab, "test/1.bmp", "link.bmp"), lab)
    assert first.key != second.key


def test_wrong_rows_are_told_with_their_lines(lab: Path) -> None:
    table = written(lab, "test/0.bmp", "", "./test/0.bmp", "test/9.bmp", '" "', "test\\8.bmp", "test/1.bmp")
    with pytest.raises(SourceError) as caught:
        read_submission_list(table, lab)
    message = str(caught.value)
    for part in (
        "list.csv: 3 problems",
        "column Path is an image that was listed before: line 4 ('./test/0.bmp', line 2)",
        f"column Path: there is no such file (paths start from {lab}): line 5 ('test/9.bmp'), line 7",
    ):
        assert part in message
    assert "--root" not in message


def test_no_row_is_found(lab: Path) -> None:
    with pytest.raises(SourceError, match=r"10 problems.*and 5 more.*--root"):
        read_submission_list(written(lab, *(f"elsewhere/{number}.bmp" for number in range(10))), lab)


def test_folder_is_no_image(lab: Path) -> None:
    with pytest.raises(SourceError, match=r"1 problem: .*line 3"):
        read_submission_list(written(lab, "test/1.bmp", "test"), lab)


@pytest.mark.parametrize("header", ["path", " PATH ", "\ufeffPath", "label,Path"])
def test_header_is_read_as_elsewhere(lab: Path, header: str) -> None:
    row = "1,test/2.bmp" if "," in header else "test/2.bmp"
    [image] = read_submission_list(written(lab, row, header=header), lab)
    assert image.text == "test/2.bmp"


@pytest.mark.parametrize(("content", "word"), [("a\n1\n", "Path"), ("Path\n", "no rows"), ("", "Path")])
def test_what_is_no_list(lab: Path, content: str, word: str) -> None:
    (lab / "list.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=word):
        read_submission_list(lab / "list.csv", lab)
