from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from leukemia_models.devices.normalization import area_reduced
from leukemia_models.training.history import EarlyStopping, TrainHistory
from leukemia_models.training.image_sizes import described_sizes, size_at
from leukemia_models.training.run_state import TrainSettings

from ..fakes import FakeBatch, FakeSource, copied_state, fake_source, same_state, tiny_network
from ..small_training import Recorder, epoch_record, train, without_times

SIZES = ((8, 1), (12, 2), (32, 1))
"""Of four epochs on images of 32 px."""


def test_each_epoch_has_its_size() -> None:
    assert [size_at(SIZES, epoch) for epoch in range(1, 5)] == [8, 12, 12, 32]
    assert TrainSettings(epochs=1).size_at(1) is None
    assert described_sizes(SIZES) == "8 px for 1 epoch, 12 px for 2, 32 px for 1"


class ReducedSource(FakeSource):
    """Has smaller images in the earlier epochs, as if from a cache for each size."""

    size_px = 32

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
        # Clean images have no epoch of their own.
        size_px = size_at(SIZES, epoch) if epoch else self.size_px
        for batch in super().epoch(epoch, first_step):
            yield replace(batch, images_BHWC=area_reduced(batch.images_BHWC, size_px))


class TellsSize(Recorder):
    """Tells the source of clean images the size of the epoch."""

    clean: ReducedSource

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        self.clean.size_px = size_at(SIZES, epoch)


def test_a_run_is_that_on_reduced_images_bit_by_bit() -> None:
    """In training, in validation, and in the estimation of BatchNorm statistics."""
    given = {"epochs": 4, "ema_decay": 0.8}
    sized, other = tiny_network(), tiny_network()
    clean = fake_source(9)
    history = train(sized, fake_source(6, 6), fake_source(5, 6), sizes=SIZES, clean_source=clean, **given)
    reduced = [ReducedSource(fake_source(*sizes).batches) for sizes in ((6, 6), (5, 6), (9,))]
    observer = TellsSize(other)
    observer.clean = reduced[2]
    expected = train(other, reduced[0], reduced[1], clean_source=reduced[2], observer=observer, **given)
    assert same_state(copied_state(sized), copied_state(other))
    found = [{name: value for name, value in each.items() if name != "size_px"} for each in without_times(history)]
    assert found == without_times(expected)
    assert [record.size_px for record in history.records] == [8, 12, 12, 32]


def test_the_network_sees_images_of_the_size() -> None:
    seen: list[tuple[bool, int]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_network()

        def forward(self, images_BCHW: Tensor) -> Tensor:
            seen.append((self.training, images_BCHW.shape[-1]))
            return self.inner(images_BCHW)

    train(Watched(), fake_source(6, 6), fake_source(7), epochs=4, sizes=SIZES)
    assert [size for is_training, size in seen if is_training] == [8, 8, 12, 12, 12, 12, 32, 32]
    assert [size for is_training, size in seen if not is_training] == [8, 12, 12, 32]


@pytest.mark.parametrize("stop", [(1, 1), (2, 1), (4, 1)], ids=str)
def test_a_run_resumes_bit_by_bit_inside_an_epoch_of_each_size(stop: tuple[int, int]) -> None:
    whole = tiny_network()
    recorder = Recorder(whole, (stop,))
    sources = fake_source(5, 6, 4), fake_source(6)
    history = train(whole, *sources, epochs=4, sizes=SIZES, observer=recorder)
    ((start, weights),) = recorder.saved
    resumed = tiny_network(seed=9)
    resumed.load_state_dict(weights)
    again = train(resumed, *sources, epochs=4, sizes=SIZES, start=start)
    assert same_state(copied_state(resumed), copied_state(whole))
    assert without_times(again) == without_times(history)


def test_a_network_is_compiled_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(next(value.shape[-1] for value in inputs if value.ndim == 4 and value.shape[1] == 3))
        return graph.forward

    train(tiny_network(), fake_source(6, 6), epochs=4, sizes=SIZES, compile=True, compile_backend=backend)
    assert len(compiled) == len(SIZES)


def record_at(epoch: int, size_px: int | None, accuracy: float):
    return replace(epoch_record(epoch, valid_balanced_accuracy=accuracy), size_px=size_px)


def test_the_best_epoch_is_one_of_the_present_size() -> None:
    accuracies = [0.9, 0.8, 0.7, 0.75, 0.6]
    sizes = [64, 64, 96, 96, 128]
    records = [record_at(*each) for each in zip(range(1, 6), sizes, accuracies, strict=True)]
    bests = [TrainHistory(tuple(records[:count])).best.epoch for count in range(1, 6)]
    assert bests == [1, 1, 3, 4, 5]


def test_early_stopping_watches_the_last_size() -> None:
    stopping = EarlyStopping(patience_epochs=2)
    settings = TrainSettings(epochs=9, sizes=((64, 4), (128, 5)), early_stopping=stopping)
    accuracies = [0.9, 0.5, 0.5, 0.5, 0.6, 0.5, 0.5]
    sizes = [64] * 4 + [128] * 3
    records = [record_at(*each) for each in zip(range(1, 8), sizes, accuracies, strict=True)]
    assert [settings.stops_after(records[:count]) for count in range(8)] == [False] * 7 + [True]
    alone = replace(settings, sizes=None)
    assert alone.stops_after(records[:3])
