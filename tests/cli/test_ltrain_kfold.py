"""``ltrain kfold``: every sample is evaluated once, by a network that has not seen its subject."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.errors import RunError
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import RunFolder

from .runs import assert_same_weights


@pytest.fixture(scope="module")
def kfold_options(caches: Path) -> list[object]:
    return ["--cache", caches, "--size", 48, "--batch-size", 8, "--device", "cpu", "--lr", 0.01, "--epochs", 1]


@pytest.fixture(scope="module")
def kfold_run(tmp_path_factory: pytest.TempPathFactory, kfold_options: list[object], ltrain: Callable) -> Path:
    out = tmp_path_factory.mktemp("runs") / "kfold"
    result = ltrain("kfold", *kfold_options, "--folds", 2, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["kfold"] == str(out)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_sample_is_held_out_once(kfold_run: Path) -> None:
    pooled = rows_of(kfold_run / "predictions.csv")
    all_ids = {row["id"] for row in rows_of(kfold_run / "fold-1" / "split.csv")}
    assert sorted(row["id"] for row in pooled) == sorted(all_ids)
    assert {row["fold"] for row in pooled} == {"fold-1", "fold-2"}


def test_no_subject_is_on_both_sides_and_nothing_validates(kfold_run: Path) -> None:
    for fold in ("fold-1", "fold-2"):
        rows = rows_of(kfold_run / fold / "split.csv")
        assert {row["split"] for row in rows} == {"train", "test"}
        sides = [{row["subject"] for row in rows if row["split"] == part} for part in ("train", "test")]
        assert not sides[0] & sides[1]
        assert not (kfold_run / fold / "valid").exists()


def test_mean_spread_and_pooled_numbers_are_written(kfold_run: Path) -> None:
    results = json.loads((kfold_run / "results.json").read_text(encoding="utf-8"))
    assert results
    summary = (kfold_run / "summary.md").read_text(encoding="utf-8")
    assert "fold-1" in summary
    assert "fold-2" in summary


def test_a_fold_is_a_run_with_that_split(
    kfold_run: Path, kfold_options: list[object], tmp_path: Path, ltrain: Callable
) -> None:
    out = tmp_path / "alone"
    assert ltrain(*kfold_options, "--split", "test-fold:2/2", "--out", out).exit_code == 0
    assert_same_weights(out, kfold_run / "fold-2")


def test_it_goes_on_at_the_fold_that_died(kfold_run: Path, tmp_path: Path, ltrain: Callable) -> None:
    died = Path(shutil.copytree(kfold_run, tmp_path / "died"))
    second = died / "fold-2"
    for path in list(second.iterdir()):
        if path.name not in ("run.json", "split.csv", "augment.toml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (died / "predictions.csv").unlink()
    before = RunFolder(died / "fold-1").checkpoint("final").stat().st_mtime_ns
    result = ltrain("kfold", "--out", died, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert RunFolder(died / "fold-1").checkpoint("final").stat().st_mtime_ns == before
    assert_same_weights(second, kfold_run / "fold-2")
    assert (died / "predictions.csv").read_bytes() == (kfold_run / "predictions.csv").read_bytes()


def test_inner_validation_comes_from_the_training_subjects(
    kfold_options: list[object], tmp_path: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object) -> None:
        raise RunError("all folds are prepared")

    monkeypatch.setattr("leukemia_models.comparing.kfold.train_stages", stop)
    out = tmp_path / "inner"
    assert error_of(ltrain("kfold", *kfold_options, "--folds", 3, "--inner-valid", "--out", out), 1)
    for fold in ("fold-1", "fold-2", "fold-3"):
        rows = rows_of(out / fold / "split.csv")
        parts = ("train", "valid", "test")
        assert {row["split"] for row in rows} == set(parts)
        subjects = {part: {row["subject"] for row in rows if row["split"] == part} for part in parts}
        assert not subjects["valid"] & subjects["train"]
        assert not subjects["valid"] & subjects["test"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folds", "1"], ["1", "official"]),
        (["--folds", "many"], ["many", "loso"]),
        (["--folds", "99"], ["too few"]),
        (["--folds", "2", "--early-stopping", "3"], ["valid", "--inner-valid"]),
        (["--folds", "2", "--schedule", "plateau"], ["valid"]),
        (["--epochs-scale", "2"], ["--plan"]),
    ],
)
def test_a_wrong_request_writes_nothing(
    options: list[str],
    words: list[str],
    scratch: Path,
    kfold_options: list[object],
    ltrain: Callable,
    error_of: Callable,
) -> None:
    message = error_of(ltrain("kfold", *kfold_options, *options), 2)
    assert all(word in message for word in words), message
    assert list(scratch.iterdir()) == []


def test_resume_needs_a_cross_validation(scratch: Path, ltrain: Callable, error_of: Callable) -> None:
    assert "--out" in error_of(ltrain("kfold", "--resume"), 2)
    assert "kfold.json" in error_of(ltrain("kfold", "--out", scratch, "--resume"), 1)
    assert "--folds" in error_of(ltrain("kfold", "--out", scratch, "--resume", "--folds", "3"), 2)
    (scratch / "kfold.json").write_text("{}")
    assert "ltrain kfold --out" in error_of(ltrain("--out", scratch, "--resume"), 2)


def test_an_interrupted_fold_says_how_to_go_on_with_all(
    kfold_run: Path, tmp_path: Path, ltrain: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no --folds was given, as on every --resume."""
    died = Path(shutil.copytree(kfold_run, tmp_path / "died"))
    shutil.rmtree(died / "fold-2" / "test")
    RunFolder(died / "fold-2").checkpoint("last").unlink()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "on_step", interrupt)
    message = error_of(ltrain("kfold", "--resume", "--device", "cpu", "--out", died), 130)
    assert f"`ltrain kfold --out {died} --resume`" in message
