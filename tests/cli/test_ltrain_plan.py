"""``ltrain --plan`` and ``ltrain plans``: several stages, each from the weights the plan names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import RunFolder, find_runs, last_run

from .runs import assert_same_weights, history_rows, tensors_of

PLAN = """\
description = "Two sizes."
model = "resnet18-narrow"

[defaults]
recipe = "raw"
batch_size = 8
augment = "none"
optimizer = { name = "sgd", lr = 0.01 }

[[stage]]
name = "small"
size = 48
epochs = 2

[[stage]]
name = "large"
size = 64
epochs = 1
start = "best:small"
schedule = { name = "constant" }
optimizer.lr = 1e-30
"""


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "two-sizes.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plan_run(tmp_path_factory: pytest.TempPathFactory, plan_file: Path, caches: Path, ltrain: Callable) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plan"
    result = ltrain("--plan", plan_file, "--cache", caches, "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_every_stage_is_a_run_of_its_own(plan_run: Path) -> None:
    assert [run.root.name for run in find_runs(plan_run)] == ["01-small", "02-large"]
    assert last_run(plan_run).root.name == "02-large"
    assert [len(history_rows(plan_run / name)) for name in ("01-small", "02-large")] == [2, 1]
    for name in ("01-small", "02-large"):
        assert (plan_run / name / "test" / "results.json").is_file()
    assert (plan_run / "plan.toml").read_text(encoding="utf-8") == PLAN


def test_the_second_stage_starts_from_the_best_of_the_first(plan_run: Path) -> None:
    """At a learning rate of next to nothing the weights stay what they were; BatchNorm's statistics move."""
    before = load_file(RunFolder(plan_run / "01-small").checkpoint("best"))
    after = tensors_of(plan_run / "02-large")
    weights = [name for name in before if name.endswith(("conv1.weight", "fc.weight"))]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)


def test_stages_share_the_split_and_not_the_seed(plan_run: Path) -> None:
    small, large = (json.loads((plan_run / name / "run.json").read_text()) for name in ("01-small", "02-large"))
    assert (plan_run / "01-small" / "split.csv").read_bytes() == (plan_run / "02-large" / "split.csv").read_bytes()
    assert small["settings"]["seed"] == 0 != large["settings"]["seed"]
    assert small["split_seed"] == large["split_seed"] == 0
    assert (small["start"], large["start"]) == ("scratch", "../01-small/best.safetensors")
    assert small["normalization"] != large["normalization"]


def test_a_plan_folder_is_used_like_a_run(plan_run: Path, ltrain: Callable, json_of: Callable) -> None:
    judged = json_of(ltrain("evaluate", plan_run, "--part", "valid", "--device", "cpu", "--json"))
    assert judged["results"]["settings"]["size_px"] == 64


