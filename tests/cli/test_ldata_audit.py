from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from leukemia_data.sources.sample_cells import generate_cell

TREE = "C-NMC_Leukemia/training_data"
FILES = ["audit.json", "balance.png", "findings.csv", "findings.png"]


def findings(folder: Path) -> list[dict[str, str]]:
    with (folder / "findings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check(told: Any, key: str) -> tuple[str, int | None]:
    (found,) = [one for one in told["checks"] if one["key"] == key]
    return found["verdict"], found["count"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, cells: Path, write_image: Callable) -> Path:
    """The generated sample with one fault of each kind; UID_<subject>_9_<n> are the planted images."""
    root = tmp_path_factory.mktemp("planted") / "cells"
    shutil.copytree(cells, root)
    tree = root / TREE
    original = tree / "fold_0/all/UID_1_1_1_all.bmp"
    other = tree / "fold_1/all/UID_2_1_1_all.bmp"
    shutil.copy(original, tree / "fold_0/all/UID_1_9_1_all.bmp")
    shutil.copy(original, tree / "fold_2/all/UID_3_9_1_all.bmp")
    shutil.copy(other, tree / "fold_0/hem/UID_H1_9_1_hem.bmp")
    flipped = cv2.imread(str(tree / "fold_2/hem/UID_H3_1_2_hem.bmp"))[:, ::-1, ::-1]
    write_image(tree / "fold_1/hem/UID_H2_9_2_hem.bmp", flipped)
    write_image(tree / "fold_1/all/UID_2_9_3_all.bmp", np.zeros((450, 450, 3), np.uint8))
    at_border, larger = (generate_cell(5, subject, 0, 1) for subject in (90, 91))
    top = int(np.nonzero(at_border.any(axis=(1, 2)))[0][0])
    write_image(tree / "fold_1/all/UID_2_9_5_all.bmp", np.roll(at_border, -top, axis=0))
    write_image(tree / "fold_1/all/UID_2_9_6_all.bmp", np.pad(larger, ((5, 5), (5, 5), (0, 0))))
    (tree / "fold_1/all/UID_2_9_7_all.bmp").write_bytes(b"rubbish")
    return root


def test_planted_faults_are_found_and_nothing_else(
    planted: Path, tmp_path: Path, ldata: Callable, json_of: Callable
) -> None:
    told = json_of(ldata("audit", planted, "--out", tmp_path / "out", "--json", "--num-threads", 2))
    rows = findings(tmp_path / "out")

    def named(kind: str) -> list[tuple[str, ...]]:
        pairs = [(Path(row["image"]).stem, Path(row["other_image"]).stem) for row in rows if row["kind"] == kind]
        return sorted(tuple(sorted(name for name in pair if name)) for pair in pairs)

    assert named("identical") == [
        ("UID_1_1_1_all", "UID_1_9_1_all"),
        ("UID_1_1_1_all", "UID_3_9_1_all"),
        ("UID_1_9_1_all", "UID_3_9_1_all"),
        ("UID_2_1_1_all", "UID_H1_9_1_hem"),
    ]
    assert named("near_identical") == [("UID_H2_9_2_hem", "UID_H3_1_2_hem")]
    assert named("near") == []
    assert named("frame_black") == [("UID_2_9_3_all",)]
    assert named("frame_border") == named("frame_off_centre") == [("UID_2_9_5_all",)]
    assert named("frame_other_size") == [("UID_2_9_6_all",)]
    assert named("frame_unusable") == [("UID_2_9_7_all",)]
    assert len(rows) == 10
    assert check(told, "identical_subjects") == ("LOOK", 3)
    assert check(told, "identical_fold") == ("LEAK", 3)
    assert check(told, "identical_labels") == ("WRONG", 1)
    assert check(told, "near_identical_fold") == ("LEAK", 1)
    assert check(told, "near") == ("ok", 0)
    assert check(told, "subjects_fold") == ("ok", 0)
    assert told["leak"] is True
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    # Four identical pairs fill the sheet's first row; the near-identical pair and four odd frames have one each.
    sheet = cv2.imread(str(tmp_path / "out" / "findings.png"))
    dark = (sheet.min(axis=2) < 40).mean(axis=1) > 0.15
    assert int((np.diff(dark.astype(int)) == 1).sum()) == 3


def test_a_clean_sample_has_no_finding(cells: Path, tmp_path: Path, ldata: Callable, json_of: Callable) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "findings.png").write_bytes(b"of an earlier audit")
    result = ldata("audit", cells, "--strict", "--out", out)
    assert result.exit_code == 0, result.output
    assert not (out / "findings.png").exists()
    assert "No leak was found" in result.stdout
    told = json_of(ldata("audit", cells, "--json"))
    assert {one["verdict"] for one in told["checks"]} == {"ok", "info"}


