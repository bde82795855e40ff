"""``ltrain evaluate RUN IMAGES`` and ``ltrain predict RUN IMAGES``: images from outside a run's split."""

from __future__ import annotations

import codecs
import csv
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.sources.sample_set import write_sample
from leukemia_models.evaluation.predictions import read_predictions

CPU = ("--device", "cpu")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def parts(finished_run: Path, cells: Path) -> dict[str, list[Path]]:
    """The images of each part of the run's split."""
    found: dict[str, list[Path]] = {}
    for row in rows_of(finished_run / "split.csv"):
        found.setdefault(row["split"], []).append(cells / row["id"])
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other people's cells: ``other/Blast/p1/0.bmp`` and so on, none of them a C-NMC name."""
    root = tmp_path_factory.mktemp("hospital")
    write_sample(root / "sample", num_subjects=4, cells_per_subject=3, seed=9)
    for number, path in enumerate(sorted((root / "sample").rglob("*.bmp"))):
        subject = path.name.split("_")[1]
        folder = root / "other" / ("Healthy" if subject.startswith("H") else "Blast") / f"patient_{subject}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / f"{number}.bmp")
    return root / "other"


MERGE = ("--merge", "all=Blast", "--merge", "hem=Healthy")


def copied(images: Iterable[Path], folder: Path, suffix: str = ".png") -> Path:
    """The images in another format, in folders of their classes, under names without subjects."""
    for number, path in enumerate(images):
        target = folder / ("all" if path.stem.endswith("all") else "hem") / f"{number}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.imread(str(path)))
    return folder


