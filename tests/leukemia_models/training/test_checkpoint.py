from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from leukemia_data.errors import RunError
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    NotSavedError,
    load_checkpoint,
    load_training_weights,
    load_weights,
    save_checkpoint,
)
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.start_file import load_start
from leukemia_models.training.train import Observer, fit

from ..fakes import CPU, NORMALIZATION, copied_state, fake_source, flipped_by_epoch_and_sample, same_state, tiny_network

INFO = CheckpointInfo(
    model_name="resnet18-narrow",
    classes=("hem", "all"),
    size_px=32,
    normalization=NORMALIZATION,
    recipe={"name": "report-a", "steps": [{"op": "crop", "side_px": 270}]},
    data_fingerprint="0123abcd",
    split_kind="subject",
    settings=TrainSettings(
        epochs=2, optimizer=OptimizerSettings(lr=0.01), schedule=ScheduleSettings(name="step", step_factor=0.2)
    ),
    details={"split_seed": 7, "note": "é"},
)
AVERAGED = replace(INFO.settings, ema_decay=0.6)


class Saver(Observer):
    def __init__(self, path: Path, model: nn.Module, *, resumable: bool = True) -> None:
        self.path, self.model, self.resumable = path, model, resumable

    def wants_state(self, epoch: int, step: int) -> bool:
        return epoch == 2

    def on_state(self, state: TrainState) -> None:
        path = self.path.with_stem(f"step{state.progress.steps_done}")
        save_checkpoint(path, self.model, INFO, state, resumable=self.resumable)

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        path = self.path.with_stem(f"{self.path.stem}{record.epoch}")
        save_checkpoint(path, self.model, INFO, state, resumable=self.resumable)


