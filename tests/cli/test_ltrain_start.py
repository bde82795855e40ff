"""Runs that start from weights which have seen their validation or test subjects, and seeds of splits."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from leukemia_data.splitting.seen_samples import joined
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import load_checkpoint, load_training_weights, save_checkpoint

PLAN = """
model = "resnet18-narrow"

[defaults]
recipe = "raw"
batch_size = 8
augment = "none"
epochs = 1

[[stage]]
name = "small"
size = 48
start = "{start}"

[[stage]]
name = "large"
size = 64
start = "last:small"
"""


def parts_of(run: Path) -> dict[str, str]:
    with (run / "split.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["split"] for row in csv.DictReader(file)}


def stamp_of(run: Path, part: str = "test") -> str:
    results = json.loads((run / part / "results.json").read_text(encoding="utf-8"))
    return str(results["split"]["stamp"])


@pytest.fixture(scope="module")
def mixed_run(
    tmp_path_factory: pytest.TempPathFactory, train_options: list[object], finished_run: Path, ltrain: Callable
) -> Path:
    """A run on another split that starts from the weights of ``finished_run``, as --allow-leak allows."""
    out = tmp_path_factory.mktemp("start") / "mixed"
    start = ("--start", finished_run / "last.safetensors", "--split-seed", 1)
    result = ltrain(*train_options, *start, "--allow-leak", "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def num_seen(earlier: Path, later: Path) -> int:
    """Validation and test images of a run that another was trained on, and test images that chose its epoch."""
    before, after = parts_of(earlier), parts_of(later)
    forbidden = {("train", "valid"), ("train", "test"), ("valid", "test")}
    return sum((before[name], part) in forbidden for name, part in after.items())


def test_weights_that_have_seen_held_out_subjects_are_refused(
    finished_run: Path,
    mixed_run: Path,
    train_options: list[object],
    tmp_path: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    out = tmp_path / "refused"
    start = ("--start", finished_run / "last.safetensors", "--split-seed", 1, "--out", out)
    message = error_of(ltrain(*train_options, *start), 2)
    number = num_seen(finished_run, mixed_run)
    assert number > 0
    for words in ("PATIENT-MIXED", f"has seen {number} of its", "--split-seed", "--allow-leak"):
        assert words in message
    assert not out.exists()


def test_the_stamp_goes_wherever_the_run_goes(
    finished_run: Path, mixed_run: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    run = Path(shutil.copytree(mixed_run, tmp_path / "mixed"))
    number = num_seen(finished_run, run)
    assert f"{number} held-out images seen by the start weights" in stamp_of(run)
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert config["seen_before"]["images"] == number
    page = (run / "test" / "summary.md").read_text(encoding="utf-8")
    assert "PATIENT-MIXED" in page
    assert "the initial weights have seen" in page
    # Later judgements do not need the file that it started from.
    shutil.rmtree(run / "test")
    result = ltrain("evaluate", run, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert stamp_of(run) == stamp_of(mixed_run)
    assert "patient-mixed" in ltrain("compare", run, finished_run, "--out", tmp_path / "compared").output


def test_what_comes_of_mixed_weights_is_mixed_too(
    mixed_run: Path, train_options: list[object], tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    start = ("--start", mixed_run / "final.safetensors", "--split-seed", 1, "--out", tmp_path / "third")
    assert "PATIENT-MIXED" in error_of(ltrain(*train_options, *start), 2)


def test_the_same_split_is_no_leak_whatever_the_seed_of_the_run(
    finished_run: Path, train_options: list[object], tmp_path: Path, ltrain: Callable
) -> None:
    out = tmp_path / "same"
    options = ("--start", finished_run / "best.safetensors", "--seed", 3, "--epochs", 1, "--out", out)
    result = ltrain(*train_options, *options)
    assert result.exit_code == 0, result.output
    assert parts_of(out) == parts_of(finished_run)
    assert "split seed 0; --split-seed draws others" in result.stderr
    assert stamp_of(out).startswith("subject-disjoint")
    assert "unknown origin" not in result.output
    seen = load_checkpoint(out / "final.safetensors").info.seen
    assert seen == load_checkpoint(finished_run / "final.safetensors").info.seen


def test_weights_of_unknown_origin_are_a_caution(
    finished_run: Path, train_options: list[object], tmp_path: Path, ltrain: Callable
) -> None:
    foreign, out = tmp_path / "foreign.safetensors", tmp_path / "run"
    safetensors.torch.save_file(load_checkpoint(finished_run / "best.safetensors").model_state, foreign)
    result = ltrain(*train_options, "--start", foreign, "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert len([line for line in result.stderr.splitlines() if "unknown origin" in line]) == 1
    assert "unknown origin" in (out / "test" / "summary.md").read_text(encoding="utf-8")
    assert stamp_of(out).startswith("subject-disjoint")
    assert not load_checkpoint(out / "last.safetensors").info.seen.is_complete


def test_a_network_for_other_classes_gives_all_but_its_head(
    train_options: list[object], tmp_path: Path, ltrain: Callable
) -> None:
    out = tmp_path / "run"
    torch.save({"state_dict": build_model("resnet18-narrow", 1000, seed=9).state_dict()}, tmp_path / "imagenet.pth")
    result = ltrain(*train_options, "--start", tmp_path / "imagenet.pth", "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    words = "tensors of another program, in its state_dict; 120 tensors taken; drawn anew: fc.weight, fc.bias"
    assert words in result.stderr
    assert json.loads((out / "run.json").read_text())["start_report"] == words
    assert "drawn anew: fc.weight, fc.bias" in (out / "test" / "summary.md").read_text(encoding="utf-8")
    again = ltrain("train", "--out", out, "--resume", "--epochs", 2, "--device", "cpu")
    assert again.exit_code == 0, again.output


def test_every_fold_is_checked(
    finished_run: Path,
    train_options: list[object],
    tmp_path: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    out = tmp_path / "folds"
    options = ("--folds", 2, "--epochs", 1, "--start", finished_run / "last.safetensors", "--out", out)
    assert "test-fold:1/2 is PATIENT-MIXED" in error_of(ltrain("kfold", *train_options, *options), 2)
    assert not out.exists()


def test_a_plan_that_starts_from_a_file_is_checked(
    finished_run: Path, caches: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(PLAN.format(start=finished_run / "last.safetensors"), encoding="utf-8")
    options = ("--cache", caches, "--plan", plan, "--device", "cpu", "--split-seed", 1, "--out", out)
    assert "PATIENT-MIXED" in error_of(ltrain(*options), 2)
    assert not out.exists()
    result = ltrain(*options, "--allow-leak")
    assert result.exit_code == 0, result.output
    for stage in ("01-small", "02-large"):
        assert "held-out images seen by the start weights" in stamp_of(out / stage)


def test_an_edited_split_is_refused(own_run: Path, ltrain: Callable, error_of: Callable) -> None:
    split = own_run / "split.csv"
    text = split.read_text(encoding="utf-8")
    lines = text.splitlines()
    training = next(line for line in lines if ",train," in line)
    split.write_text(text.replace(training, training.replace(",train,", ",test,")), encoding="utf-8")
    for command in (("evaluate",), ("predict", "--part", "test")):
        message = error_of(ltrain(command[0], own_run, *command[1:], "--device", "cpu"), 1)
        assert "samples of the split" in message
        assert "split.csv" in message
    assert "samples of the split" in error_of(ltrain("--out", own_run, "--resume", "--epochs", 3), 1)
    # What is refused leaves the run's length as it was.
    assert json.loads((own_run / "run.json").read_text(encoding="utf-8"))["settings"]["epochs"] == 2


def test_weights_of_a_run_with_another_start_are_refused(
    own_run: Path, mixed_run: Path, ltrain: Callable, error_of: Callable
) -> None:
    """The same split and network, but the weights have been trained on its test images before."""
    final = own_run / "final.safetensors"
    checkpoint, other = load_checkpoint(final), load_checkpoint(mixed_run / "final.safetensors")
    info = replace(checkpoint.info, seen=joined(other.info.seen, checkpoint.info.seen))
    model = build_model(info.model_name, 2)
    load_training_weights(model, checkpoint)
    save_checkpoint(final, model, info, checkpoint.state, resumable=False)
    shutil.rmtree(own_run / "test")
    for command in (("evaluate",), ("predict", "--part", "test")):
        message = error_of(ltrain(command[0], own_run, *command[1:], "--device", "cpu"), 1)
        assert f"has seen {num_seen(mixed_run, own_run)} validation or test images" in message
    assert not (own_run / "test").exists()


@pytest.mark.parametrize("content", ['{"accuracy": 1}', ""])
def test_results_that_cannot_be_read_are_named_with_what_helps(
    own_run: Path, ltrain: Callable, error_of: Callable, content: str
) -> None:
    path = own_run / "test" / "results.json"
    path.write_text(content, encoding="utf-8")
    message = error_of(ltrain("evaluate", own_run, "--device", "cpu"), 1)
    assert "remove it" in message
    assert "--out" in message
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("name", ["summary.md", "predictions.csv"])
def test_files_of_others_are_not_written_over(
    finished_run: Path, tmp_path: Path, ltrain: Callable, error_of: Callable, name: str
) -> None:
    (tmp_path / name).write_text("my notes", encoding="utf-8")
    message = error_of(ltrain("evaluate", finished_run, "--out", tmp_path, "--device", "cpu"), 1)
    assert name in message
    assert "--out" in message
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "my notes"


@pytest.mark.parametrize(
    "name", ["split.csv", "history.csv", "run.json", "best.safetensors", "test/predictions.csv", "test/results.json"]
)
@pytest.mark.parametrize("option", ["--out", "--submission"])
def test_predictions_are_not_written_over_files_of_a_run(
    own_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable, name: str, option: str
) -> None:
    before = files_below(own_run)
    message = error_of(ltrain("predict", own_run, "--part", "valid", option, own_run / name, "--device", "cpu"), 2)
    assert "choose another name" in message
    assert files_below(own_run) == before


@pytest.mark.parametrize("name", [".", "test"])
def test_a_comparison_is_not_written_over_figures_of_a_run(
    own_run: Path, finished_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable, name: str
) -> None:
    before = files_below(own_run)
    assert "--out" in error_of(ltrain("compare", own_run, finished_run, "--out", own_run / name), 2)
    assert files_below(own_run) == before


@pytest.mark.parametrize("part", ["train", "all"])
def test_training_images_are_never_stamped_disjoint(own_run: Path, ltrain: Callable, part: str) -> None:
    num_trained = list(parts_of(own_run).values()).count("train")
    for _ in range(2):
        result = ltrain("evaluate", own_run, "--part", part, "--device", "cpu")
        assert result.exit_code == 0, result.output
    for stamp in (stamp_of(own_run, part), (own_run / part / "summary.md").read_text(encoding="utf-8")):
        assert f"TRAINING IMAGES ({num_trained} of the evaluated ones" in stamp
    assert ltrain("predict", own_run, "--part", part, "--device", "cpu").exit_code == 0
    for path in (own_run / "predictions.csv", own_run / part / "predictions.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            assert {row["stamp"] for row in csv.DictReader(file)} == {stamp_of(own_run, part)}
    # Results of a version that stamped them as the split are of the same meaning.
    results = own_run / part / "results.json"
    content = json.loads(results.read_text(encoding="utf-8"))
    content["split"]["stamp"] = stamp_of(own_run)
    results.write_text(json.dumps(content), encoding="utf-8")
    assert ltrain("evaluate", own_run, "--part", part, "--device", "cpu").exit_code == 0


def test_results_of_other_weights_are_not_written_over(
    own_run: Path, mixed_run: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    assert ltrain("evaluate", own_run, "--checkpoint", "last", "--device", "cpu").exit_code == 0
    assert ltrain("evaluate", own_run, "--checkpoint", "last", "--device", "cpu", "--batch-size", 3).exit_code == 0
    assert ltrain("--out", own_run, "--resume", "--epochs", 3, "--device", "cpu").exit_code == 0
    before = files_below(own_run)
    message = error_of(ltrain("evaluate", own_run, "--checkpoint", "last", "--device", "cpu"), 1)
    assert "weights of epoch 2" in message
    assert "remove" in message
    assert files_below(own_run) == before


def test_a_run_of_an_earlier_version_learns_what_its_weights_have_seen(own_run: Path, ltrain: Callable) -> None:
    last, split = own_run / "last.safetensors", own_run / "split.csv"
    checkpoint = load_checkpoint(last)
    model = build_model(checkpoint.info.model_name, 2)
    load_training_weights(model, checkpoint)
    details = {name: value for name, value in checkpoint.info.details.items() if name != "split_digest"}
    save_checkpoint(last, model, replace(checkpoint.info, seen=None, details=details), checkpoint.state)
    rows = [line.rsplit(",", 1)[0] for line in split.read_text(encoding="utf-8").splitlines()]
    split.write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    del config["seen_before"]
    (own_run / "run.json").write_text(json.dumps({**config, "format_version": 4}), encoding="utf-8")
    result = ltrain("--out", own_run, "--resume", "--epochs", 3, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(own_run / "final.safetensors").info.seen == checkpoint.info.seen


def test_both_seeds_name_the_folder_and_are_written_down(
    train_options: list[object], scratch: Path, ltrain: Callable
) -> None:
    result = ltrain(*train_options, "--seed", 3, "--split-seed", 1, "--epochs", 1)
    assert result.exit_code == 0, result.output
    [run] = (scratch / "runs").iterdir()
    assert run.name == "resnet18-narrow-64px-subject-seed3-split1"
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (config["settings"]["seed"], config["split_seed"]) == (3, 1)
    folds = ("--folds", 2, "--epochs", 1, "--seed", 3, "--split-seed", 1)
    assert ltrain("kfold", *train_options, *folds).exit_code == 0
    [kfold] = (scratch / "runs").glob("*kfold*")
    assert kfold.name == "resnet18-narrow-64px-kfold-2-seed3-split1"
    written = json.loads((kfold / "kfold.json").read_text(encoding="utf-8"))
    assert (written["seed"], written["split_seed"]) == (3, 1)


def test_an_outside_set_is_looked_up_among_all_that_the_weights_have_seen(
    finished_run: Path, mixed_run: Path, cells: Path, tmp_path: Path, ltrain: Callable
) -> None:
    """The test images of the run itself, which the run before it was trained on."""
    folder, before = tmp_path / "outside", parts_of(finished_run)
    tested = [name for name, part in parts_of(mixed_run).items() if part == "test"]
    for name in tested:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cells / name, folder / name)
    out = tmp_path / "out"
    result = ltrain("evaluate", mixed_run, folder, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    leaks = json.loads((out / "results.json").read_text(encoding="utf-8"))["split"]["leaks"]
    assert leaks["shared_images"] == 0
    assert leaks["start_images"] == sum(before[name] in ("train", "valid") for name in tested) > 0
