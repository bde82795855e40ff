"""The positive class: chosen at the build or at training, recorded, kept, and named in what is written."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.records.record import parse_cell_name
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, load_checkpoint, save_checkpoint

from .runs import assert_same_weights


def table_of(cells: Path, path: Path, hem: str, all_: str) -> Path:
    """A table of the sample's images with other names of their classes; the run's labels are then `hem` and `all_`."""
    found = {image: parse_cell_name(image.name) for image in sorted(cells.rglob("*.bmp"))}
    rows = [
        f"{image.relative_to(cells)},{(hem, all_)[cell.label]},{cell.subject}" for image, cell in found.items() if cell
    ]
    path.write_text("\n".join(["Path,label,subject", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> list[object]:
    """Arguments of a source whose classes, early and late, do not say which one is positive."""
    table = table_of(cells, tmp_path_factory.mktemp("tables") / "cells.csv", "late", "early")
    return [table, "--root", cells]


@pytest.fixture(scope="module")
def open_caches(tmp_path_factory: pytest.TempPathFactory, source: list[object], ldata: Callable) -> Path:
    root = tmp_path_factory.mktemp("open-caches")
    result = ldata("build", *source, "--size", 64, "--size", 48, "--recipe", "raw", "--cache", root)
    assert result.exit_code == 0, result.output
    assert "positive class: open, here or at training say --positive early or --positive late" in result.stderr
    return root


@pytest.fixture(scope="module")
def options(open_caches: Path) -> list[object]:
    network = ("--model", "resnet18-narrow", "--batch-size", 8, "--device", "cpu", "--lr", 0.01, "--epochs", 1)
    return ["--cache", open_caches, *network]


@pytest.fixture(scope="module")
def early_run(tmp_path_factory: pytest.TempPathFactory, options: list[object], ltrain: Callable) -> Path:
    """A run whose positive class is its first one."""
    out = tmp_path_factory.mktemp("runs") / "early"
    result = ltrain(*options, "--size", 64, "--positive", "EARLY", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("positive class: early (chosen with --positive); --positive changes it") == 1
    return out


def results_of(run: Path, part: str = "test") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / part / "results.json").read_text(encoding="utf-8"))
    return content


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- builds -----------------------------------------------------------------------------------------------------


def test_a_build_says_keeps_and_changes_the_choice(
    source: list[object], open_caches: Path, tmp_path: Path, ldata: Callable, dir_of_size: Callable
) -> None:
    root = Path(shutil.copytree(open_caches, tmp_path / "own"))
    build = ("build", *source, "--size", 64, "--recipe", "raw", "--cache", root)
    shards = {path.name for path in dir_of_size(root, 64).glob("*.h5")}
    result = ldata(*build, "--positive", "late")
    assert result.exit_code == 0, result.output
    assert "options: none, now --positive late" in result.stderr
    assert "positive class: late (chosen with --positive)" in result.stderr
    assert "0 preprocessed, 0 copied, 32 kept" in result.stdout
    assert {path.name for path in dir_of_size(root, 64).glob("*.h5")} == shards
    with open_cache(dir_of_size(root, 64)) as cache:
        assert cache.manifest.classes == ("early", "late")
        assert cache.manifest.understood is not None
        assert cache.manifest.understood.positive is not None
        assert cache.manifest.understood.positive.name == "late"
    assert "positive class: late" in ldata("info", dir_of_size(root, 64)).output
    manifest = (dir_of_size(root, 64) / "manifest.json").read_bytes()
    assert ldata(*build, "--positive", "late").exit_code == 0
    assert (dir_of_size(root, 64) / "manifest.json").read_bytes() == manifest


def test_known_pairs_are_said_and_unknown_classes_refused(
    cells: Path, tmp_path: Path, ldata: Callable, error_of: Callable
) -> None:
    table = table_of(cells, tmp_path / "t.csv", "Healthy", "Blast")
    scanned = ldata("scan", table, "--root", cells)
    assert "positive class: Blast (of the pair Blast/Healthy: Healthy is the negative one)" in scanned.output
    message = error_of(ldata("scan", table, "--root", cells, "--positive", "Blasts"), 2)
    assert "--positive Blasts: there is no such class; classes are Blast, Healthy" in message


# --- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["kfold"]])
def test_training_without_a_known_positive_class_is_refused(
    command: list[str], options: list[object], tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    out = tmp_path / "run"
    message = error_of(ltrain(*command, *options, "--size", 48, "--out", out), 2)
    assert "--positive early or --positive late" in message
    assert not out.exists()
    message = error_of(ltrain(*command, *options, "--size", 48, "--positive", "x", "--out", out), 2)
    assert "classes are early, late" in message


def test_the_choice_is_recorded_and_named(early_run: Path) -> None:
    folder = RunFolder(early_run)
    assert json.loads(folder.config.read_text(encoding="utf-8"))["positive"] == "early"
    for which in ("last", "best", "final"):
        info = load_checkpoint(folder.checkpoint(which)).info
        assert (info.classes, info.evaluated_classes) == (("early", "late"), ("late", "early"))
    results = results_of(early_run)
    assert (results["positive"], results["classes"]) == ("early", ["late", "early"])
    page = (early_run / "test" / "summary.md").read_text(encoding="utf-8")
    for words in ("sensitivity (recall of `early`)", "specificity (recall of `late`)", "AUPRC (of `early`)"):
        assert words in page
    assert "images `late` | images `early`" in page


def test_numbers_are_those_of_the_chosen_class(early_run: Path) -> None:
    rows = rows_of(early_run / "test" / "predictions.csv")
    columns = ["id", "subject", "label", "split", "prediction", "probability_early", "probability_late", "stamp"]
    assert list(rows[0]) == columns
    for row in rows:
        assert row["prediction"] == ("early" if float(row["probability_early"]) > 0.5 else "late")
    of_early = [row["prediction"] == "early" for row in rows if row["label"] == "early"]
    assert results_of(early_run)["metrics"]["sensitivity"] == sum(of_early) / len(of_early)
    counted = results_of(early_run)["split"]["parts"]["test"]["images_per_class"]
    assert counted == [sum(row["label"] == name for row in rows) for name in ("late", "early")]


def test_training_itself_does_not_depend_on_it(
    early_run: Path, options: list[object], tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    late_run = tmp_path / "late"
    result = ltrain(*options, "--size", 64, "--positive", "late", "--out", late_run)
    assert result.exit_code == 0, result.output
    assert_same_weights(early_run, late_run)
    early, late = results_of(early_run)["metrics"], results_of(late_run)["metrics"]
    assert (early["sensitivity"], early["specificity"]) == (late["specificity"], late["sensitivity"])
    message = error_of(ltrain("compare", early_run, late_run, "--out", tmp_path / "compared"), 2)
    assert "different positive classes: early and late" in message


def test_a_run_keeps_its_choice(early_run: Path, options: list[object], ltrain: Callable, error_of: Callable) -> None:
    message = error_of(ltrain("--out", early_run, "--resume", "--positive", "late"), 2)
    assert "leave out --positive" in message
    again = (*options, "--size", 64, "--out", early_run, "--resume-if-begun")
    assert "--positive: early instead of late" in error_of(ltrain(*again, "--positive", "late"), 2)


def test_the_stages_of_a_plan_have_one_choice(
    source: list[object],
    open_caches: Path,
    tmp_path: Path,
    ldata: Callable,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    plan = tmp_path / "plan.toml"
    stages = "".join(f'[[stage]]\nname = "s{size}"\nsize = {size}\nepochs = 1\nbatch_size = 8\n\n' for size in (48, 64))
    plan.write_text(f'name = "two"\nmodel = "resnet18-narrow"\n\n{stages}', encoding="utf-8")
    root = Path(shutil.copytree(open_caches, tmp_path / "own"))
    for size, positive in ((48, "early"), (64, "late")):
        built = ldata("build", *source, "--size", size, "--recipe", "raw", "--cache", root, "--positive", positive)
        assert built.exit_code == 0, built.output
    train = ("--plan", plan, "--cache", root, "--device", "cpu", "--out", tmp_path / "run")
    message = error_of(ltrain(*train), 2)
    assert "is early, that of" in message
    assert "is late: choose one with --positive" in message
    result = ltrain(*train, "--positive", "early")
    assert result.exit_code == 0, result.output
    for stage in ("01-s48", "02-s64"):
        assert results_of(tmp_path / "run" / stage)["positive"] == "early"


def test_folds_have_it_too(options: list[object], tmp_path: Path, ltrain: Callable) -> None:
    out = tmp_path / "kfold"
    result = ltrain("kfold", *options, "--size", 48, "--folds", 2, "--positive", "early", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("positive class: early") == 1
    assert "sensitivity (recall of early)" in result.stdout
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (content["positive"], content["classes"]) == ("early", ["late", "early"])
    rows = rows_of(out / "predictions.csv")
    of_early = [row["prediction"] == "early" for row in rows if row["label"] == "early"]
    assert content["pooled"]["metrics"]["sensitivity"] == sum(of_early) / len(of_early)
    assert "sensitivity (recall of `early`)" in (out / "summary.md").read_text(encoding="utf-8")
    assert {row["positive"] for row in rows_of(out / "folds.csv")} == {"early"}


# --- runs of earlier versions -------------------------------------------------------------------------------------


def forget_positive(run: Path) -> None:
    """Make a run one of a version that knew no positive class."""
    folder = RunFolder(run)
    config = json.loads(folder.config.read_text(encoding="utf-8"))
    del config["positive"]
    folder.config.write_text(json.dumps(config | {"format_version": 4}), encoding="utf-8")
    for which in ("last", "best", "final"):
        read = load_checkpoint(folder.checkpoint(which))
        details = {name: value for name, value in read.info.details.items() if name != POSITIVE_DETAIL}
        info = replace(read.info, details=details)
        save_checkpoint(read.path, read.build_model(), info, read.state, resumable=False)


def test_a_run_of_an_earlier_version_keeps_its_second_class_and_says_so(own_run: Path, ltrain: Callable) -> None:
    before, rows = results_of(own_run), rows_of(own_run / "test" / "predictions.csv")
    forget_positive(own_run)
    result = ltrain("evaluate", own_run, "--device", "cpu")
    assert result.exit_code == 0, result.output
    after = results_of(own_run)
    assert (after["positive"], after["metrics"], after["intervals"]) == ("all", before["metrics"], before["intervals"])
    assert rows_of(own_run / "test" / "predictions.csv") == rows
    assert "its second class, all, is the positive one" in (own_run / "test" / "summary.md").read_text(encoding="utf-8")
    assert "its second class, all, is the positive one" in result.stderr


# --- predictions of files -------------------------------------------------------------------------------------------


def test_predicted_files_have_labels_of_the_runs_own_classes(
    early_run: Path, cells: Path, tmp_path: Path, ltrain: Callable
) -> None:
    images = sorted(cells.rglob("*_all.bmp"))[:3]
    for image, name in zip(images, ("late/x.bmp", f"all/{images[1].name}", f"early/{images[2].name}"), strict=True):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        # Other pixels than the run's own: what the run knows has the label of its split.
        cv2.imwrite(str(tmp_path / "new" / name), cv2.flip(cv2.imread(str(image)), 0))
    out, submission = tmp_path / "p.csv", tmp_path / "s.csv"
    files = ("--out", out, "--submission", submission)
    result = ltrain("predict", early_run, tmp_path / "new", "--device", "cpu", *files)
    assert result.exit_code == 0, result.output
    label_of = {row["id"].split("/")[0]: row["label"] for row in rows_of(out)}
    assert label_of == {"late": "late", "all": "", "early": "early"}
    assert result.stderr.count("named by another list of classes than the run's (early, late)") == 1
    assert "all (1 images)" in result.stderr
    answers = {row["id"]: row["prediction"] for row in rows_of(out)}
    assert {row["ID"]: row["label"] for row in rows_of(submission)} == {
        record_id: "1" if answer == "early" else "0" for record_id, answer in answers.items()
    }
