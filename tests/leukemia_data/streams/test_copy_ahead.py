"""The order of copies to a CUDA device, with substitutes for its streams and events."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from leukemia_data.streams import batch as batch_module
from leukemia_data.streams.batch import Batch, move_batches

CUDA = torch.device("cuda", 1)


class Calls(list[Any]):
    """What was asked of the device, in order."""


class Stream:
    def __init__(self, calls: Calls, name: str) -> None:
        self.calls, self.name, self.events = calls, name, 0

    def record_event(self) -> str:
        self.events += 1
        self.calls.append(f"{self.name} records {self.events}")
        return f"event {self.events}"

    def wait_event(self, event: str) -> None:
        self.calls.append(f"{self.name} waits for {event}")


class Values:
    """A tensor of a device."""

    def __init__(self, calls: Calls, name: str) -> None:
        self.calls, self.name = calls, name

    def record_stream(self, stream: Stream) -> None:
        self.calls.append(f"{self.name} is kept for {stream.name}")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    found, consuming = Calls(), None

    def new_stream(device: torch.device) -> Stream:
        found.append(f"stream on {device}")
        return Stream(found, "copying")

    consuming = Stream(found, "consuming")

    @contextmanager
    def using(stream: Stream) -> Iterator[None]:
        found.append(f"in {stream.name}")
        yield
        found.append(f"out of {stream.name}")

    def moved(batch: Batch, device: torch.device) -> Batch:
        number = int(batch.labels_B)
        found.append(f"copy {number}")
        return batch.moved(Values(found, f"images {number}"), Values(found, f"labels {number}"))

    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "stream", using)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: consuming)
    monkeypatch.setattr(batch_module, "_moved", moved)
    batch_module._copying_stream.cache_clear()
    yield found
    batch_module._copying_stream.cache_clear()


def batches(num_batches: int) -> Generator[Batch]:
    for number in range(num_batches):
        numbers = torch.tensor([number])
        yield Batch(numbers, numbers, numbers, numbers > 0, numbers, numbers)


def test_the_next_batch_is_copied_before_this_one_is_used(calls: Calls) -> None:
    moving = move_batches(batches(2), CUDA)
    next(moving)
    assert calls == [
        "stream on cuda:1",
        *("in copying", "copy 0", "out of copying", "copying records 1"),
        *("in copying", "copy 1", "out of copying", "copying records 2"),
        *("consuming waits for event 1", "images 0 is kept for consuming", "labels 0 is kept for consuming"),
    ]
    del calls[:]
    next(moving)
    assert calls == ["consuming waits for event 2", "images 1 is kept for consuming", "labels 1 is kept for consuming"]
    assert next(moving, None) is None


def test_all_epochs_copy_on_one_stream(calls: Calls) -> None:
    for _ in range(3):
        assert len(list(move_batches(batches(2), CUDA))) == 2
    assert calls.count("stream on cuda:1") == 1


def test_a_device_without_a_number_is_the_current_one_of_each_epoch(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 1, 0):
        monkeypatch.setattr(torch.cuda, "current_device", lambda number=number: number)
        list(move_batches(batches(1), torch.device("cuda")))
    assert [call for call in calls if call.startswith("stream on")] == ["stream on cuda:0", "stream on cuda:1"]
