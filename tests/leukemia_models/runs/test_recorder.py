"""Files are written beside the training, and nothing that was promised is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from leukemia_data.console import NullConsole
from leukemia_models.runs import recorder as recorder_module
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import (
    CheckpointInfo,
    CheckpointSnapshot,
    NotSavedError,
    load_checkpoint,
    save_checkpoint,
    snapshot_checkpoint,
)
from leukemia_models.training.checkpoint_file import on_host, read_safetensors
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState

from ..fakes import NORMALIZATION, copied_state, same_state
from ..small_training import epoch_record

INFO = CheckpointInfo(
    model_name="resnet18-narrow",
    classes=("hem", "all"),
    size_px=32,
    normalization=NORMALIZATION,
    recipe={"name": "raw", "steps": []},
    data_fingerprint="ab" * 32,
    split_kind="subject",
    settings=TrainSettings(epochs=3),
)
TIMEOUT_S = 60


class Lines(NullConsole):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Held:
    """Holds each write until it is let go; counts those that began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.may_write, self.began = threading.Event(), threading.Event()
        self.error = error
        original = CheckpointSnapshot.write

        def write(snapshot: CheckpointSnapshot, path: Path) -> None:
            self.began.set()
            assert self.may_write.wait(TIMEOUT_S)
            if self.error is not None:
                raise self.error
            original(snapshot, path)

        monkeypatch.setattr(CheckpointSnapshot, "write", write)


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def make(model: nn.Module, lines: Lines, tmp_path: Path) -> Callable[..., Recorder]:
    def recorder(save_minutes: float = 10) -> Recorder:
        return Recorder(RunFolder(tmp_path), INFO, model, "stamp", save_minutes, lambda: 0.0, lines)

    return recorder


def state_of(model: nn.Module, epochs: int = 1) -> TrainState:
    records = tuple(epoch_record(epoch) for epoch in range(1, epochs + 1))
    momentum = {0: {"momentum_buffer": model.weight.detach() * 0.5}}
    return TrainState(TrainHistory(records), momentum)


