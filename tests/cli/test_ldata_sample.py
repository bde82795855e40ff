from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest


def test_writes_the_published_tree(scratch: Path, ldata: Callable) -> None:
    result = ldata("sample", "out", "--subjects", 3, "--cells", 2)
    assert result.exit_code == 0
    files = sorted(path.relative_to(scratch).as_posix() for path in scratch.rglob("*.bmp"))
    assert files == [
        "out/C-NMC_Leukemia/training_data/fold_0/all/UID_1_1_1_all.bmp",
        "out/C-NMC_Leukemia/training_data/fold_0/all/UID_1_1_2_all.bmp",
        "out/C-NMC_Leukemia/training_data/fold_0/hem/UID_H1_1_1_hem.bmp",
        "out/C-NMC_Leukemia/training_data/fold_0/hem/UID_H1_1_2_hem.bmp",
        "out/C-NMC_Leukemia/training_data/fold_1/all/UID_2_1_1_all.bmp",
        "out/C-NMC_Leukemia/training_data/fold_1/all/UID_2_1_2_all.bmp",
    ]
    assert all((scratch / name).stat().st_size == 608_454 for name in files)
    image = cv2.imread(str(scratch / files[0]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (450, 450, 3)
    assert 0.10 <= (image.max(axis=2) > 0).mean() <= 0.22
    assert "6 generated cells of 2 leukaemia and 1 healthy subjects" in result.stdout
    assert "Next: ldata build out" in result.stdout


def test_same_arguments_same_bytes_and_another_seed_others(
    scratch: Path, ldata: Callable, files_below: Callable
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert ldata("sample", name, "--subjects", 2, "--cells", 1, "--seed", seed).exit_code == 0
    assert files_below(scratch / "a") == files_below(scratch / "b")
    first, third = files_below(scratch / "a"), files_below(scratch / "c")
    assert all(first[name] != third[name] for name in first)


def test_json(scratch: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("sample", "out", "--subjects", 2, "--cells", 1, "--json"))
    assert told == {
        "root": "out",
        "num_images": 2,
        "num_all_subjects": 1,
        "num_hem_subjects": 1,
        "num_bytes": 2 * 608_454,
    }


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--subjects", 1], "subjects"),
        (["--cells", 0], "cell"),
        (["--seed", -1], "seed"),
        (["--cells", "x"], "--cells"),
    ],
)
def test_wrong_numbers_write_nothing(
    options: list[object], word: str, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    assert word in error_of(ldata("sample", "out", *options), 2)
    assert list(scratch.iterdir()) == []


def test_is_not_mixed_into_other_images(
    scratch: Path, ldata: Callable, error_of: Callable, files_below: Callable
) -> None:
    foreign = scratch / "C-NMC_Leukemia" / "training_data" / "fold_0" / "all" / "UID_1_1_1_all.bmp"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"a real cell")
    before = files_below(scratch)
    assert "UID_1_1_1_all.bmp" in error_of(ldata("sample", scratch, "--subjects", 2, "--cells", 1), 1)
    assert files_below(scratch) == before


def test_out_that_is_a_file(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    (scratch / "out").write_text("mine", encoding="utf-8")
    assert "out" in error_of(ldata("sample", "out"), 2)
    assert (scratch / "out").read_text(encoding="utf-8") == "mine"


def test_more_classes_are_made_up_kinds(scratch: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("sample", "out", "--classes", 5, "--subjects", 10, "--cells", 1, "--json"))
    assert told["num_images"] == 10
    found = json_of(ldata("scan", "out", "--recipe", "raw", "--json"))
    text = json.dumps(found)
    assert all(f"kind-0{number}" in text for number in range(1, 6))
    assert "patient_010" in {path.parent.name for path in Path("out").rglob("*.bmp")}
    again = json_of(ldata("sample", "out", "--classes", 5, "--subjects", 10, "--cells", 1, "--json"))
    assert again == told


@pytest.mark.parametrize(
    ("number", "word"), [(1, "2 to 20 classes"), (21, "2 to 20 classes"), (12, "one of each class")]
)
def test_numbers_of_classes_that_no_sample_has(number: int, word: str, scratch: Path, ldata, error_of) -> None:
    assert word in error_of(ldata("sample", "out", "--classes", number, "--subjects", 10), 2)
