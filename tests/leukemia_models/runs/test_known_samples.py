"""Look-up of images in a run's split by pixels, with and without the column of digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import CacheError, RunError
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitRow, load_known_samples

A, B, C = ("a" * 32, "b" * 32, "c" * 32)
CLASSES = ("hem", "all")


def no_cache() -> Cache:
    raise CacheError("gone")


def never() -> Cache:
    raise AssertionError("the cache is not needed")


def written(folder: Path, *lines: str) -> RunFolder:
    (folder / "split.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return RunFolder(folder)


def test_images_are_found_by_their_pixels_alone(tmp_path: Path) -> None:
    run = written(
        tmp_path, "id,subject,label,split,pixel_digest", f"'=1.bmp,'-2,1,train,{A}", f"2.bmp,,0,test,{B.upper()}"
    )
    known = load_known_samples(run, CLASSES, never)
    assert known.is_complete
    assert list(known.rows) == ["=1.bmp", "2.bmp"]
    assert known.find(A) == SplitRow("-2", 1, "train", A)
    assert known.find(B) == SplitRow("", 0, "test", B)
    assert known.find(C) is None
    assert known.find("") is None


@pytest.mark.parametrize("order", [("train", "valid", "test", "unused"), ("unused", "test", "valid", "train")])
def test_of_identical_images_one_that_was_trained_on_counts(tmp_path: Path, order: tuple[str, ...]) -> None:
    rows = [f"{split}.bmp,1,1,{split},{A}" for split in order]
    known = load_known_samples(written(tmp_path, "id,subject,label,split,pixel_digest", *rows), CLASSES, never)
    found = known.find(A)
    assert found is not None
    assert found.split == "train"


def test_a_split_of_an_earlier_version_without_its_cache_finds_nothing_and_says_so(tmp_path: Path) -> None:
    known = load_known_samples(written(tmp_path, "id,subject,label,split", "1.bmp,7,1,train"), CLASSES, no_cache)
    assert not known.is_complete
    assert known.find(A) is None
    assert [row.subject for row in known.in_parts(["train", "valid"])] == ["7"]


def test_a_run_without_a_split_recognises_nothing(tmp_path: Path) -> None:
    known = load_known_samples(RunFolder(tmp_path), CLASSES, never)
    assert not known.is_complete
    assert known.rows == {}


@pytest.mark.parametrize(
    ("text", "label"), [("0", 0), ("1", 1), ("-1", -1), ("", -1), ("ALL", 1), ("2", -1), ("x", -1)]
)
def test_labels_are_numbers_or_names(tmp_path: Path, text: str, label: int) -> None:
    run = written(tmp_path, "\ufeffid,subject,label,split,pixel_digest", f"1.bmp,7,{text},train,{A}")
    assert load_known_samples(run, CLASSES, never).rows["1.bmp"].label == label


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "id,subject,label,split\n1.bmp,1,1,some\n", "id,subject,label,split\n1\n"]
)
def test_a_damaged_split_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"split\.csv"):
        load_known_samples(RunFolder(tmp_path), CLASSES, never)
