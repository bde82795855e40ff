"""``ltrain --resume``: a stopped or killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leukemia_data.caches.manifest import load_manifest
from leukemia_data.files.lock import lock_run
from leukemia_data.records.fingerprint import lines_digest
from leukemia_models.devices import precision
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import load_checkpoint, save_checkpoint

from .runs import assert_same_run, history_rows


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline_s:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def position_of(run: Path) -> tuple[int, int] | None:
    """Epochs and steps of the epoch under way in the last checkpoint; None without one."""
    path = RunFolder(run).checkpoint("last")
    if not path.exists():
        return None
    state = load_checkpoint(path).state
    return state.epochs_done, state.progress.steps_done if state.progress else 0


@pytest.mark.skipif(not hasattr(os, "kill"), reason="kills a process")
def test_killed_between_epochs_a_run_resumes_to_the_same_bits(
    tmp_path: Path, train_options: list[object], finished_run: Path, ltrain: Callable, start_process: Callable
) -> None:
    run = tmp_path / "killed"
    process = start_process("ltrain", *train_options, "--epochs", 2, "--out", run, cwd=tmp_path)
    wait_for(RunFolder(run).history.exists, process)
    process.kill()
    process.communicate()
    assert len(history_rows(run)) == 1
    result = ltrain("--out", run, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert_same_run(run, finished_run)


@pytest.mark.parametrize(("stopped_at", "save_minutes"), [((1, 1), 10), ((1, 2), 0), ((2, 2), 0)])
def test_ctrl_c_says_how_to_go_on(
    stopped_at: tuple[int, int],
    save_minutes: int,
    tmp_path: Path,
    train_options: list[object],
    finished_run: Path,
    ltrain: Callable,
    error_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "stopped"
    options = ("--out", run, "--save-minutes", save_minutes)

    def interrupt(recorder: Recorder, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if (epoch, step) == stopped_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step", interrupt)
        message = error_of(ltrain(*train_options, "--epochs", 2, *options), 130)
    assert f"ltrain --out {run} --resume" in message
    epoch, step = stopped_at
    if save_minutes == 0:
        assert position_of(run) == ((epoch - 1, step - 1) if (epoch, step) != (1, 1) else None)
    assert ltrain("--resume", "--device", "cpu", *options).exit_code == 0
    assert_same_run(run, finished_run)


def test_resume_of_a_finished_run_evaluates_again(own_run: Path, finished_run: Path, ltrain: Callable) -> None:
    before = (own_run / "last.safetensors").read_bytes()
    (own_run / "test" / "results.json").unlink()
    result = ltrain("--out", own_run, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (own_run / "last.safetensors").read_bytes() == before
    for name in ("test/results.json", "history.csv"):
        assert (own_run / name).read_bytes() == (finished_run / name).read_bytes()


def test_resume_writes_the_history_that_a_killed_process_did_not_come_to(
    own_run: Path, finished_run: Path, ltrain: Callable
) -> None:
    """The last checkpoint is whole before the table is written, so a run may be over without its last row."""
    RunFolder(own_run).history.unlink()
    RunFolder(own_run).history_figure.unlink()
    assert ltrain("--out", own_run, "--resume", "--device", "cpu").exit_code == 0
    for path in (RunFolder(finished_run).history, RunFolder(finished_run).history_figure):
        assert (own_run / path.name).read_bytes() == path.read_bytes()


def test_epochs_may_not_end_a_run_before_the_epoch_under_way(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights at hand are those of epoch 2, half way; those of the end of epoch 1 are gone."""
    run = tmp_path / "stopped"

    def interrupt(recorder: Recorder, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step", interrupt)
        ltrain(*train_options, "--epochs", 3, "--save-minutes", 0, "--out", run)
    assert position_of(run) == (1, 1)
    message = error_of(ltrain("--out", run, "--resume", "--epochs", 1), 2)
    assert "begun 2 epochs" in message


def test_epochs_do_not_raise_what_early_stopping_ended(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable
) -> None:
    run = tmp_path / "early"
    assert ltrain(*train_options, "--early-stopping", 1, "--epochs", 9, "--lr", 1e-30, "--out", run).exit_code == 0
    assert len(history_rows(run)) < 9
    assert "early stopping" in error_of(ltrain("--out", run, "--resume", "--epochs", 20), 2)


def test_resume_removes_what_a_killed_process_was_writing(own_run: Path, ltrain: Callable) -> None:
    leftovers = [own_run / "last.safetensors.0123456789ab.partial", own_run / "test" / "roc.pdf.0123456789ab.partial"]
    for leftover in leftovers:
        leftover.write_bytes(b"half a file")
    assert ltrain("--out", own_run, "--resume", "--device", "cpu").exit_code == 0
    assert not any(leftover.exists() for leftover in leftovers)


def test_epochs_may_be_raised_on_resume(own_run: Path, ltrain: Callable) -> None:
    result = ltrain("--out", own_run, "--resume", "--epochs", 3, "--device", "cpu")
    assert result.exit_code == 0, result.output
    rates = [float(row["lr"]) for row in history_rows(own_run)]
    assert [row["epoch"] for row in history_rows(own_run)] == ["1", "2", "3"]
    (note,) = [line for line in result.stderr.splitlines() if "3 epochs instead of 2" in line]
    # Half a cosine of three epochs is at a quarter of its peak after two.
    for words in (f"epoch 2 ended at {rates[1]:.2g}", "epoch 3 begins at 0.0025", "--extend restart"):
        assert words in note
    extension = {"after_epochs": 2, "from_epochs": 2, "to_epochs": 3, "schedule": "stretch"}
    for path in ("run.json", "test/results.json"):
        settings = json.loads((own_run / path).read_text(encoding="utf-8"))["settings"]
        assert (settings["epochs"], settings["extensions"]) == (3, [extension])
    summary = (own_run / "test" / "summary.md").read_text(encoding="utf-8")
    assert "After 2 epochs the run was extended from 2 to 3 epochs" in summary


def test_a_run_goes_on_in_32_bits_where_its_16_bits_are_missing(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: True)
    result = ltrain(*train_options, "--epochs", 1, "--precision", "auto", "--device", "cpu", "--out", run)
    assert "computes in bf16 (weights, pooling and classifier in 32 bits), channels_last" in result.stderr
    results = json.loads((run / "test" / "results.json").read_text(encoding="utf-8"))
    assert (results["settings"]["precision"], results["judging"]["precision"]) == ("bf16", "fp32")

    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: False)
    resume = ("--out", run, "--resume", "--device", "cpu")
    assert ltrain(*resume).exit_code == 0, "a finished run needs no training"
    before = (run / "run.json").read_bytes()
    message = error_of(ltrain(*resume, "--epochs", 2), 2)
    assert (run / "run.json").read_bytes() == before
    assert "computes in bf16" in message
    assert "--precision fp32" in message
    result = ltrain(*resume, "--epochs", 2, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    said = "After 1 epochs the run went on in fp32 instead of bf16"
    assert said in result.stderr
    assert "computes in fp32" in result.stderr
    assert said in (run / "test" / "summary.md").read_text(encoding="utf-8")
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))["settings"]
    assert settings["precision_changes"] == [{"after_epochs": 1, "from_precision": "bf16", "to_precision": "fp32"}]
    assert len(history_rows(run)) == 2
    assert ltrain(*resume).exit_code == 0