def people_table(folder: Path, table: Path, subject: str) -> Path:
    """A table of a folder's images in which each is of a person of its own: ``subject`` and a number."""
    images = sorted(path.relative_to(table.parent).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{path},{path.split('/')[-2]},{subject}{number}" for number, path in enumerate(images)]
    table.write_text("\n".join(["Path,label,subject", *lines]) + "\n", encoding="utf-8")
    return table


def test_the_run_s_test_images_as_an_outside_set_get_the_numbers_of_the_test_part(
    own_run: Path, parts: dict[str, list[Path]], tmp_path: Path, ltrain: Callable, json_of: Callable
) -> None:
    for path in parts["test"]:
        (tmp_path / "set").mkdir(exist_ok=True)
        shutil.copy2(path, tmp_path / "set")
    told = json_of(ltrain("evaluate", own_run, tmp_path / "set", *CPU, "--json"))
    out = own_run / "outside-set"
    assert told["out"] == str(out)
    assert told["known"] == {"test": len(parts["test"])}
    found, expected = results_of(out), results_of(own_run / "test")
    assert found == told["results"]
    for name in ("accuracy", "balanced_accuracy", "auroc", "nll", "brier"):
        assert found["metrics"][name] == pytest.approx(expected["metrics"][name], abs=1e-6)
    assert found["judging"]["calibration"] == expected["judging"]["calibration"]
    assert (found["calibrated"] is None) == (expected["calibrated"] is None)
    assert found["split"]["kind"] == "outside"
    # C-NMC names mean the same people everywhere, and none of these is among those trained on.
    assert found["split"]["stamp"].startswith("subject-disjoint (subjects from C-NMC file names)")
    assert any("own test part" in note for note in found["notes"])
    by_name = {Path(row["id"]).name: row for row in rows_of(own_run / "test" / "predictions.csv")}
    rows = rows_of(out / "predictions.csv")
    assert len(rows) == len(by_name)
    for row in rows:
        same = by_name[Path(row["id"]).name]
        assert {name: row[name] for name in ("subject", "label", "split", "prediction")} == {
            name: same[name] for name in ("subject", "label", "split", "prediction")
        }


def test_classes_of_another_list_are_said_and_not_mapped(
    own_run: Path, other: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    message = error_of(ltrain("evaluate", own_run, other, *CPU), 2)
    assert all(word in message for word in ("Blast", "Healthy", "hem", "all", "--merge", "--classes"))
    assert files_below(own_run) == before


def test_another_source_is_evaluated_like_a_part_and_says_what_it_is(
    own_run: Path, other: Path, ltrain: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    result = ltrain("evaluate", own_run, other, *MERGE, "--subject-from", "folder", *CPU)
    assert result.exit_code == 0, result.output
    out = own_run / "outside-other"
    assert {name: content for name, content in files_below(own_run).items() if name in before} == before
    results = results_of(out)
    assert results["metrics"]["num_samples"] == 12
    stamp = results["split"]["stamp"]
    assert stamp.startswith("another source")
    assert any("names of two sources" in caution for caution in results["cautions"])
    assert results["split"]["parts"]["outside-other"]["subjects_per_class"] == [1, 3]
    assert results["split"]["parts"]["train"] == results_of(own_run / "test")["split"]["parts"]["train"]
    assert results["judging"]["calibration"] == results_of(own_run / "test")["judging"]["calibration"]
    assert results["judging"]["outside"]["images"] == [str(other.resolve())]
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert stamp in summary
    assert "outside-other (evaluated)" in summary
    assert stamp in result.stdout
    rows = rows_of(out / "predictions.csv")
    assert {row["split"] for row in rows} == {""}
    assert {row["stamp"] for row in rows} == {stamp}
    assert len(read_predictions(out / "predictions.csv", ("hem", "all"))) == 12
    assert (out / "subjects.csv").is_file()


@pytest.mark.parametrize("part", ["train", "valid"])
def test_images_that_the_run_has_learnt_from_are_known_by_their_pixels(
    part: str, own_run: Path, parts: dict[str, list[Path]], tmp_path: Path, ltrain: Callable, json_of: Callable
) -> None:
    folder = copied([*parts[part][:3], *parts["test"]], tmp_path / "renamed")
    table = people_table(folder, tmp_path / "renamed.csv", "nobody-")
    told = json_of(ltrain("evaluate", own_run, table, *CPU, "--json"))
    assert told["known"] == {part: 3, "test": len(parts["test"])}
    assert told["results"]["split"]["stamp"] == "PATIENT-MIXED (3 identical images on both sides)"
    word = {"train": "training", "valid": "validation"}[part]
    assert any(f"3 {word} images of this run" in caution for caution in told["results"]["cautions"])
    assert [row["split"] for row in rows_of(own_run / "outside-renamed" / "predictions.csv")].count(part) == 3


def test_shared_and_unknown_subjects(
    own_run: Path, other: Path, parts: dict[str, list[Path]], tmp_path: Path, ltrain: Callable, json_of: Callable
) -> None:
    told = json_of(ltrain("evaluate", own_run, other, *MERGE, "--subject-from", "none", *CPU, "--json"))
    assert told["results"]["split"]["stamp"] == "PATIENT-MIXED (12 images of unknown subjects)"
    trained = parts["train"][0].name.split("_")[1]
    label = "Healthy" if trained.startswith("H") else "Blast"
    shutil.copytree(other, tmp_path / "same")
    shutil.move(next((tmp_path / "same" / label).iterdir()), tmp_path / "same" / label / trained)
    reading = ("--class-level", 1, "--subject-from", "folder")
    told = json_of(ltrain("evaluate", own_run, tmp_path / "same", *MERGE, *reading, *CPU, "--json"))
    assert told["results"]["split"]["stamp"] == "PATIENT-MIXED (1 subject on both sides)"


def test_without_cache_the_split_s_own_digests_decide(
    own_run: Path, caches: Path, dir_of_size: Callable, other: Path, parts: dict[str, list[Path]], ltrain: Callable
) -> None:
    table = open_cache(dir_of_size(caches, 64)).table
    digest_of = dict(zip(table.id_texts, (row.tobytes().hex() for row in table.pixel_digests), strict=True))
    config = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    (own_run / "run.json").write_text(json.dumps({**config, "cache_dir": "/gone"}), encoding="utf-8")
    rows = [
        {name: value for name, value in row.items() if name != "pixel_digest"} for row in rows_of(own_run / "split.csv")
    ]
    predict = ("predict", own_run, *parts["train"][:2], parts["test"][0], "--out", own_run / "p.csv", *CPU)
    evaluate = ("evaluate", own_run, other, *MERGE, "--subject-from", "folder", *CPU)

    def save(digests: dict[str, str]) -> None:
        with (own_run / "split.csv").open("w", encoding="utf-8", newline="") as file:
            names = [*rows[0], *(["pixel_digest"] if digests else [])]
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, **({"pixel_digest": digests[row["id"]]} if digests else {})} for row in rows)

    save({})
    result = ltrain(*predict)
    assert "caution" in result.stderr
    assert "--cache" in result.stderr
    assert [row["split"] for row in rows_of(own_run / "p.csv")] == ["", "", ""]
    assert ltrain(*evaluate).exit_code == 0
    assert results_of(own_run / "outside-other")["split"]["stamp"].startswith("not compared")
    save(digest_of)
    result = ltrain(*predict)
    assert result.stderr.count("caution: of 3 images, 2 training images of this run") == 1
    assert [row["split"] for row in rows_of(own_run / "p.csv")] == ["train", "train", "test"]
    assert ltrain(*evaluate).exit_code == 0
    assert results_of(own_run / "outside-other")["split"]["stamp"].startswith("another source")
    # Where the cache was moved to is another way.
    save({})
    assert ltrain(*predict, "--cache", caches).exit_code == 0
    assert [row["split"] for row in rows_of(own_run / "p.csv")] == ["train", "train", "test"]
    assert ltrain(*predict, "--cache", own_run / "nowhere").exit_code == 1


def test_predict_takes_label_and_split_from_the_run_and_no_class_of_another_list(
    finished_run: Path,
    cells: Path,
    parts: dict[str, list[Path]],
    other: Path,
    tmp_path: Path,
    ltrain: Callable,
    json_of: Callable,
) -> None:
    known = parts["train"][0]
    truth = known.stem.rsplit("_", 1)[1]
    wrong = {"all": "hem", "hem": "all"}[truth]
    (tmp_path / "new" / wrong).mkdir(parents=True)
    (tmp_path / "new" / "Blast").mkdir()
    shutil.copy2(known, tmp_path / "new" / wrong / "1.bmp")
    strange = sorted(other.rglob("*.bmp"))[0]
    shutil.copy2(strange, tmp_path / "new" / "Blast" / "2.bmp")
    shutil.copy2(strange, tmp_path / "new" / wrong / "3.bmp")
    out = tmp_path / "p.csv"
    told = json_of(ltrain("predict", finished_run, tmp_path / "new", "--out", out, *CPU, "--json"))
    by_name = {Path(row["id"]).name: row for row in rows_of(out)}
    cached = {row["id"]: row for row in rows_of(finished_run / "split.csv")}[known.relative_to(cells).as_posix()]
    assert by_name["1.bmp"]["split"] == "train" == cached["split"]
    assert by_name["1.bmp"]["subject"] == cached["subject"]
    assert {name: row["label"] for name, row in by_name.items()} == {"1.bmp": truth, "2.bmp": "", "3.bmp": wrong}
    assert {row["prediction"] for row in by_name.values()} <= {"hem", "all"}
    assert {by_name[name]["split"] for name in ("2.bmp", "3.bmp")} == {""}
    assert told["known"] == {"train": 1}
    assert any("Blast (1 images)" in caution for caution in told["cautions"])
    assert any("another class by name" in caution for caution in told["cautions"])


def test_out_takes_parts_and_outside_sets_but_no_folder_of_other_results(
    own_run: Path, other: Path, tmp_path: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    assert ltrain("evaluate", own_run, "--out", tmp_path / "elsewhere", *CPU).exit_code == 0
    assert files_below(own_run) == before
    for name in ("results.json", "predictions.csv"):
        assert (tmp_path / "elsewhere" / name).read_bytes() == (own_run / "test" / name).read_bytes()
    assert "history" not in (tmp_path / "elsewhere" / "summary.md").read_text(encoding="utf-8")
    common = ("evaluate", own_run, other, *MERGE, "--subject-from", "folder", *CPU)
    for place in (own_run, own_run / "test", own_run / "valid", own_run / "train"):
        assert "--out" in error_of(ltrain(*common, "--out", place), 2)
    assert "--out" in error_of(ltrain("evaluate", own_run, "--part", "test", "--out", own_run / "valid", *CPU), 2)
    assert "--out" in error_of(ltrain(*common, "--out", tmp_path / "elsewhere"), 1)
    assert files_below(own_run) == before
    # The same set again replaces its own results; another set of this name does not.
    assert ltrain(*common).exit_code == 0
    assert ltrain(*common).exit_code == 0
    shutil.copytree(other, tmp_path / "other")
    again = ("evaluate", own_run, tmp_path / "other", *MERGE, "--subject-from", "folder", *CPU)
    assert "--out" in error_of(ltrain(*again), 1)


def test_an_image_that_cannot_be_used_is_counted(
    own_run: Path, other: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    shutil.copytree(other, tmp_path / "set")
    bad = sorted((tmp_path / "set").rglob("*.bmp"))[0]
    bad.write_bytes(bad.read_bytes()[:500])
    result = ltrain("evaluate", own_run, tmp_path / "set", *MERGE, "--subject-from", "folder", *CPU)
    assert "1 of 12 images" in error_of(result, 1)
    results = results_of(own_run / "outside-set")
    assert results["metrics"]["num_samples"] == 11
    assert any("1 of 12 images could not be used" in caution for caution in results["cautions"])


def test_byte_order_mark_on_request(
    own_run: Path, other: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    common = ("evaluate", own_run, other, *MERGE, "--subject-from", "folder", *CPU)
    assert ltrain(*common, "--excel").exit_code == 0
    out = own_run / "outside-other"
    for name in ("predictions.csv", "subjects.csv"):
        assert (out / name).read_bytes().startswith(codecs.BOM_UTF8)
    marked = read_predictions(out / "predictions.csv", ("hem", "all"))
    assert ltrain(*common).exit_code == 0
    assert not (out / "predictions.csv").read_bytes().startswith(codecs.BOM_UTF8)
    assert read_predictions(out / "predictions.csv", ("hem", "all")).equals(marked)
    # The same images, read in another way, are other numbers.
    swapped = ("--merge", "hem=Blast", "--merge", "all=Healthy")
    assert "read otherwise" in error_of(ltrain(*common[:3], *swapped, "--subject-from", "folder", *CPU), 1)
    assert read_predictions(out / "predictions.csv", ("hem", "all")).equals(marked)
    assert ltrain("predict", own_run, "--excel", "--out", tmp_path / "p.csv", *CPU).exit_code == 0
    assert (tmp_path / "p.csv").read_bytes()[3:] == (own_run / "test" / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "exit_code", "word"),
    [
        (["--part", "test", "OTHER"], 2, "leave it out"),
        (["--subject-from", "folder"], 2, "--subject-from"),
        (["--root", "."], 2, "--root"),
        (["nowhere"], 2, "nowhere"),
        (["plain"], 2, "predict"),
        (["numbers.csv"], 2, "--classes hem,all"),
    ],
)
def test_wrong_request_writes_nothing(
    options: list[str],
    exit_code: int,
    word: str,
    finished_run: Path,
    other: Path,
    scratch: Path,
    ltrain: Callable,
    error_of: Callable,
    files_below: Callable,
) -> None:
    image = sorted(other.rglob("*.bmp"))[0]
    (scratch / "plain" / "unknown").mkdir(parents=True)
    for number in range(2):
        shutil.copy2(image, scratch / "plain" / "unknown" / f"{number}.bmp")
    (scratch / "numbers.csv").write_text("Path,label\nplain/unknown/0.bmp,0\nplain/unknown/1.bmp,1\n", encoding="utf-8")
    before = files_below(finished_run)
    arguments = [str(other) if option == "OTHER" else option for option in options]
    assert word in error_of(ltrain("evaluate", finished_run, *arguments, *CPU), exit_code)
    assert files_below(finished_run) == before
    assert not list(scratch.rglob("results.json"))


def test_an_image_listed_twice_is_two_rows_and_one_known_image(
    finished_run: Path, parts: dict[str, list[Path]], tmp_path: Path, ltrain: Callable, json_of: Callable
) -> None:
    image, out = parts["train"][0], tmp_path / "p.csv"
    told = json_of(ltrain("predict", finished_run, image, image, parts["test"][0], "--out", out, *CPU, "--json"))
    assert told["known"] == {"train": 1, "test": 1}
    assert told["cautions"] == ["of 2 images, 1 training images of this run"]
    assert [row["split"] for row in rows_of(out)] == ["train", "train", "test"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_turned_copies_of_training_images_are_recognised_under_any_name(
    part: str, own_run: Path, parts: dict[str, list[Path]], tmp_path: Path, ltrain: Callable
) -> None:
    for number, path in enumerate(parts[part]):
        target = tmp_path / "set" / ("all" if path.stem.endswith("all") else "hem") / f"person{number}" / "cell.png"
        target.parent.mkdir(parents=True)
        cv2.imwrite(str(target), cv2.rotate(cv2.imread(str(path)), cv2.ROTATE_90_CLOCKWISE))
    result = ltrain("evaluate", own_run, tmp_path / "set", "--out", tmp_path / "out", "--subject-from", "folder", *CPU)
    assert result.exit_code == 0, result.output
    stamp = results_of(tmp_path / "out")["split"]["stamp"]
    is_seen = part == "train"
    assert (f"{len(parts[part])} near-identical images" in stamp) == is_seen
    assert stamp.startswith("PATIENT-MIXED") == is_seen
    told = ltrain("predict", own_run, tmp_path / "set", "--out", tmp_path / "p.csv", *CPU)
    assert (f"{len(parts[part])} images are near-identical" in told.stderr) == is_seen