def train(
    model: nn.Module,
    observer: Observer | None = None,
    start: TrainState | None = None,
    settings: TrainSettings = INFO.settings,
) -> TrainHistory:
    return fit(
        model,
        fake_source(6, 6),
        fake_source(5),
        settings,
        NORMALIZATION,
        flipped_by_epoch_and_sample,
        CPU,
        observer,
        start,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run's two epochs, and the final weights beside them."""
    directory = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    model = build_model("resnet18-narrow", 2, seed=1)
    train(model, Saver(directory / "epoch.safetensors", model))
    safetensors.torch.save_model(model, directory / "final.safetensors")
    return directory


@pytest.fixture
def checkpoint_path(run_dir: Path) -> Path:
    return run_dir / "epoch1.safetensors"


def test_everything_comes_back(checkpoint_path: Path) -> None:
    found = load_checkpoint(checkpoint_path)
    assert found.info == INFO
    assert found.state.epochs_done == 1
    assert found.state.history.records[0].epoch == 1
    assert found.state.optimizer_state is not None


def test_run_resumed_from_disk_ends_bit_by_bit_the_same(checkpoint_path: Path, run_dir: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    model = checkpoint.build_model()
    train(model, start=checkpoint.state)
    final = safetensors.torch.load_file(run_dir / "final.safetensors")
    assert same_state(copied_state(model), final)


@pytest.mark.parametrize("step", [1, 2])
def test_run_resumed_from_disk_inside_an_epoch_ends_bit_by_bit_the_same(run_dir: Path, step: int) -> None:
    checkpoint = load_checkpoint(run_dir / f"step{step}.safetensors")
    assert (checkpoint.state.epochs_done, checkpoint.state.progress.steps_done) == (1, step)
    model = checkpoint.build_model()
    resumed = train(model, start=checkpoint.state)
    assert same_state(copied_state(model), safetensors.torch.load_file(run_dir / "final.safetensors"))
    whole = load_checkpoint(run_dir / "epoch2.safetensors").state.history
    assert [record.train_loss for record in resumed.records] == [record.train_loss for record in whole.records]


def test_position_comes_back_exactly(tmp_path: Path) -> None:
    progress = EpochProgress(
        steps_done=3, lr=0.1, loss_sum=1 / 3, num_correct=17, num_samples=2**40, wait_s=1e-9, train_s=0.7
    )
    path = tmp_path / "c.safetensors"
    state = TrainState(TrainHistory(), {}, progress=progress)
    save_checkpoint(path, nn.Linear(1, 1), INFO, state)
    assert load_checkpoint(path).state.progress == progress
    save_checkpoint(path, nn.Linear(1, 1), INFO, state, resumable=False)
    assert load_checkpoint(path).state.progress is None


def as_first_written(content: dict[str, Any]) -> None:
    """Turn a description of today into one of versions 1 and 2: one optimizer, with the schedule among its settings."""
    settings = content["info"]["settings"]
    schedule = settings.pop("schedule")
    settings["optimizer"] = {
        **{name: settings["optimizer"][name] for name in ("lr", "momentum", "weight_decay")},
        "schedule": schedule["name"],
        **{name: schedule[name] for name in ("warmup_epochs", "step_fractions", "step_factor")},
    }
    known = ("epochs", "optimizer", "num_classes", "seed", "channels_last")
    content["info"]["settings"] = {"amp": False, **{name: settings[name] for name in known}}
    del content["optimizer_counters"], content["average_updates"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_checkpoints_of_earlier_versions_are_read_and_trained_on(run_dir: Path, tmp_path: Path, version: str) -> None:
    path = run_dir / ("epoch1.safetensors" if version == "1" else "step1.safetensors")
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["content"])
    as_first_written(content)
    if version == "1":
        del content["progress"]
        for record in content["history"]:
            del record["data_wait_share"]
    else:
        del content["progress"]["weight_sum"]
    old = rewrite(path, tmp_path / "old.safetensors", format_version=version, content=json.dumps(content))
    found, new = load_checkpoint(old), load_checkpoint(path)
    assert found.state.progress == new.state.progress
    assert found.state.epochs_done == 1
    assert found.info == replace(INFO, settings=replace(INFO.settings.decided(CPU), fused=False, sync_batchnorm=True))
    model = found.build_model()
    train(model, start=found.state)
    assert same_state(copied_state(model), safetensors.torch.load_file(run_dir / "final.safetensors"))


@pytest.fixture(scope="module")
def averaged_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run that averages its weights, and some of the same run for evaluation only."""
    directory = tmp_path_factory.mktemp("averaged")
    for name, resumable in (("judging", False), ("run", True)):
        model = tiny_network(seed=1)
        train(model, Saver(directory / f"{name}.safetensors", model, resumable=resumable), settings=AVERAGED)
    return directory


def test_run_with_an_average_resumes_from_its_own_weights_and_is_evaluated_by_the_average(averaged_dir: Path) -> None:
    step, last, best = (load_checkpoint(averaged_dir / f"{name}.safetensors") for name in ("step1", "run2", "judging2"))
    assert not torch.equal(last.training_weights["6.weight"], last.model_state["6.weight"])
    assert (best.state.average, last.state.average.num_updates) == (None, 4)
    assert same_state(dict(best.training_weights), last.model_state)

    model = tiny_network()
    load_training_weights(model, step)
    again = train(model, start=step.state, settings=AVERAGED)
    assert same_state(copied_state(model), dict(last.training_weights))
    losses = ([record.valid_loss for record in history.records] for history in (again, last.state.history))
    assert next(losses) == next(losses)


@pytest.mark.parametrize("name", ["judging2", "run2"])
def test_stage_starts_from_the_weights_that_were_evaluated(averaged_dir: Path, name: str) -> None:
    expected = load_checkpoint(averaged_dir / "judging2.safetensors").model_state
    by_path, by_checkpoint = tiny_network(), tiny_network()
    load_start(by_path, averaged_dir / f"{name}.safetensors")
    load_weights(by_checkpoint, load_checkpoint(averaged_dir / f"{name}.safetensors"))
    assert same_state(copied_state(by_path), expected)
    assert same_state(copied_state(by_checkpoint), expected)


def test_ranger21_resumes_from_disk_bit_by_bit(tmp_path: Path) -> None:
    settings = TrainSettings(
        epochs=4,
        optimizer=OptimizerSettings(name="ranger21", lr=0.01),
        schedule=ScheduleSettings(name="constant"),
    )
    whole = tiny_network(seed=1)
    train(whole, Saver(tmp_path / "last.safetensors", whole), settings=settings)
    checkpoint = load_checkpoint(tmp_path / "step1.safetensors")
    assert checkpoint.state.optimizer_counters["step"] == 3
    model = tiny_network()
    load_training_weights(model, checkpoint)
    train(model, start=checkpoint.state, settings=settings)
    assert same_state(copied_state(model), copied_state(whole))


def test_any_safetensors_reader_opens_it(checkpoint_path: Path) -> None:
    with safe_open(checkpoint_path, framework="np") as file:
        names, metadata = set(file.keys()), file.metadata()
        assert file.get_tensor("model.fc.weight").shape == (2, 128)
    assert {name.split(".")[0] for name in names} == {"model", "optimizer"}
    assert "optimizer.0.momentum_buffer" in names
    content = json.loads(metadata["content"])
    assert content["best_epoch"] == content["epochs_done"] == 1
    assert content["info"]["recipe"] == INFO.recipe


def test_checkpoint_for_evaluation_has_no_optimizer(tmp_path: Path) -> None:
    model = build_model("resnet18-narrow", 2)
    saver = Saver(tmp_path / "best.safetensors", model, resumable=False)
    train(model, saver)
    found = load_checkpoint(tmp_path / "best2.safetensors")
    assert found.state.optimizer_state is None
    assert same_state(copied_state(found.build_model()), copied_state(model))
    with pytest.raises(RunError, match="no optimizer state"):
        train(model, start=load_checkpoint(tmp_path / "best1.safetensors").state)


def test_optimizer_values_that_are_no_tensors_survive(tmp_path: Path) -> None:
    state = {0: {"momentum_buffer": None, "step": torch.tensor(3.0)}, 1: {"exp.avg": torch.arange(3), "k": 4}}
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, nn.Linear(1, 1), INFO, TrainState(TrainHistory(), state, {"scale": 1024.0}))
    found = load_checkpoint(path).state
    assert found.scaler_state == {"scale": 1024.0}
    assert found.optimizer_state[0]["momentum_buffer"] is None
    assert found.optimizer_state[0]["step"].item() == 3
    assert found.optimizer_state[1]["exp.avg"].tolist() == [0, 1, 2]
    assert found.optimizer_state[1]["k"] == 4


def test_channels_last_weights_are_saved_as_they_are_meant(tmp_path: Path) -> None:
    model = build_model("resnet18-narrow", 2).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c.safetensors", model, INFO, TrainState(TrainHistory(), None))
    found = load_checkpoint(tmp_path / "c.safetensors").model_state
    assert same_state(dict(found), copied_state(model))


def test_failed_write_keeps_the_old_file(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(checkpoint_path.read_bytes())
    checkpoint = load_checkpoint(path)

    def run_out_of_space(file: Path, data: bytes) -> None:
        with file.open("wb") as opened:
            opened.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", run_out_of_space)
        with pytest.raises(NotSavedError, match=r"No space left on device; it needs [\d.]+ MB, .* is still whole"):
            save_checkpoint(path, checkpoint.build_model(), INFO, checkpoint.state)
    assert path.read_bytes() == checkpoint_path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_loaded_checkpoint_holds_no_map_of_the_file(checkpoint_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(checkpoint_path.read_bytes())
    found = load_checkpoint(path)
    before = found.model_state["fc.weight"].clone()
    with path.open("rb+") as file:
        half = path.stat().st_size // 2
        file.seek(-half, 2)
        file.write(bytes(half))
    assert torch.equal(found.model_state["fc.weight"], before)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no checkpoint .*gone\.safetensors"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(RunError, match="no checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("length", [0, 7, 500, -1])
def test_truncated_file_is_damaged(checkpoint_path: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint_path.read_bytes()[:length])
    with pytest.raises(RunError, match=r"cut\.safetensors cannot be read"):
        load_checkpoint(path)


def test_one_flipped_bit_is_found(checkpoint_path: Path, tmp_path: Path) -> None:
    data = bytearray(checkpoint_path.read_bytes())
    data[-1000] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged: its tensors"):
        load_checkpoint(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(RunError, match="not a checkpoint of this project"):
        load_checkpoint(foreign)
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(pickle.dumps({"weight": [1, 2, 3]}))
    with pytest.raises(RunError, match="another kind of file"):
        load_checkpoint(pickled)


def rewrite(source: Path, target: Path, **changes: str) -> Path:
    """Copy a checkpoint with other metadata, whose description fits its digest, or has none as in old versions."""
    with safe_open(source, framework="pt") as file:
        metadata = {**file.metadata(), **changes}
        metadata["content_digest"] = bytes_digest(metadata["content"].encode()).hex()
        if metadata["format_version"] in ("1", "2", "3"):
            del metadata["content_digest"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, target, metadata)
    return target


def test_later_format_and_broken_description_are_refused(checkpoint_path: Path, tmp_path: Path) -> None:
    later = rewrite(checkpoint_path, tmp_path / "later.safetensors", format_version="7")
    with pytest.raises(RunError, match="format 7, this version reads formats 1 to 6"):
        load_checkpoint(later)
    for content in (
        "{}",
        "[]",
        "[" * 5000,
        "[1",
        '{"info": 3, "optimizer_values": null, "history": [], "scaler_state": {}}',
    ):
        broken = rewrite(checkpoint_path, tmp_path / "broken.safetensors", content=content)
        with pytest.raises(RunError, match="description cannot be read"):
            load_checkpoint(broken)


@pytest.mark.parametrize("version", ["3", "4"])
def test_a_description_that_was_changed_is_found_where_there_is_a_digest(
    checkpoint_path: Path, tmp_path: Path, version: str
) -> None:
    changed = tmp_path / "changed.safetensors"
    data = rewrite(checkpoint_path, changed, format_version=version).read_bytes()
    # That of the images; an epoch's is null.
    found = re.search(rb'\\"size_px\\":(?=\d)', data)
    place = found.end()
    changed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    if version == "3":
        assert load_checkpoint(changed).info.size_px != INFO.size_px
        return
    with pytest.raises(RunError, match="its description does not match its digest"):
        load_checkpoint(changed)


def test_a_checkpoint_without_its_description_s_digest_is_refused(checkpoint_path: Path, tmp_path: Path) -> None:
    path = rewrite(checkpoint_path, tmp_path / "new.safetensors", format_version="3")
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), "format_version": "4"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(RunError, match="its description does not match its digest"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size_px", "abc", "size_px must be a whole number above 0"),
        ("size_px", True, "size_px must be"),
        ("classes", [1, 2], "classes must be a list of texts"),
        ("classes", "hem", "classes must be a list of texts"),
        ("recipe", [], "recipe must be an object"),
        ("judging", "d4", "judging must be an object or null"),
        ("settings", {"optimizer": 3}, "cannot be read"),
        ("settings", "x", "cannot be read"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(
    checkpoint_path: Path, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    with safe_open(checkpoint_path, framework="pt") as file:
        content = json.loads(file.metadata()["content"])
    content["info"][key] = value
    broken = rewrite(checkpoint_path, tmp_path / "broken.safetensors", content=json.dumps(content))
    with pytest.raises(RunError, match=rf"is damaged: its description cannot be read.*{words}|{words}"):
        load_checkpoint(broken)


def test_another_network_lists_a_few_differences(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    three_classes = build_model("resnet18-narrow", 3)
    before = copied_state(three_classes)
    with pytest.raises(RunError, match=r"is for 2 classes, this network has 3 \(fc\.bias\)"):
        load_weights(three_classes, checkpoint)
    assert same_state(copied_state(three_classes), before)
    with pytest.raises(RunError, match=r"instead of .* \(and \d+ more\)"):
        load_weights(build_model("resnet50", 2), checkpoint)
    fewer = {name: value for name, value in checkpoint.model_state.items() if not name.startswith("layer4")}
    with pytest.raises(RunError, match=r"is missing.*more"):
        Checkpoint(checkpoint.path, INFO, checkpoint.state, fewer).build_model()
    extra = Checkpoint(checkpoint.path, INFO, checkpoint.state, {**checkpoint.model_state, "x": torch.zeros(1)})
    with pytest.raises(RunError, match="x is not in the network"):
        extra.build_model()


def test_a_checkpoint_may_be_read_by_whom_other_files_may(tmp_path: Path) -> None:
    model = build_model("resnet18-narrow", 2, seed=0)
    save_checkpoint(tmp_path / "last.safetensors", model, INFO, TrainState(TrainHistory(), {}))
    (tmp_path / "ordinary").write_bytes(b"")
    assert (tmp_path / "last.safetensors").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"last.safetensors", "ordinary"}