def test_strict_ends_with_1_after_everything_was_printed(planted: Path, ldata: Callable, error_of: Callable) -> None:
    result = ldata("audit", planted, "--strict", "--no-near")
    assert "identical_fold" in error_of(result, 1)
    assert "pairs of identical images" in result.stdout
    assert "--no-near" in result.stdout


def test_a_cache_is_compared_with_a_source_by_the_originals(
    caches: Path, cells: Path, tmp_path: Path, ldata: Callable, json_of: Callable, dir_of_size: Callable
) -> None:
    foreign = tmp_path / "test" / "hem"
    foreign.mkdir(parents=True)
    shutil.copy(cells / TREE / "fold_0/hem/UID_H1_1_1_hem.bmp", foreign / "UID_H77_1_1_hem.bmp")
    directory = dir_of_size(caches, 64)
    told = json_of(ldata("audit", directory, tmp_path / "test", "--json", "--out", tmp_path / "out"))
    assert [one["kind"] for one in told["arguments"]] == ["cache", "source"]
    assert check(told, "identical_argument") == ("LEAK", 1)
    assert check(told, "subjects_argument") == ("ok", 0)
    assert any("is a cache" in note for note in told["notes"])
    assert (tmp_path / "out" / "findings.png").is_file()


def test_split_of_a_training(cells: Path, caches: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("audit", cells, "--split", "fold:1/2", "--no-near", "--json"))
    assert check(told, "training_stamp") == ("ok", 0)
    told = json_of(ldata("audit", caches, "--size", 48, "--split", "image", "--no-near", "--json"))
    assert check(told, "training_stamp")[0] == check(told, "subjects_training")[0] == "LEAK"


def test_reference_table_beside_images(cells: Path, tmp_path: Path, ldata: Callable, json_of: Callable) -> None:
    image = cells / TREE / "fold_0/all/UID_1_1_1_all.bmp"
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    table = tmp_path / "names.csv"
    table.write_text(f"path,sha256,label\n=x/UID_8_1_1_all.bmp,{digest},1\n", encoding="utf-8")
    out = tmp_path / "out"
    told = json_of(ldata("audit", cells, "--reference", table, "--no-near", "--json", "--out", out))
    assert check(told, "identical_argument") == ("LEAK", 1)
    (row,) = [row for row in findings(out) if row["kind"] == "identical"]
    assert row["other_image"] == "'=x/UID_8_1_1_all.bmp"
    assert (row["subject"], row["other_subject"]) == ("1", "8")


def test_the_lab_s_test_tables_repeat_their_images(tmp_path: Path, write_tree: Callable, ldata: Callable) -> None:
    write_tree(tmp_path, "test/0.bmp", "test/1.bmp")
    for name, order in (("a_test.csv", (0, 1)), ("b_test.csv", (1, 0))):
        lines = ["Path", *(f"./test/{n}.bmp" for n in order)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = ldata("audit", tmp_path / "a_test.csv", tmp_path / "b_test.csv")
    assert result.exit_code == 0, result.output
    assert "2 files were given before" in result.stderr
    assert "0  pairs of identical images" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "word"),
    [
        (["nowhere"], 2, "nowhere"),
        (["in", "other", "--split", "subject"], 2, "--split"),
        (["in", "--split", "nonsense"], 2, "nonsense"),
        (["--reference", "lab.csv"], 1, "sha256"),
        (["--reference", "absent.csv"], 2, "not found: absent.csv"),
    ],
)
def test_wrong_requests(
    arguments: list[str], exit_code: int, word: str, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    Path("lab.csv").write_text("Path,label\nx,1\n", encoding="utf-8")
    assert word in error_of(ldata("audit", *arguments), exit_code)


@pytest.mark.real
def test_the_published_names(real_data: Path, tmp_path: Path, ldata: Callable, json_of: Callable) -> None:
    table = real_data / "cnmc_names.csv"
    if not table.is_file():
        pytest.skip(f"{table} is absent")
    told = json_of(ldata("audit", "--reference", table, "--json", "--out", tmp_path))
    training = [row for row in findings(tmp_path) if row["kind"] == "identical" and row["split"] == "train"]
    assert all(row["other_split"] == "train" for row in training)
    assert len(training) == 104
    assert sum(row["subject"] != row["other_subject"] for row in training) == 99
    assert sum({row["subject"], row["other_subject"]} == {"20", "21"} for row in training) == 71
    assert sum(row["fold"] != row["other_fold"] for row in training) == 94
    assert check(told, "identical_fold") == ("LEAK", 94)
    assert check(told, "identical_split") == ("ok", 0)
    assert told["images"] == 15_114