@pytest.mark.parametrize("last_stage", ["nothing", "settings"])
def test_a_plan_goes_on_at_the_stage_that_was_stopped(
    last_stage: str, plan_run: Path, tmp_path: Path, ltrain: Callable
) -> None:
    stopped = Path(shutil.copytree(plan_run, tmp_path / "stopped"))
    large = stopped / "02-large"
    for path in list(large.iterdir()):
        if path.name not in ("run.json", "split.csv", "augment.toml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    small_before = RunFolder(stopped / "01-small").checkpoint("last").stat().st_mtime_ns
    if last_stage == "nothing":
        RunFolder(stopped / "01-small").checkpoint("final").unlink()
    result = ltrain("--out", stopped, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert_same_weights(large, plan_run / "02-large")
    assert RunFolder(stopped / "01-small").checkpoint("last").stat().st_mtime_ns == small_before
    assert RunFolder(stopped / "01-small").checkpoint("final").is_file()


def test_a_scaled_plan_says_so(plan_file: Path, caches: Path, tmp_path: Path, ltrain: Callable) -> None:
    out = tmp_path / "short"
    result = ltrain(
        "--plan", plan_file, "--epochs-scale", 0.5, "--cache", caches, "--device", "cpu", "--out", out, "--tta", "d4"
    )
    assert result.exit_code == 0, result.output
    assert len(history_rows(out / "01-small")) == 1
    assert (out / "plan.toml").read_text(encoding="utf-8").startswith("# epochs-scale 0.5\n")
    assert json.loads((out / "02-large" / "run.json").read_text())["judging"]["tta"]["views"] == "d4"


@pytest.mark.parametrize(
    ("change", "options", "exit_code", "words"),
    [
        ("size = 64|size = 65", [], 1, ["65 px", "ldata build", "--recipe raw"]),
        ('recipe = "raw"|recipe = "report-a"', [], 1, ["report-a", "ldata build"]),
        ('start = "best:small"|start = "best:tiny"', [], 2, ["line 19", "before it: small"]),
        ("|", ["--epochs", 3], 2, ["--plan sets --epochs"]),
        ("|", ["--lr", 3, "--model", "resnet50"], 2, ["--lr", "--model"]),
        ("|", ["--epochs-scale", 0], 2, ["epochs-scale"]),
        (
            "schedule = {|early_stopping = {patience_epochs = 1}\nschedule = {",
            ["--split", "test-fold:1/2"],
            2,
            ["valid"],
        ),
    ],
)
def test_a_wrong_plan_fails_before_anything_is_written(
    change: str,
    options: list[object],
    exit_code: int,
    words: list[str],
    scratch: Path,
    tmp_path: Path,
    caches: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    right, wrong = change.split("|")
    path = tmp_path / "wrong.toml"
    path.write_text(PLAN.replace(right, wrong) if right else PLAN, encoding="utf-8")
    before = {child.name for child in scratch.iterdir()}
    message = error_of(ltrain("--plan", path, "--cache", caches, "--device", "cpu", *options), exit_code)
    assert all(word in message for word in words), message
    assert {child.name for child in scratch.iterdir()} == before


def test_stages_of_other_images_are_refused(
    plan_file: Path,
    own_caches: Path,
    dir_of_size: Callable,
    tmp_path: Path,
    ldata: Callable,
    ltrain: Callable,
    error_of: Callable,
    cells: Path,
) -> None:
    shutil.rmtree(dir_of_size(own_caches, 64))
    fewer = Path(shutil.copytree(cells, tmp_path / "cells"))
    next(fewer.rglob("*.bmp")).unlink()
    assert ldata("build", fewer, "--size", 64, "--recipe", "raw", "--cache", own_caches).exit_code == 0
    message = error_of(ltrain("--plan", plan_file, "--cache", own_caches, "--out", tmp_path / "out"), 2)
    assert "other images" in message
    assert not (tmp_path / "out").exists()


def test_epochs_scale_is_for_plans(ltrain: Callable, error_of: Callable) -> None:
    assert "--plan" in error_of(ltrain("--epochs-scale", 0.5), 2)


def test_plans_are_listed_and_shown(ltrain: Callable, json_of: Callable, plan_file: Path, error_of: Callable) -> None:
    listed = json_of(ltrain("plans", "--json"))
    assert {"report-a-resnet18", "report-a-resnet50", "report-a-resnet152", "report-b-ranger21"} <= {
        plan["name"] for plan in listed
    }
    assert "report-b-adamw" in ltrain("plans").stdout
    shown = ltrain("plans", plan_file).stdout
    assert "best:small" in shown
    assert "1e-30" in shown
    assert "known are" in error_of(ltrain("plans", "report-z"), 2)


def test_stages_of_other_subjects_are_refused(
    plan_file: Path,
    own_caches: Path,
    dir_of_size: Callable,
    tmp_path: Path,
    ldata: Callable,
    ltrain: Callable,
    error_of: Callable,
    cells: Path,
) -> None:
    """The same file names, but two cells of different people changed places in one of the caches."""
    shutil.rmtree(dir_of_size(own_caches, 64))
    other = Path(shutil.copytree(cells, tmp_path / "cells"))
    first, second = sorted(other.rglob("*.bmp"))[:: len(list(other.rglob("*.bmp"))) - 1][:2]
    first.rename(tmp_path / "held")
    second.rename(first)
    (tmp_path / "held").rename(second)
    assert ldata("build", other, "--size", 64, "--recipe", "raw", "--cache", own_caches).exit_code == 0
    message = error_of(ltrain("--plan", plan_file, "--cache", own_caches, "--out", tmp_path / "out"), 2)
    assert "other images" in message
    assert not (tmp_path / "out").exists()


def test_a_stage_that_died_while_it_was_evaluated_is_evaluated_again(
    plan_run: Path, tmp_path: Path, ltrain: Callable
) -> None:
    """Its final checkpoint is written first: that alone does not make it finished."""
    stopped = Path(shutil.copytree(plan_run, tmp_path / "stopped"))
    shutil.rmtree(stopped / "01-small" / "test")
    assert ltrain("--out", stopped, "--resume", "--device", "cpu").exit_code == 0
    for name in ("predictions.csv", "results.json", "summary.md"):
        expected = (plan_run / "01-small" / "test" / name).read_bytes()
        assert (stopped / "01-small" / "test" / name).read_bytes() == expected


def test_an_interrupted_plan_says_how_to_go_on_with_all_of_it(
    plan_file: Path,
    caches: Path,
    scratch: Path,
    ltrain: Callable,
    error_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "on_step", interrupt)
    message = error_of(ltrain("--plan", plan_file, "--cache", caches, "--device", "cpu"), 130)
    assert f"`ltrain --out {Path('runs') / 'two-sizes-subject-seed0'} --resume`" in message