def test_a_new_schedule_over_the_added_epochs_goes_on_bit_by_bit_where_it_is_killed(
    own_run: Path, tmp_path: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Path(shutil.copytree(own_run, tmp_path / "killed"))
    longer = ["--resume", "--epochs", 4, "--extend", "restart", "--save-minutes", 0, "--device", "cpu"]
    result = ltrain("--out", own_run, *longer)
    assert "epoch 3 begins at 0.01, as a new cosine schedule" in result.stderr
    first, second, third, fourth = (float(row["lr"]) for row in history_rows(own_run))
    # The rates of two epochs at a time are the same half cosine.
    assert (third, fourth) == (first, second)

    def interrupt(recorder: Recorder, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if (epoch, step) == (4, 2):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step", interrupt)
        ltrain("--out", killed, *longer)
    assert position_of(killed) == (3, 1)
    # The same command line again goes on; another extension is none of a run that is not at its end.
    assert "has done 3 of 4 epochs" in error_of(
        ltrain("--out", killed, "--resume", "--epochs", 9, "--extend", "restart"), 2
    )
    assert ltrain("--out", killed, *longer).exit_code == 0
    assert_same_run(killed, own_run)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resume", "--extend", "restart"], "--extend restart: the run has 2 epochs"),
        (["--resume", "--epochs", 2, "--extend", "stretch"], "the run has 2 epochs"),
        (["--resume", "--epochs", 2, "--extend", "sideways"], "sideways"),
    ],
)
def test_an_extension_that_extends_nothing_is_refused(
    own_run: Path, ltrain: Callable, options: list[object], words: str
) -> None:
    before = (own_run / "run.json").read_bytes()
    result = ltrain("--out", own_run, *options, "--device", "cpu")
    assert result.exit_code == 2
    assert words in result.stderr
    assert (own_run / "run.json").read_bytes() == before