def test_training_goes_on_while_a_checkpoint_is_written(
    make: Callable[..., Recorder], model: nn.Module, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, recorder, folder = Held(monkeypatch), make(), RunFolder(tmp_path)
    before = copied_state(model)
    recorder.on_epoch_end(epoch_record(1), state_of(model), is_best=True)
    assert held.began.wait(TIMEOUT_S)
    # The steps of the next epoch.
    recorder.on_epoch_start(2, 5, 0)
    with torch.no_grad():
        model.weight.add_(1.0)
    recorder.on_step(2, 1, 0.5, 8)
    assert (lines.notes, folder.history.exists()) == ([], False)
    held.may_write.set()
    recorder.close()
    assert len(lines.notes) == 1
    assert "best" in lines.notes[0]
    for which in ("last", "best"):
        assert same_state(dict(load_checkpoint(folder.checkpoint(which)).training_weights), before)
    assert folder.history.exists()


def test_one_file_is_written_at_a_time_and_none_is_left_out(
    make: Callable[..., Recorder], model: nn.Module, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, recorder = Held(monkeypatch), make()
    recorder.on_epoch_end(epoch_record(1), state_of(model, 1), is_best=True)
    second = threading.Thread(
        target=lambda: recorder.on_epoch_end(epoch_record(2), state_of(model, 2), is_best=False), daemon=True
    )
    second.start()
    second.join(0.05)
    assert second.is_alive(), "it waits for the first"
    held.may_write.set()
    second.join(TIMEOUT_S)
    recorder.close()
    folder = RunFolder(tmp_path)
    assert load_checkpoint(folder.checkpoint("best")).state.epochs_done == 1
    assert load_checkpoint(folder.checkpoint("last")).state.epochs_done == 2
    assert [line.split()[1] for line in lines.notes] == ["1/3", "2/3"]


def test_an_error_of_the_thread_ends_the_training_at_its_next_step(
    make: Callable[..., Recorder], model: nn.Module, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, recorder = Held(monkeypatch, NotSavedError("the disk is full")), make()
    recorder.on_state(state_of(model))
    assert not recorder.wants_state(1, 2)
    held.may_write.set()
    recorder._writer._job.exception(TIMEOUT_S)
    # The loop asks on every rank, and then passes the state.
    assert recorder.wants_state(1, 3)
    with pytest.raises(NotSavedError, match="the disk is full"):
        recorder.on_state(state_of(model))
    recorder.close()
    assert lines.notes == []


def test_the_end_of_a_training_waits_for_its_files_and_raises_their_error(
    make: Callable[..., Recorder], model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, recorder = Held(monkeypatch, NotSavedError("the disk is full")), make()
    recorder.on_epoch_end(epoch_record(1), state_of(model), is_best=False)
    held.may_write.set()
    with pytest.raises(NotSavedError):
        recorder.wait()
    recorder.on_epoch_end(epoch_record(2), state_of(model), is_best=False)
    # The error that ends the training is the one to see.
    recorder.close(is_failing=True)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_waits_for_the_file_under_way(
    interruption: type[BaseException],
    make: Callable[..., Recorder],
    model: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, recorder = Held(monkeypatch), make()
    recorder.on_state(state_of(model))
    threading.Timer(0.1, held.may_write.set).start()

    def train() -> None:
        try:
            raise interruption
        finally:
            recorder.close(is_failing=True)

    with pytest.raises(interruption):
        train()
    assert load_checkpoint(RunFolder(tmp_path).checkpoint("last")).state.epochs_done == 1


def test_saving_after_every_step_is_done_when_the_step_is(
    make: Callable[..., Recorder], model: nn.Module, tmp_path: Path
) -> None:
    recorder = make(save_minutes=0)
    recorder.on_state(state_of(model))
    assert load_checkpoint(RunFolder(tmp_path).checkpoint("last")).state.epochs_done == 1
    recorder.close()


def test_a_snapshot_shares_no_memory_with_the_training(model: nn.Module, tmp_path: Path) -> None:
    """Its file holds what a checkpoint saved at once holds."""
    state = state_of(model)
    save_checkpoint(tmp_path / "now", model, INFO, state)
    snapshot = snapshot_checkpoint(model, INFO, state)
    with torch.no_grad():
        for tensor in (model.weight, model.bias, state.optimizer_state[0]["momentum_buffer"]):
            tensor.fill_(7)
    snapshot.write(tmp_path / "later")
    (metadata, tensors), (other_metadata, others) = (read_safetensors(tmp_path / name) for name in ("now", "later"))
    assert metadata == other_metadata
    assert same_state(tensors, others)


def test_the_figure_is_drawn_by_the_thread_too(
    make: Callable[..., Recorder], model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_by: list[str] = []
    monkeypatch.setattr(recorder_module, "_DRAW_SECONDS", 0)
    monkeypatch.setattr(
        recorder_module, "save_figure", lambda figure, path: drawn_by.append(threading.current_thread().name)
    )
    recorder = make()
    recorder.on_epoch_end(epoch_record(1), state_of(model), is_best=False)
    recorder.close()
    assert drawn_by == ["checkpoint_0"]


class OnDevice:
    """A tensor of a CUDA device, as far as it is copied."""

    def __init__(self, name: str) -> None:
        self.name, self.device = name, torch.device("cuda", 1)


def test_copies_from_a_device_are_all_under_way_before_it_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Pinned:
        def copy_(self, value: OnDevice, *, non_blocking: bool) -> Pinned:
            calls.append(f"copy {value.name}{' without waiting' if non_blocking else ''}")
            return self

    class Stream:
        def synchronize(self) -> None:
            calls.append("wait")

    def empty_like(value: OnDevice, *, device: str, pin_memory: bool) -> Pinned:
        assert (device, pin_memory) == ("cpu", True)
        return Pinned()

    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    on_host({name: OnDevice(name) for name in ("weight", "momentum")})  # type: ignore[dict-item]
    assert calls == ["copy weight without waiting", "copy momentum without waiting", "wait"]
