from __future__ import annotations

import csv
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

TREE = "C-NMC_Leukemia/training_data"
BMP_HEADER = struct.pack(
    "<2sIHHIIiiHHIIiiII", b"BM", 608454, 0, 0, 54, 40, 450, 450, 1, 24, 0, 608400, 3779, 3779, 0, 0
)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_tables(folder: Path, rows: list[tuple[str, int]], num_valid: int) -> list[Path]:
    paths = []
    for name, part in (("train.csv", rows[num_valid:]), ("valid.csv", rows[:num_valid])):
        lines = ["Path,label", *(f"{path},{label}" for path, label in part)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(folder / name)
    return paths


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, cells: Path, write_image: Callable) -> Path:
    """The generated sample renumbered, every second image as PNG; each fourth one validates."""
    root = tmp_path_factory.mktemp("lab")
    names = sorted((cells / TREE).rglob("*.bmp"), key=lambda path: path.name[::-1])
    rows = []
    for number, image in enumerate(names):
        path = Path("new_dataset") / f"{number}.{'png' if number % 2 else 'bmp'}"
        if number % 2:
            write_image(root / path, cv2.imread(str(image))[..., ::-1])
        else:
            (root / path).parent.mkdir(exist_ok=True)
            shutil.copy(image, root / path)
        rows.append((f"./{path.as_posix()}", int("_all" in image.name)))
    write_tables(root, rows[::4] + [row for number, row in enumerate(rows) if number % 4], len(rows[::4]))
    (root / "truth.txt").write_text("\n".join(image.name.split("_")[1] for image in names), encoding="utf-8")
    return root


def truth(lab: Path) -> dict[str, str]:
    subjects = (lab / "truth.txt").read_text(encoding="utf-8").split()
    return {f"./new_dataset/{n}.{'png' if n % 2 else 'bmp'}": subject for n, subject in enumerate(subjects)}


