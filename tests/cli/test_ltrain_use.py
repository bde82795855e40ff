"""``ltrain evaluate`` and ``ltrain predict``."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import open_cache


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities_of(path: Path) -> dict[str, float]:
    """By the image's file name: the probability of class all."""
    return {Path(row["id"]).name: float(row["probability_all"]) for row in rows_of(path)}


# --- evaluate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "is_seen"), [("train", True), ("valid", False), ("test", False), ("all", True)])
def test_each_part_is_evaluated(part: str, is_seen: bool, own_run: Path, ltrain: Callable, json_of: Callable) -> None:
    told = json_of(ltrain("evaluate", own_run, "--part", part, "--device", "cpu", "--json"))
    split_of = {row["id"]: row["split"] for row in rows_of(own_run / "split.csv")}
    wanted = {record_id for record_id, name in split_of.items() if part in (name, "all")}
    rows = rows_of(own_run / part / "predictions.csv")
    assert {row["id"]: row["split"] for row in rows} == {record_id: split_of[record_id] for record_id in wanted}
    results = json.loads((own_run / part / "results.json").read_text(encoding="utf-8"))
    assert results == told["results"]
    assert results["split"]["judged"] == part
    accuracy = np.mean([row["label"] == row["prediction"] for row in rows])
    assert results["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert results["metrics"]["num_samples"] == len(wanted)
    assert any("trained on" in caution for caution in results["cautions"]) == is_seen
    summary = (own_run / part / "summary.md").read_text(encoding="utf-8")
    assert f"| {part} (evaluated) |" in summary


def test_last_checkpoint_has_a_folder_of_its_own(own_run: Path, ltrain: Callable) -> None:
    result = ltrain("evaluate", own_run, "--checkpoint", "last", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (own_run / "test-last" / "results.json").is_file()
    assert "epoch 2" in result.stdout


def test_evaluate_repeats_the_numbers_of_the_run(own_run: Path, finished_run: Path, ltrain: Callable) -> None:
    assert ltrain("evaluate", own_run, "--device", "cpu").exit_code == 0
    for name in ("results.json", "predictions.csv", "summary.md"):
        assert (own_run / "test" / name).read_bytes() == (finished_run / "test" / name).read_bytes()


def test_moved_cache_is_named(
    own_run: Path, own_caches: Path, dir_of_size: Callable, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    config = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    config["cache_dir"] = str(own_caches / "gone")
    (own_run / "run.json").write_text(json.dumps(config), encoding="utf-8")
    before = files_below(own_run)
    message = error_of(ltrain("evaluate", own_run, "--device", "cpu"), 1)
    assert "--cache" in message
    assert "gone" in message
    wrong = dir_of_size(own_caches, 48)
    assert str(wrong) in error_of(ltrain("evaluate", own_run, "--cache", wrong, "--device", "cpu"), 1)
    assert files_below(own_run) == before
    for place in (dir_of_size(own_caches, 64), own_caches):
        assert ltrain("evaluate", own_run, "--cache", place, "--device", "cpu").exit_code == 0


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_what_is_no_run(command: str, scratch: Path, ltrain: Callable, error_of: Callable) -> None:
    (scratch / "folder").mkdir()
    for name, exit_code in (("folder", 1), ("nowhere", 2)):
        assert name in error_of(ltrain(command, name), exit_code)
    assert list(scratch.iterdir()) == [scratch / "folder"]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "rubbish", "gone"])
def test_damaged_checkpoint(command: str, damage: str, own_run: Path, ltrain: Callable, error_of: Callable) -> None:
    path = own_run / "final.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        for name in ("final", "best"):
            (own_run / f"{name}.safetensors").unlink()
    else:
        content[-1000] ^= 1
        damaged = {"cut": content[:100_000], "flipped": content, "rubbish": b"rubbish"}[damage]
        path.write_bytes(bytes(damaged))
    assert "final.safetensors" in error_of(ltrain(command, own_run, "--device", "cpu"), 1)


@pytest.mark.parametrize(("name", "content"), [("run.json", "{}"), ("run.json", "{"), ("split.csv", "a,b\n1,2\n")])
def test_damaged_run_file(name: str, content: str, own_run: Path, ltrain: Callable, error_of: Callable) -> None:
    (own_run / name).write_text(content, encoding="utf-8")
    assert name in error_of(ltrain("evaluate", own_run, "--device", "cpu"), 1)


# --- predict --------------------------------------------------------------------------------------------------------


def test_part_of_the_split(own_run: Path, ltrain: Callable) -> None:
    result = ltrain("predict", own_run, "--part", "valid", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert str(own_run / "predictions.csv") in result.stdout
    predicted = (own_run / "predictions.csv").read_bytes()
    assert predicted == (own_run / "valid" / "predictions.csv").read_bytes()


def test_an_image_is_not_written_over_by_its_prediction(
    finished_run: Path, cells: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    image = Path(shutil.copy(next(cells.rglob("*.bmp")), tmp_path / "1.bmp"))
    (tmp_path / "list.csv").write_text("Path\n1.bmp\n", encoding="utf-8")
    before = image.read_bytes()
    for listed in (tmp_path, tmp_path / "list.csv"):
        for option in ("--out", "--submission"):
            command = ("predict", finished_run, listed, "--out", tmp_path / "p.csv", option, image)
            assert "1.bmp" in error_of(ltrain(*command, "--device", "cpu"), 2)
    assert image.read_bytes() == before


def test_views_of_the_evaluation_are_used_again(own_run: Path, ltrain: Callable, json_of: Callable) -> None:
    for options, views in (((), "none"), (("--tta", "d4"), "d4")):
        told = json_of(ltrain("predict", own_run, "--part", "test", "--device", "cpu", "--json", *options))
        assert told["tta"] == {"views": views, "average": "logits"}
        same = (own_run / "predictions.csv").read_bytes() == (own_run / "test" / "predictions.csv").read_bytes()
        assert same == (views == "none")


def test_files_folders_and_tables_give_what_the_cache_gives(
    finished_run: Path, cells: Path, tmp_path: Path, ltrain: Callable, json_of: Callable
) -> None:
    """The recipe travels in the checkpoint: raw files through it are the cached pixels."""
    out = tmp_path / "p.csv"
    common = ("--out", out, "--device", "cpu")
    assert ltrain("predict", finished_run, "--part", "all", *common).exit_code == 0
    cached = probabilities_of(out)
    assert len(cached) == 32
    images = sorted(cells.rglob("*.bmp"))
    table = tmp_path / "cells.csv"
    table.write_text("Path\n" + "".join(f"{path.relative_to(cells).as_posix()}\n" for path in images), encoding="utf-8")
    for inputs in ([cells], images[:5], [table, "--root", cells], [images[-1], images[0].parent]):
        result = json_of(ltrain("predict", finished_run, *inputs, *common, "--json"))
        found = probabilities_of(out)
        assert len(found) == result["num_predicted"] >= 5
        assert sum(result["predicted"].values()) == len(found)
        assert found == pytest.approx({name: cached[name] for name in found}, abs=1e-5)


def test_submission_keeps_the_table_s_order_and_paths(
    finished_run: Path, cells: Path, tmp_path: Path, ltrain: Callable
) -> None:
    images = sorted(cells.rglob("*.bmp"))
    for number in range(5):
        shutil.copy2(images[number], tmp_path / f"{number}.bmp")
    ids = [f"./{number}.bmp" for number in (3, 0, 4, 1, 2)]
    table = tmp_path / "resnet_18_test.csv"
    table.write_text("Path\n" + "".join(f"{record_id}\n" for record_id in ids), encoding="utf-8")
    out, submission = tmp_path / "p.csv", tmp_path / "submission.csv"
    options = ("--out", out, "--submission", submission, "--device", "cpu")
    assert ltrain("predict", finished_run, table, *options).exit_code == 0
    lines = submission.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "ID,label"
    predicted = {row["id"]: row["prediction"] for row in rows_of(out)}
    assert lines[1:] == [f"{record_id},{int(predicted[record_id] == 'all')}" for record_id in ids]
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    moved = shutil.move(table, elsewhere / table.name)
    assert ltrain("predict", finished_run, moved, "--root", tmp_path, *options).exit_code == 0
    assert submission.read_text(encoding="utf-8").splitlines() == lines


def test_bad_image_among_good_ones(
    finished_run: Path, cells: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    images = sorted(cells.rglob("*.bmp"))[:3]
    for image in images:
        shutil.copy2(image, folder)
    (folder / "bad.bmp").write_bytes(images[0].read_bytes()[:1000])
    out = tmp_path / "p.csv"
    result = ltrain("predict", finished_run, folder, "--out", out, "--batch-size", 2, "--device", "cpu")
    assert "1 of 4 images" in error_of(result, 1)
    assert "bad.bmp: truncated" in result.stderr
    rows = {row["id"]: row for row in rows_of(out)}
    assert set(rows) == {"bad.bmp", *(image.name for image in images)}
    assert {name for name, row in rows.items() if row["prediction"] and row["probability_all"]} == {
        image.name for image in images
    }
    assert {name for name, row in rows.items() if "truncated" in row["problem"]} == {"bad.bmp"}
    told = json.loads(ltrain("predict", finished_run, folder, "--out", out, "--device", "cpu", "--json").stdout)
    assert (told["num_predicted"], told["failed"]) == (3, ["bad.bmp"])


def test_only_bad_images(finished_run: Path, tmp_path: Path, ltrain: Callable, error_of: Callable) -> None:
    bad, out = tmp_path / "bad.bmp", tmp_path / "p.csv"
    bad.write_bytes(b"rubbish")
    out.write_text("earlier", encoding="utf-8")
    assert "none" in error_of(ltrain("predict", finished_run, bad, "--out", out, "--device", "cpu"), 1)
    assert out.read_text(encoding="utf-8") == "earlier"


@pytest.mark.parametrize(
    ("options", "exit_code", "word"),
    [
        (["nowhere.bmp"], 2, "nowhere.bmp"),
        (["file.txt"], 2, "file.txt"),
        (["empty"], 1, "empty"),
        (["wrong.csv"], 1, "Path"),
        (["missing.csv"], 1, "--root"),
        (["--out", "no/p.csv"], 1, "no"),
        (["--submission", "no/s.csv"], 1, "no"),
        (["--out", "empty"], 2, "empty"),
        (["--device", "nope"], 2, "nope"),
        (["--part", "some"], 2, "--part"),
        (["--part", "valid", "empty"], 2, "leave it out"),
        (["--cache", "nowhere"], 1, "nowhere"),
    ],
)
def test_wrong_request_writes_nothing(
    options: list[object],
    exit_code: int,
    word: str,
    scratch: Path,
    finished_run: Path,
    ltrain: Callable,
    error_of: Callable,
    files_below: Callable,
) -> None:
    Path("empty").mkdir()
    Path("file.txt").write_text("mine", encoding="utf-8")
    Path("wrong.csv").write_text("a\n1\n", encoding="utf-8")
    Path("missing.csv").write_text("Path\n./1.bmp\n", encoding="utf-8")
    before = files_below(scratch), files_below(finished_run)
    assert word in error_of(ltrain("predict", finished_run, *options), exit_code)
    assert (files_below(scratch), files_below(finished_run)) == before


def test_weights_load_without_pickle_and_name_their_recipe(
    finished_run: Path, caches: Path, dir_of_size: Callable
) -> None:
    from safetensors import safe_open

    with safe_open(finished_run / "best.safetensors", framework="numpy") as file:
        content = json.loads(file.metadata()["content"])
    manifest = open_cache(dir_of_size(caches, 64)).manifest
    assert content["info"]["recipe"] == manifest.recipe.to_dict()
    assert content["info"]["data_fingerprint"] == manifest.fingerprint
    assert content["info"]["split_kind"] == "subject"