def test_extend_without_resume_is_refused(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable
) -> None:
    options = [*train_options, "--extend", "restart", "--out", tmp_path / "run"]
    assert "--resume" in error_of(ltrain(*options), 2)
    assert "--extend" in error_of(ltrain("kfold", *options), 2)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_with_numbers_that_are_not_finite_is_refused_before_anything_changes(
    own_run: Path, ltrain: Callable, error_of: Callable, tmp_path: Path, train_options: list[object]
) -> None:
    last = RunFolder(own_run).checkpoint("last")
    checkpoint = load_checkpoint(last)
    model = build_model(checkpoint.info.model_name, 2)
    model.load_state_dict(checkpoint.training_weights)
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, :2] = math.nan
    for which in ("last", "final"):
        save_checkpoint(RunFolder(own_run).checkpoint(which), model, checkpoint.info, checkpoint.state)
    before = (own_run / "run.json").read_bytes()
    words = "not finite (conv1.weight, 2 of"
    assert words in error_of(ltrain("--resume", "--out", own_run, "--epochs", 3, "--device", "cpu"), 1)
    assert (own_run / "run.json").read_bytes() == before
    for command in (("--resume", "--out", own_run), ("evaluate", own_run), ("predict", own_run, "--part", "test")):
        message = error_of(ltrain(*command, "--device", "cpu"), 1)
        assert words in message
        assert ".safetensors" in message
    for command in ((), ("kfold", "--folds", 2)):
        options = [*command, *train_options, "--start", last, "--out", tmp_path / "new"]
        assert words in error_of(ltrain(*options), 1)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["--epochs", 1], 2, ["--epochs", "2 epochs"]),
        (["--lr", 0.5, "--size", 64], 2, ["--lr", "--size"]),
        (["--model", "resnet34"], 2, ["--model"]),
        (["--seed", 1], 2, ["--seed"]),
        (["--split", "image"], 2, ["--split"]),
        (["--device", "nope"], 2, ["--device", "nope"]),
        (["--cache", "nowhere"], 1, ["nowhere"]),
        (["--epochs", 3, "--residency", "device", "--device", "cpu"], 2, ["residency 'device'"]),
    ],
)
def test_wrong_resume_changes_nothing(
    options: list[object],
    exit_code: int,
    words: list[str],
    own_run: Path,
    ltrain: Callable,
    error_of: Callable,
    files_below: Callable,
) -> None:
    before = files_below(own_run)
    message = error_of(ltrain("--out", own_run, "--resume", *options), exit_code)
    assert all(word in message for word in words), message
    assert files_below(own_run) == before