def test_subjects_are_found_and_the_tables_build(
    lab: Path, cells: Path, tmp_path: Path, ldata: Callable, json_of: Callable
) -> None:
    out = tmp_path / "recovered"
    tables = [lab / "train.csv", lab / "valid.csv"]
    told = json_of(ldata("recover-subjects", *tables, "--reference", cells, "--out-dir", out, "--json"))
    assert (told["all"]["rows"], told["all"]["found"], told["all"]["unknown"]) == (32, 32, 0)
    assert told["leak"] is True
    assert told["images_of_mixed_subjects"]["valid"]["of"] == 8
    expected = truth(lab)
    for name in ("train.csv", "valid.csv"):
        before, after = read(lab / name), read(out / name)
        assert [(row["Path"], row["label"]) for row in before] == [(row["Path"], row["label"]) for row in after]
        assert [row["subject"] for row in after] == [expected[row["Path"]] for row in after]
        assert {row["subject_candidates"] for row in after} == {""}
    caches = tmp_path / "caches"
    built = ldata(
        "build", out / "train.csv", out / "valid.csv", "--root", lab, "--size", 32, "--recipe", "raw",
        "--cache", caches, "--name", "lab",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    told = json_of(ldata("stats", "--cache", caches, "--split", "fold:1/2", "--json"))
    assert told["split"]["stamp"] == "subject-disjoint (subjects from column subject)"
    assert "PATIENT-MIXED" in json_of(ldata("stats", "--cache", caches, "--split", "given", "--json"))["split"]["stamp"]


def test_a_cache_is_a_reference_too(
    lab: Path, caches: Path, tmp_path: Path, ldata: Callable, dir_of_size: Callable
) -> None:
    result = ldata("recover-subjects", lab / "train.csv", "--reference", dir_of_size(caches, 48), "--out-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "by equal pixels: 24" in result.stdout
    assert [row["subject"] for row in read(tmp_path / "train.csv")] == [
        truth(lab)[row["Path"]] for row in read(tmp_path / "train.csv")
    ]


def test_odd_rows_are_listed(lab: Path, cells: Path, tmp_path: Path, ldata: Callable) -> None:
    reference = tmp_path / "tree"
    shutil.copytree(cells / TREE / "fold_0", reference)
    shutil.copy(reference / "all/UID_1_1_1_all.bmp", reference / "all/UID_9_1_1_all.bmp")
    rows = [(path, 0) for path, subject in truth(lab).items() if subject in ("1", "2")]
    (table, _) = write_tables(tmp_path, [("gone.bmp", 0), *rows], 0)
    out = tmp_path / "out"
    result = ldata("recover-subjects", table, "--root", lab, "--reference", reference, "--out-dir", out)
    assert result.exit_code == 0, result.output
    listed = read(out / "recovery.csv")
    kinds = [row["finding"] for row in listed]
    # Four cells of subject 1 (labelled hem here), one shared with 9; four of 2, who is not in fold 0; one file absent.
    assert {kind: kinds.count(kind) for kind in kinds} == {"unusable": 1, "label": 4, "ambiguous": 1, "unknown": 4}
    (ambiguous,) = [row for row in listed if row["finding"] == "ambiguous"]
    assert (ambiguous["subject"], ambiguous["detail"].split(":")[0]) == ("1", "1|9")
    assert [row["subject"] for row in read(out / "train.csv")].count("1") == 4


def test_untied_subjects_can_be_joined(lab: Path, cells: Path, tmp_path: Path, ldata: Callable) -> None:
    reference = tmp_path / "tree"
    shutil.copytree(cells / TREE, reference)
    shutil.copy(reference / "fold_0/all/UID_1_1_1_all.bmp", reference / "fold_1/all/UID_2_9_1_all.bmp")
    common = ["recover-subjects", lab / "train.csv", lab / "valid.csv", "--reference", reference, "--out-dir"]
    told = ldata(*common, tmp_path / "a")
    assert "subjects 1, 2" in told.stderr
    joined = ldata(*common, tmp_path / "b", "--join-linked")
    assert "note:" not in joined.stderr
    subjects = {row["subject"] for name in ("train", "valid") for row in read(tmp_path / "b" / f"{name}.csv")}
    assert "1+2" in subjects
    assert not subjects & {"1", "2"}


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["train.csv", "--out-dir", "."], 2, "overwritten"),
        (["train.csv", "sub/train.csv"], 2, "several tables"),
        (["absent.csv"], 2, "absent.csv"),
        (["train.csv", "--reference", "nowhere"], 2, "nowhere"),
        (["train.csv", "--reference", "names.csv", "--root", "sub"], 1, "--root"),
        (["train.csv", "--reference", "names.csv"], 1, "equal bytes only"),
        (["named.csv"], 1, "subject"),
    ],
)
def test_wrong_requests(
    options: list[str],
    exit_code: int,
    words: str,
    scratch: Path,
    write_tree: Callable,
    ldata: Callable,
    error_of: Callable,
) -> None:
    write_tree(scratch, "0.bmp", "sub/x.png")
    Path("train.csv").write_text("Path,label\n0.bmp,1\n", encoding="utf-8")
    Path("named.csv").write_text("Path,subject\n0.bmp,1\n", encoding="utf-8")
    Path("names.csv").write_text(f"path,sha256\nUID_1_1_1_all.bmp,{'0' * 64}\n", encoding="utf-8")
    arguments = options if "--reference" in options else [*options, "--reference", "names.csv"]
    assert words in error_of(ldata("recover-subjects", *arguments), exit_code)
    assert not Path("recovered").exists()


@pytest.mark.real
def test_real_cells_are_found_by_bytes_and_by_pixels(
    real_data: Path, tmp_path: Path, ldata: Callable, json_of: Callable
) -> None:
    pngs = sorted((real_data / "cnmc_fold1").glob("*/*.png"))
    if not pngs or not (real_data / "cnmc_names.csv").is_file():
        pytest.skip(f"{real_data} has no cnmc_fold1/*/*.png with cnmc_names.csv beside it")
    chosen = pngs[:: max(len(pngs) // 30, 1)]
    rows = []
    for number, png in enumerate(chosen):
        pixels = cv2.imread(str(png))
        body = np.pad(pixels[::-1].reshape(450, 1350), ((0, 0), (0, 2))).tobytes()
        (tmp_path / f"{number}.bmp").write_bytes(BMP_HEADER + body)
        (tmp_path / "tree" / png.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(png, tmp_path / "tree" / png.parent.name)
        rows.append((f"./{number}.bmp", int(png.parent.name == "all")))
    tables = write_tables(tmp_path, rows, 8)
    subjects = [png.name.split("_")[1].upper() for png in chosen]
    for reference, key in ((real_data / "cnmc_names.csv", "by_bytes"), (tmp_path / "tree", "by_pixels")):
        out = tmp_path / key
        told = json_of(ldata("recover-subjects", *tables, "--reference", reference, "--out-dir", out, "--json"))
        assert told["all"][key] == told["all"]["rows"] == len(chosen)
        assert told["all"]["label_disagreements"] == 0
        found = {row["Path"]: row for name in ("train.csv", "valid.csv") for row in read(out / name)}
        for (path, _), subject in zip(rows, subjects, strict=True):
            row = found[path]
            assert subject in (row["subject"], *row["subject_candidates"].split("|"))
