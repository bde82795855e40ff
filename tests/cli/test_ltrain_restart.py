"""``ltrain --resume-if-begun``: one command line for the beginning and for going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_models.devices import precision
from leukemia_models.runs.recorder import Recorder

from .runs import assert_same_run, history_rows

ELASTIC = {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "0"}


def interrupted_at(place: tuple[int, int], monkeypatch: pytest.MonkeyPatch, command: Callable[[], object]) -> None:
    def interrupt(recorder: Recorder, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if (epoch, step) == place:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step", interrupt)
        command()


@pytest.mark.parametrize("environment", [None, ELASTIC], ids=["option", "torchrun"])
def test_the_same_command_line_begins_and_goes_on(
    environment: dict[str, str] | None,
    tmp_path: Path,
    train_options: list[object],
    finished_run: Path,
    ltrain: Callable,
    error_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    options = [*train_options, "--epochs", 2, "--out", run, "--save-minutes", 0]
    options += [] if environment else ["--resume-if-begun"]
    command = lambda: ltrain(*options, env=environment)  # noqa: E731 - the same thing three times
    interrupted_at((2, 2), monkeypatch, command)
    assert len(history_rows(run)) == 1
    result = command()
    assert result.exit_code == 0, result.output
    assert "going on after 1 epochs and 1 steps" in result.stderr
    assert_same_run(run, finished_run)
    other = ["--lr", 0.02, "--epochs", 3, "--tta", "d4"]
    message = error_of(ltrain(*options, *other, env=environment), 2)
    for words in ("begun with other settings", "--lr: 0.01 instead of 0.02", "--epochs: 2 instead of 3", "d4"):
        assert words in message
    assert_same_run(run, finished_run)


def test_a_run_that_may_be_started_again_needs_a_folder(
    scratch: Path, train_options: list[object], ltrain: Callable, error_of: Callable
) -> None:
    assert "--max-restarts needs --out" in error_of(ltrain(*train_options, env=ELASTIC), 2)
    assert "--resume-if-begun needs --out" in error_of(ltrain("kfold", *train_options, "--resume-if-begun"), 2)
    assert list(scratch.iterdir()) == []


def test_a_beginning_that_was_killed_is_begun_again_and_a_foreign_folder_left_alone(
    tmp_path: Path, train_options: list[object], finished_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    run = tmp_path / "run"
    (run / "01-earlier").mkdir(parents=True)
    for name in ("split.csv", "01-earlier/run.json", "run.json.0123456789ab.partial"):
        (run / name).write_text("half a f", encoding="utf-8")
    options = [*train_options, "--epochs", 2, "--out", run, "--resume-if-begun"]
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    assert "not empty" in error_of(ltrain(*options), 2)
    assert (run / "split.csv").read_text(encoding="utf-8") == "half a f"
    (run / "notes.txt").unlink()
    assert ltrain(*options).exit_code == 0
    assert_same_run(run, finished_run)
    assert not (run / "01-earlier").exists()


def test_cross_validation_goes_on_by_the_same_command_line(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "folds"
    options = ["kfold", *train_options, "--folds", 2, "--epochs", 1, "--out", out, "--resume-if-begun"]
    interrupted_at((1, 1), monkeypatch, lambda: ltrain(*options))
    assert not (out / "fold-1" / "last.safetensors").exists()
    assert ltrain(*options).exit_code == 0
    before = (out / "fold-2" / "history.csv").read_bytes()
    assert ltrain(*options).exit_code == 0
    assert (out / "fold-2" / "history.csv").read_bytes() == before
    assert "--lr: 0.01 instead of 0.5" in error_of(ltrain(*options, "--lr", 0.5), 2)


def test_a_job_that_is_restarted_on_another_machine_keeps_what_the_first_one_decided(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    options = [*train_options, "--precision", "auto", "--epochs", 1, "--out", run, "--resume-if-begun"]
    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: False)
    interrupted_at((1, 1), monkeypatch, lambda: ltrain(*options))
    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: True)
    assert "--precision: fp32 instead of bf16" in error_of(ltrain(*options, "--precision", "bf16"), 2)
    result = ltrain(*options)
    assert result.exit_code == 0, result.output
    assert "computes in fp32" in result.stderr


def test_micro_batches_are_kept_with_the_run_and_may_change_with_the_hardware(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    run = tmp_path / "run"
    options = [*train_options, "--accumulate", 2, "--no-sync-batchnorm", "--epochs", 1, "--out", run]
    result = ltrain(*options)
    assert result.exit_code == 0, result.output
    assert "batches of 8 in 2 micro-batches (one after the other), BatchNorm over 4 images" in result.stderr
    assert shares_of(run) == (2, False)
    result = ltrain("--resume", "--out", run, "--epochs", 2, "--accumulate", 4, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "in 4 micro-batches" in result.stderr
    assert shares_of(run) == (4, False)
    assert [row["epoch"] for row in history_rows(run)] == ["1", "2"]


def shares_of(run: Path) -> tuple[int, bool]:
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))["settings"]
    return settings["accumulate"], settings["sync_batchnorm"]


def test_micro_batches_too_small_for_batchnorm_are_refused(
    tmp_path: Path, train_options: list[object], own_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    message = error_of(ltrain(*train_options, "--accumulate", 5, "--out", tmp_path / "run"), 2)
    assert "8 images of a batch in 5 micro-batches" in message
    assert not (tmp_path / "run").exists()
    before = (own_run / "run.json").read_bytes()
    assert "8 micro-batches" in error_of(ltrain("--resume", "--out", own_run, "--accumulate", 8), 2)
    assert (own_run / "run.json").read_bytes() == before


def test_a_machine_names_its_cache_by_environment(
    scratch: Path, train_options: list[object], own_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    place = train_options.index("--cache")
    without = train_options[:place] + train_options[place + 2 :]
    message = error_of(ltrain(*without, "--out", "run", env={"LTRAIN_CACHE": "nowhere"}), 1)
    assert "nowhere" in message
    own = {"LTRAIN_CACHE": str(train_options[place + 1])}
    assert ltrain("--resume", "--out", own_run, "--device", "cpu", env=own).exit_code == 0
    assert ltrain("evaluate", own_run, "--device", "cpu", env=own).exit_code == 0
