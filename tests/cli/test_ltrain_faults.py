"""What stops a training: one line that says what is left and how to go on, and nothing that was saved is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cli.ltrain
from leukemia_data.files import atomic
from leukemia_data.files.atomic import PARTIAL_SUFFIX
from leukemia_models.devices import precision
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import load_checkpoint, save_checkpoint
from leukemia_models.training.learner import Learner
from leukemia_models.training.losses import first_non_finite

from ..torture.forked import Ending, Forked
from .runs import assert_same_run

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch loaded")
TMPFS_BYTES = 24_000_000


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"*{PARTIAL_SUFFIX}"))


def test_a_loss_that_runs_away_stops_with_the_step_and_leaves_finite_weights(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    options = (*train_options, "--lr", 0.01, "--save-minutes", 0, "--epochs", 2, "--out", out)
    gradient, steps = Learner.gradient, iter(range(1, 99))

    def overflow(learner: Learner, *given: object) -> object:
        sums = gradient(learner, *given)
        return sums._replace(loss_sum=float("nan")) if next(steps) == 3 else sums

    monkeypatch.setattr(Learner, "gradient", overflow)
    message = error_of(ltrain(*options), 1)
    last = RunFolder(out).checkpoint("last")
    for words in (
        "loss became nan in epoch 2, step 1",
        str(last),
        "--resume",
        "--start",
        "such as 0.001",
        "--clip-norm",
    ):
        assert words in message
    assert "--normalize" not in message
    assert first_non_finite(load_checkpoint(last).training_weights) is None


def test_a_loss_that_runs_away_at_once_has_nothing_to_go_on_from(
    tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable
) -> None:
    given = ("--normalize", "0.1,0.1,0.1,0.001,0.001,0.001", "--force-normalize")
    options = (*train_options, *given, "--lr", 1e30, "--save-minutes", 0, "--out", tmp_path / "run")
    message = error_of(ltrain(*options), 1)
    assert "in epoch 1, step" in message or "by epoch 1, step" in message
    assert "check --normalize" in message
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("when", ["training", "judging"])
def test_memory_that_runs_out_says_what_to_change(
    when: str,
    tmp_path: Path,
    own_run: Path,
    train_options: list[object],
    ltrain: Callable,
    error_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8")

    if when == "training":
        monkeypatch.setattr(Learner, "gradient", run_out)
        monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: True)
        message = error_of(ltrain(*train_options, "--epochs", 1, "--out", tmp_path / "run"), 1)
        expected = ["batches of 8 images of 64 px", "2.00 GiB", "--batch-size 4", "--residency mapped", "--size"]
        expected += ["--precision bf16"]
    else:
        monkeypatch.setattr("leukemia_models.runs.evaluate_part.predict_probabilities", run_out)
        message = error_of(ltrain("evaluate", own_run, "--device", "cpu"), 1)
        expected = ["memory ran out on cpu", "fewer at a time (`--batch-size`)"]
    assert all(words in message for words in expected), message


def on_small_files(action: Callable[[], object], max_bytes: int, log: Path) -> Ending:
    """Do something in a process that may write no larger file: a full disk that needs no other rights."""
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
        torch.set_num_threads(1)
        action()

    return Forked(limited, log).ending(None, at_most_s=60)


@LINUX_ONLY
@pytest.mark.parametrize(("max_bytes", "file"), [(4_000_000, "last.safetensors"), (1_000_000, "best.safetensors")])
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(
    max_bytes: int, file: str, own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on, in a process that may not write files as large as it needs; its third epoch is the best."""
    before = (own_run / file).read_bytes()
    arguments = ["--out", str(own_run), "--resume", "--epochs", "3", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr("leukemia_models.training.history.TrainHistory.best", property(lambda self: self.records[-1]))
        ending = on_small_files(lambda: cli.ltrain.main(arguments, prog_name="ltrain"), max_bytes, tmp_path / "log")
    assert ending.exit_code == 1, ending.output
    assert not ending.has_traceback
    (line,) = [line for line in ending.output.splitlines() if line.startswith("Error: ")]
    for words in (file, "File too large; it needs", "free", "still whole", f"`ltrain --out {own_run} --resume`"):
        assert words in line, line
    assert not leftovers(own_run)
    assert (own_run / file).read_bytes() == before


@pytest.mark.parametrize("file", ["history.csv", "test/roc.png", "test/predictions.csv", "valid/results.json"])
def test_any_other_file_that_finds_no_room_is_named(
    file: str, own_run: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run writes them again."""
    before = (own_run / file).read_bytes()

    def fill(path: Path) -> None:
        if path.name.startswith(Path(file).name) and path.parent == (own_run / file).parent:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(atomic, "sync_file", fill)
    message = error_of(ltrain("--out", own_run, "--resume", "--device", "cpu"), 1)
    assert message.startswith(f"{own_run / file} could not be written: No space left on device (")
    assert f"`ltrain --out {own_run} --resume`" in message
    assert not leftovers(own_run)
    assert (own_run / file).read_bytes() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if sys.platform != "linux" or mount is None or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small file system")
    options = ["-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(place)]
    if subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_is_said_before_training_and_while_it_fills(
    small_disk: Path,
    tmp_path: Path,
    finished_run: Path,
    train_options: list[object],
    ltrain: Callable,
    error_of: Callable,
) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    options = (*train_options, "--epochs", 2, "--out", run)
    ballast.write_bytes(b"x" * 14_000_000)
    message = error_of(ltrain(*options), 1)
    assert "need" in message
    assert "free" in message
    assert not RunFolder(run).is_begun
    ballast.unlink()

    def fill(recorder: Recorder, epoch: int, *given: object) -> None:
        if epoch == 2:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"x" * 100_000):
                    pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_step", fill)
        message = error_of(ltrain("--out", run, "--resume", "--device", "cpu"), 1)
    assert "No space left on device" in message
    assert "--resume" in message
    assert load_checkpoint(RunFolder(run).checkpoint("last")).state.epochs_done == 1
    assert not leftovers(run)
    ballast.unlink()
    result = ltrain("--out", run, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert_same_run(run, finished_run)


def test_a_later_run_without_room_is_a_warning(
    tmp_path: Path, caches: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four checkpoints' room of the first fold: 5.6 MB to resume from, twice, and 2.8 MB to evaluate, twice."""

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "on_step", stop)
    monkeypatch.setattr("leukemia_models.runs.training_faults.free_disk_bytes", lambda path: 25_000_000)
    options = ("--cache", caches, "--size", 48, "--model", "resnet18-narrow", "--epochs", 1, "--device", "cpu")
    result = ltrain("kfold", *options, "--folds", 2, "--out", tmp_path / "folds")
    assert "interrupted" in error_of(result, 130)
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: with those of the runs")]
    assert "fold-2" in warning


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_another_fault_of_the_disk_is_one_line_too(
    number: int, own_run: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    message = error_of(ltrain("--out", own_run, "--resume", "--epochs", 3, "--device", "cpu"), 1)
    assert os.strerror(number) in message
    assert "--resume" in message


def disguised(run: Path, which: str, **changes: object) -> Path:
    """Let a run's checkpoint say that it is of something else."""
    path = RunFolder(run).checkpoint(which)
    found = load_checkpoint(path)
    model = found.build_model()
    save_checkpoint(path, model, replace(found.info, **changes), found.state, resumable=which == "last")
    return path


def test_going_on_from_another_runs_checkpoint_lists_all_differences(
    own_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    found = load_checkpoint(RunFolder(own_run).checkpoint("last")).info
    settings = replace(found.settings, clip_norm=2.0, seed=9)
    disguised(own_run, "last", size_px=48, classes=("all", "hem"), settings=settings)
    before = files_below(own_run)
    message = error_of(ltrain("--out", own_run, "--resume", "--device", "cpu"), 1)
    for words in ("--size: 48 instead of 64", "classes: all, hem instead of hem, all", "--clip-norm: 2", "--seed: 9"):
        assert words in message
    assert files_below(own_run) == before


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_evaluating_with_another_runs_checkpoint_lists_all_differences(
    command: str, own_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    disguised(own_run, "final", split_kind="image", recipe={"name": "report-a"})
    message = error_of(ltrain(command, own_run, "--part", "test", "--device", "cpu"), 1)
    assert "--recipe: report-a instead of raw; --split: image instead of subject" in message


def test_a_start_of_another_network_is_refused_before_anything_is_written(
    own_run: Path, tmp_path: Path, train_options: list[object], ltrain: Callable, error_of: Callable
) -> None:
    start = disguised(own_run, "best", classes=("all", "hem"))
    out = tmp_path / "next"
    message = error_of(ltrain(*train_options, "--model", "resnet34", "--start", start, "--out", out), 1)
    assert "--model: resnet18-narrow instead of resnet34" in message
    assert not out.exists()
