"""``ltrain`` with options alone."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.history import EPOCH_FIELDS

from .runs import assert_same_run, assert_same_weights, history_rows


def test_run_leaves_its_files(finished_run: Path) -> None:
    names = {path.relative_to(finished_run).as_posix() for path in finished_run.rglob("*") if path.is_file()}
    parts = {
        f"{part}/{name}"
        for part in ("valid", "test")
        for name in (
            *("results.json", "summary.md", "predictions.csv", "subjects.csv"),
            *(
                f"{figure}.{kind}"
                for figure in ("confusion", "roc", "reliability", "subjects")
                for kind in ("png", "pdf")
            ),
        )
    }
    assert names == parts | {
        "run.json",
        "split.csv",
        "augment.toml",
        ".lock",
        "last.safetensors",
        "best.safetensors",
        "final.safetensors",
        "history.csv",
        "history.png",
        "history.pdf",
    }


def test_history_has_a_row_per_epoch(finished_run: Path) -> None:
    rows = history_rows(finished_run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [*EPOCH_FIELDS, "split"]
    assert all(float(row["train_loss"]) > 0 and 0 <= float(row["valid_accuracy"]) <= 1 for row in rows)
    assert {row["split"] for row in rows} == {"subject-disjoint (subjects from C-NMC file names)"}


def test_results_hold_metrics_intervals_and_settings(finished_run: Path) -> None:
    results = json.loads((finished_run / "test" / "results.json").read_text(encoding="utf-8"))
    assert results["split"]["kind"] == "subject"
    assert results["split"]["stamp"] == "subject-disjoint (subjects from C-NMC file names)"
    subjects = {name: part["subjects_per_class"] for name, part in results["split"]["parts"].items()}
    images = {name: part["images_per_class"] for name, part in results["split"]["parts"].items()}
    assert [sum(subjects[part][label] for part in subjects) for label in (0, 1)] == [3, 5]
    assert [sum(images[part][label] for part in images) for label in (0, 1)] == [12, 20]
    metrics = results["metrics"]
    assert metrics["num_samples"] == sum(images["test"])
    assert len(metrics["recall_per_class"]) == 2
    for name in ("balanced_accuracy", "weighted_f1", "macro_f1", "auroc"):
        assert 0 <= metrics[name] <= 1
    assert [sum(row) for row in metrics["confusion"]] == images["test"]


def test_split_is_saved_with_the_run(finished_run: Path) -> None:
    with (finished_run / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    parts: dict[str, set[str]] = {}
    for row in rows:
        parts.setdefault(row["subject"], set()).add(row["split"])
    assert len(parts) == 8
    assert all(len(names) == 1 for names in parts.values())


def test_figures_decode(finished_run: Path) -> None:
    for name in ("history.png", "valid/confusion.png", "test/confusion.png"):
        assert cv2.imread(str(finished_run / name)) is not None


def test_patient_mixed_is_stamped_on_everything_with_numbers(
    tmp_path: Path, train_options: list[object], ltrain: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    savefig = Figure.savefig

    def save(figure: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(" ".join(text.get_text() for text in figure.findobj(Text)))
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    run = tmp_path / "mixed"
    result = ltrain(*train_options, "--split", "image", "--allow-leak", "--epochs", 1, "--out", run)
    assert result.exit_code == 0, result.output
    assert "PATIENT-MIXED" in result.stderr
    assert result.stdout.count("PATIENT-MIXED") >= 2
    # The curves and four figures for each evaluated part, all as PNG and PDF.
    assert len(drawn) == 18
    assert all("PATIENT-MIXED" in texts for texts in drawn)
    assert all(row["split"].startswith("PATIENT-MIXED") for row in history_rows(run))
    for part in ("valid", "test"):
        results = json.loads((run / part / "results.json").read_text(encoding="utf-8"))
        assert results["split"]["stamp"].startswith("PATIENT-MIXED")
        assert any("same patients" in caution for caution in results["cautions"])
        # Once a heading, so that no table can be cut out without it.
        assert (run / part / "summary.md").read_text(encoding="utf-8").count("PATIENT-MIXED") >= 3


def test_json_is_pure(tmp_path: Path, train_options: list[object], ltrain: Callable, json_of: Callable) -> None:
    result = ltrain(*train_options, "--epochs", 1, "--out", tmp_path / "run", "--json")
    told = json_of(result)
    assert told["run"] == str(tmp_path / "run")
    assert told["results"].keys() == {"valid", "test"}
    assert "epoch   1/1" in result.stderr


def test_default_folder_names_the_run_and_is_never_taken_twice(
    scratch: Path, train_options: list[object], ltrain: Callable
) -> None:
    for _ in range(2):
        assert ltrain(*train_options, "--epochs", 1, "--split", "fold:1/3").exit_code == 0
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == [f"resnet18-narrow-64px-fold1of3-seed0{end}" for end in ("", "-2")]


# --- stream and augmentation ------------------------------------------------------------------------------------------


def test_run_keeps_its_augmentation_as_a_file_that_can_be_used_again(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    result = ltrain(*train_options, "--epochs", 1, "--augment", "report-b", "--out", first)
    assert result.exit_code == 0, result.output
    assert load_augmentation(str(first / "augment.toml")) == load_augmentation("report-b")
    again = ltrain(*train_options, "--epochs", 1, "--augment", first / "augment.toml", "--out", second)
    assert again.exit_code == 0, again.output
    assert_same_weights(first, second)
    assert load_config(RunFolder(second)).augmentation == load_config(RunFolder(first)).augmentation


def test_report_a_warns_of_its_contrast(tmp_path: Path, train_options: list[object], ltrain: Callable) -> None:
    result = ltrain(*train_options, "--epochs", 1, "--augment", "report-a", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "warning: augmentation 'report-a': contrast = [0, 2.2]" in result.stderr


def test_threads_and_residency_change_nothing_and_are_noted(
    tmp_path: Path, train_options: list[object], finished_run: Path, ltrain: Callable
) -> None:
    run = tmp_path / "run"
    result = ltrain(*train_options, "--epochs", 2, "--residency", "ram", "--num-threads", 1, "--out", run)
    assert result.exit_code == 0, result.output
    assert "in this process's memory" in result.stderr
    assert_same_run(run, finished_run)


@pytest.mark.parametrize("sampling", ["class-balanced", "subject-balanced"])
def test_balanced_sampling_trains_on_other_batches(
    sampling: str, tmp_path: Path, train_options: list[object], finished_run: Path, ltrain: Callable
) -> None:
    run = tmp_path / "run"
    result = ltrain(*train_options, "--epochs", 1, "--sampling", sampling, "--out", run)
    assert result.exit_code == 0, result.output
    assert f"sampling {sampling}" in result.stderr
    assert history_rows(run)[0]["train_loss"] != history_rows(finished_run)[0]["train_loss"]


def test_every_epoch_says_what_it_waited(tmp_path: Path, train_options: list[object], ltrain: Callable) -> None:
    result = ltrain(*train_options, "--epochs", 2, "--out", tmp_path / "run")
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert all(re.search(r"waiting \d+\.\d\d %", line) for line in lines)
    assert all(0 <= float(row["data_wait_share"]) < 1 for row in history_rows(tmp_path / "run"))


# --- wrong requests -------------------------------------------------------------------------------------------------


def test_existing_out_is_refused_and_untouched(
    own_run: Path, train_options: list[object], ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    before = files_below(own_run)
    message = error_of(ltrain(*train_options, "--epochs", 1, "--out", own_run), 2)
    assert "--resume" in message
    assert files_below(own_run) == before


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["--size", 64, "--device", "nope"], 2, ["--device", "cpu"]),
        (["--size", 64, "--device", "meta"], 2, ["--device", "cpu"]),
        (["--size", 64, "--split", "half"], 2, ["half", "fold:K/N"]),
        (["--size", 64, "--split", "fold:1/9"], 2, ["fold:1/9"]),
        (["--size", 64, "--split", "given"], 2, ["given"]),
        (["--size", 64, "--split", "all"], 2, ["all"]),
        (["--size", 64, "--split", "image"], 2, ["PATIENT-MIXED", "--allow-leak"]),
        (["--size", 64, "--recipe", "report-a"], 1, ["report-a", "ldata build"]),
        (["--size", 64, "--optimizer", "adamw", "--momentum", 0.9], 2, ["momentum"]),
        (["--size", 64, "--optimizer", "ranger21", "--warmup-epochs", 1], 2, ["--warmup-epochs", "--schedule"]),
        (["--size", 64, "--tta-average", "probabilities"], 2, ["--tta-average", "--tta d4"]),
        (["--size", 64, "--start", "best:small"], 2, ["--start best:small", "plan"]),
        (["--size", 64, "--start", "gone.safetensors"], 2, ["gone.safetensors"]),
        (["--size", 64, "--normalize", "0.00267,0.00157,0.00272,0.00314,0.00196,0.00305"], 2, ["--force-normalize"]),
        (["--size", 64, "--normalize", "imagenet"], 2, ["does not fit the training images", "--force-normalize"]),
        (["--size", 64, "--normalize", "imagnet"], 2, ["imagnet", "imagenet"]),
        (["--size", 64, "--lr", 0], 2, ["lr"]),
        (["--size", 64, "--lr", "nan"], 2, ["lr"]),
        (["--size", 64, "--momentum", 1], 2, ["momentum"]),
        (["--size", 64, "--epochs", 0], 2, ["--epochs"]),
        (["--size", 64, "--batch-size", 1], 2, ["--batch-size"]),
        (["--size", 64, "--seed", -1], 2, ["--seed"]),
        (["--size", 64, "--model", "vgg"], 2, ["--model", "resnet18"]),
        (["--size", 64, "--augment", "report-c"], 2, ["report-c", "flips", "report-a"]),
        (["--size", 64, "--augment", "gone.toml"], 2, ["gone.toml"]),
        (["--size", 64, "--sampling", "fair"], 2, ["--sampling", "class-balanced"]),
        (["--size", 64, "--save-minutes", -1], 2, ["--save-minutes"]),
        (["--size", 64, "--num-threads", 0], 2, ["--num-threads"]),
        (["--size", 64, "--residency", "device", "--device", "cpu"], 2, ["residency 'device'"]),
        (["--size", 65], 1, ["65 px"]),
        ([], 2, ["several caches"]),
        (["--cache", "nowhere"], 1, ["nowhere"]),
        (["--cache", "nowhere", "evaluate", "run"], 2, ["--cache", "evaluate"]),
    ],
)
def test_wrong_request_leaves_no_run(
    options: list[object],
    exit_code: int,
    words: list[str],
    scratch: Path,
    caches: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    given = [] if "--cache" in options else ["--cache", caches]
    message = error_of(ltrain(*given, *options), exit_code)
    assert all(word in message for word in words), message
    assert list(scratch.iterdir()) == []


def test_without_validation_an_epoch_line_says_nothing_of_it(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    options = ("--split", "test-fold:1/2", "--epochs", 1, "--out", tmp_path / "run")
    result = ltrain(*train_options, *options)
    [line] = [line for line in result.stderr.splitlines() if line.startswith("epoch   1/1")]
    assert "train loss" in line
    assert "images/s" in line
    assert "valid" not in line
    assert "best" not in line


def test_amp_is_taken_for_what_it_was(tmp_path: Path, caches: Path, ltrain: Callable, error_of: Callable) -> None:
    options = ("--cache", caches, "--size", 64, "--model", "resnet18-narrow", "--device", "cpu", "--amp")
    message = error_of(ltrain(*options, "--precision", "bf16", "--out", tmp_path / "run"), 2)
    assert "--amp is an earlier name of --precision" in message
    result = ltrain(*options, "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "amp is deprecated" in result.stderr
    assert "computes in fp32, channels_last" in result.stderr
    assert load_config(RunFolder(tmp_path / "run")).settings.precision == "fp32"


def test_a_named_schedule_takes_the_place_of_rangers_own(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    """Its own would end at 3e-5."""
    options = ("--optimizer", "ranger21", "--epochs", 1, "--schedule", "constant", "--out", tmp_path / "run")
    assert ltrain(*train_options, *options).exit_code == 0
    assert [float(row["lr"]) for row in history_rows(tmp_path / "run")] == [0.01]
    assert load_config(RunFolder(tmp_path / "run")).settings.optimizer.inner_schedule is False


def test_one_class_is_refused(
    tmp_path: Path, write_image: Callable, rng: Any, ldata: Callable, ltrain: Callable, error_of: Callable
) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "in" / name / "1.png", rng.integers(0, 255, (20, 20, 3), dtype="uint8"))
    built = ldata(
        *("build", tmp_path / "in", "--size", 32, "--recipe", "raw", "--classes", "a", "--cache", tmp_path / "cache")
    )
    assert built.exit_code == 0, built.output
    message = error_of(ltrain("--cache", tmp_path / "cache", "--out", tmp_path / "run"), 2)
    assert "has one class (a): there is nothing to tell apart" in message
    assert not (tmp_path / "run").exists()


# --- progressive sizes ------------------------------------------------------------------------------------------------


def test_run_grows_its_images_and_goes_on_at_the_last_size(
    tmp_path: Path, train_options: list[object], ltrain: Callable
) -> None:
    run = tmp_path / "sized"
    result = ltrain(*train_options, "--sizes", "32:1,48:1,64:1", "--out", run)
    assert result.exit_code == 0, result.output
    assert "(64 px), reduced to 32 px for 1 epoch, 48 px for 1, 64 px for 1\n" in result.stderr
    assert [f"epoch   {n}/3, {px} px" in result.stderr for n, px in ((1, 32), (2, 48), (3, 64))] == [True] * 3
    assert [row["size_px"] for row in history_rows(run)] == ["32", "48", "64"]
    longer = ltrain("--out", run, "--resume", "--epochs", 4, "--device", "cpu")
    assert longer.exit_code == 0, longer.output
    assert load_config(RunFolder(run)).settings.sizes == ((32, 1), (48, 1), (64, 2))
    assert [row["size_px"] for row in history_rows(run)] == ["32", "48", "64", "64"]
    # The network of the best epoch is evaluated at the cache's size.
    assert re.search(r"epoch [34], ", longer.stdout)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [("32:1,80:1", "no cache of 80 px"), ("32", "write SIDE:EPOCHS"), ("64:1,32:1", "must ascend")],
)
def test_sizes_that_cannot_be_are_refused(
    sizes: str, words: str, caches: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    result = ltrain("--cache", caches, "--sizes", sizes, "--out", tmp_path / "run")
    message = error_of(result, 1 if "cache" in words else 2)
    assert words in message
    if "cache" in words:
        assert "the last of the sizes (32:1,80:1) is the size of the cache" in message