@pytest.mark.parametrize("begun_by", ["this version", "an earlier version"])
def test_resume_goes_on_with_the_same_data_in_other_shards_or_of_an_earlier_version(
    begun_by: str,
    own_run: Path,
    caches: Path,
    own_caches: Path,
    dir_of_size: Callable,
    ldata: Callable,
    ltrain: Callable,
) -> None:
    config_path, cache = own_run / "run.json", dir_of_size(caches, 64)
    if begun_by == "this version":
        cache = dir_of_size(own_caches, 64)
        assert ldata("convert", cache).exit_code == 0
    else:
        manifest = load_manifest(cache)
        digest = lines_digest([*manifest.classes, *(shard.digest for shard in manifest.shards)])
        config = json.loads(config_path.read_text(encoding="utf-8"))
        config_path.write_text(json.dumps({**config, "data_digest": digest}), encoding="utf-8")
    (own_run / "test" / "results.json").unlink()
    result = ltrain("--out", own_run, "--resume", "--cache", cache, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (own_run / "test" / "results.json").exists()


def test_resume_refuses_a_cache_of_other_images(
    own_run: Path,
    tmp_path: Path,
    cells: Path,
    ldata: Callable,
    ltrain: Callable,
    error_of: Callable,
    files_below: Callable,
) -> None:
    fewer = tmp_path / "cells"
    shutil.copytree(cells, fewer)
    next(iter(sorted(fewer.rglob("UID_1_1_1_all.bmp")))).unlink()
    ldata("build", fewer, "--size", 64, "--recipe", "raw", "--cache", tmp_path / "fewer")
    before = files_below(own_run)
    options = ("--out", own_run, "--resume", "--epochs", 5, "--cache", tmp_path / "fewer")
    message = error_of(ltrain(*options), 1)
    assert "1 are missing" in message
    assert "UID_1_1_1_all.bmp" in message
    assert files_below(own_run) == before


def test_added_images_are_unused_in_an_evaluation_and_refused_by_resume(
    own_run: Path, tmp_path: Path, cells: Path, ldata: Callable, ltrain: Callable, error_of: Callable
) -> None:
    """Draws depend on a sample's place in the cache, so a resumed run would not be the same."""
    more = tmp_path / "cells"
    shutil.copytree(cells, more)
    path = sorted(more.rglob("UID_1_1_1_all.bmp"))[0]
    path.with_name("UID_1_99_1_all.bmp").write_bytes(path.read_bytes()[:-1] + b"\x07")
    ldata("build", more, "--size", 64, "--recipe", "raw", "--cache", tmp_path / "more")
    options = ("--cache", tmp_path / "more", "--device", "cpu")
    message = error_of(ltrain("--out", own_run, "--resume", "--epochs", 5, *options), 1)
    assert "holds other images than when the run began, beside the run's own" in message
    before = (own_run / "test" / "predictions.csv").read_bytes()
    result = ltrain("evaluate", own_run, *options)
    assert result.exit_code == 0, result.output
    assert "1 images that were added" in result.stderr
    assert (own_run / "test" / "predictions.csv").read_bytes() == before


def test_resume_needs_out_and_a_run(scratch: Path, ltrain: Callable, error_of: Callable) -> None:
    assert "--out" in error_of(ltrain("--resume"), 2)
    for command in ([], ["kfold"]):
        message = error_of(ltrain(*command, "--resume", "--out", "nowhere"), 2)
        assert "nowhere does not exist" in message
    assert list(scratch.iterdir()) == []
    (scratch / "empty").mkdir()
    assert "empty holds no run" in error_of(ltrain("--resume", "--out", "empty"), 1)
    assert "empty holds no cross-validation" in error_of(ltrain("kfold", "--resume", "--out", "empty"), 1)


@pytest.mark.parametrize("written", ["split.csv", "01-small/run.json"])
def test_a_beginning_that_was_killed_before_it_was_whole_is_named(
    written: str, tmp_path: Path, finished_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    """The settings of a run, and the plan of several, are written last; without them there is nothing to go on with."""
    begun = tmp_path / "begun"
    (begun / written).parent.mkdir(parents=True)
    shutil.copyfile(finished_run / Path(written).name, begun / written)
    message = error_of(ltrain("--resume", "--out", begun), 1)
    assert "stopped before its first step" in message
    assert "remove it" in message


def test_run_of_an_earlier_version_is_evaluated_but_not_resumed(
    own_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    config = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    del config["augmentation"], config["sampling"]
    (own_run / "run.json").write_text(json.dumps({**config, "format_version": 1}), encoding="utf-8")
    assert "earlier version" in error_of(ltrain("--resume", "--out", own_run, "--epochs", 3), 1)
    assert ltrain("evaluate", own_run, "--device", "cpu").exit_code == 0


def test_a_weighted_run_of_an_earlier_version_augments_repeats_as_it_began(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    begun = ltrain(*train_options, "--epochs", 1, "--sampling", "class-balanced", "--out", new)
    assert "class-balanced (repeats in an epoch augmented anew)" in begun.stderr
    shutil.copytree(new, old)
    config = json.loads((old / "run.json").read_text(encoding="utf-8"))
    assert config.pop("draws_by_occurrence") is True
    (old / "run.json").write_text(json.dumps({**config, "format_version": 5}), encoding="utf-8")
    resumed = [ltrain("--resume", "--out", run, "--epochs", 2, "--device", "cpu") for run in (new, old)]
    assert "class-balanced (repeats in an epoch augmented anew)" in resumed[0].stderr
    assert "class-balanced (repeats in an epoch augmented alike, as when the run began)" in resumed[1].stderr
    # Both draw the same samples, of which some come twice.
    rows = [history_rows(run) for run in (new, old)]
    assert rows[0][0] == rows[1][0]
    assert rows[0][1]["train_loss"] != rows[1][1]["train_loss"]
    assert json.loads((old / "run.json").read_text(encoding="utf-8"))["draws_by_occurrence"] is False


@pytest.mark.parametrize("changed", ["[transpose]\np = 1.0\n", "x = ["])
def test_resume_says_that_an_edited_augmentation_does_not_count(changed: str, own_run: Path, ltrain: Callable) -> None:
    path = RunFolder(own_run).augmentation
    assert "augment.toml" not in ltrain("--resume", "--out", own_run, "--device", "cpu").stderr
    path.write_text(changed, encoding="utf-8")
    result = ltrain("--resume", "--out", own_run, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert f"warning: {path} was changed" in result.stderr
    assert path.read_text(encoding="utf-8") == changed


@pytest.mark.parametrize(
    ("key", "value"),
    [("augmentation", [1]), ("augmentation", {"rotate": 5}), ("sampling", "fair"), ("draws_by_occurrence", 1)],
)
def test_resume_refuses_damaged_settings_of_the_stream(
    key: str, value: Any, own_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    config = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    (own_run / "run.json").write_text(json.dumps({**config, key: value}), encoding="utf-8")
    before = files_below(own_run)
    message = error_of(ltrain("--resume", "--out", own_run, "--epochs", 3, "--device", "cpu"), 1)
    assert "run.json is damaged" in message
    assert files_below(own_run) == before


def test_a_run_that_another_process_trains_is_left_alone(own_run: Path, ltrain: Callable, error_of: Callable) -> None:
    before = sorted(own_run.rglob("*"))
    with lock_run(own_run):
        message = error_of(ltrain("--out", own_run, "--resume", "--epochs", 3, "--device", "cpu"), 1)
    assert f"another training is writing to {own_run} (process {os.getpid()}" in message
    assert sorted(own_run.rglob("*")) == before
    assert ltrain("--out", own_run, "--resume", "--device", "cpu").exit_code == 0
