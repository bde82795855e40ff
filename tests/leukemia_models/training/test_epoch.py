from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from leukemia_data.errors import CacheError, RunError
from leukemia_models.training.optimizers import OptimizerSettings

from ..fakes import (
    FakeBatch,
    FakeSource,
    copied_state,
    fake_batch,
    fake_source,
    same_state,
    tiny_network,
)
from ..small_training import Recorder, train, without_times

# One batch has a single sample and is left out: step 1 of epoch 1, step 4 of epoch 2, step 3 of epoch 3.
UNEVEN = (5, 1, 6, 4)
STOPS = (
    ((1, 2),),
    ((1, 4),),  # after an epoch's last step, before its validation
    ((2, 3),),  # only the step that is left out is left
    ((2, 1), (2, 2)),
    ((1, 2), (1, 4), (2, 3), (3, 1)),
)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_run_resumed_inside_epochs_ends_bit_by_bit_like_the_uninterrupted_one(
    stops: tuple[tuple[int, int], ...], momentum: float
) -> None:
    optimizer = OptimizerSettings(lr=0.05, momentum=momentum)
    whole = tiny_network(dropout=0.3)
    history = train(whole, fake_source(*UNEVEN), fake_source(6), epochs=3, optimizer=optimizer)

    model, start = tiny_network(dropout=0.3), None
    for stop in stops:
        recorder = Recorder(model, (stop,))
        train(
            model, fake_source(*UNEVEN), fake_source(6), epochs=3, optimizer=optimizer, start=start, observer=recorder
        )
        ((start, weights),) = recorder.saved
        assert (start.epochs_done + 1, start.progress.steps_done) == stop
        model = tiny_network(seed=9, dropout=0.3)
        model.load_state_dict(weights)
        torch.rand(3)
    source, recorder = fake_source(*UNEVEN), Recorder(model)
    again = train(model, source, fake_source(6), epochs=3, optimizer=optimizer, start=start, observer=recorder)
    assert source.asked[0] == stops[-1]
    assert recorder.heard[0] == ("start", stops[-1][0], 4, stops[-1][1])
    assert same_state(copied_state(model), copied_state(whole))
    assert without_times(again) == without_times(history)


def test_seconds_of_an_epoch_are_those_of_all_its_parts() -> None:
    model = tiny_network()
    recorder = Recorder(model, ((1, 2),))
    train(model, fake_source(4, 4, 4), epochs=1, observer=recorder)
    progress = recorder.saved[0][0].progress
    assert (progress.train_s, progress.wait_s) == (5, 2)
    (record,) = train(tiny_network(), fake_source(4, 4, 4), epochs=1, start=recorder.saved[0][0]).records
    assert record.seconds == 5 + 3 + 1
    assert record.data_wait_share == (2 + 1) / 8
    assert record.images_per_s == 12 / 8


def test_state_is_passed_on_after_its_step() -> None:
    recorder = Recorder(model := tiny_network(), ((1, 2),))
    train(model, fake_source(4, 3), epochs=1, observer=recorder)
    assert recorder.heard[1:] == [("step", 1, 1, 3), ("step", 1, 2, 4), ("state", 1, 2), ("end", 1)]


def test_state_of_a_longer_epoch_is_refused() -> None:
    recorder = Recorder(model := tiny_network(), ((1, 3),))
    train(model, fake_source(4, 4, 4), epochs=1, observer=recorder)
    with pytest.raises(RunError, match=r"at step 3 of an epoch of 2 steps: .* batch size"):
        train(model, fake_source(6, 6), epochs=1, start=recorder.saved[0][0])


def test_masked_rows_count_for_nothing() -> None:
    plain, masked = fake_source(4, 3), fake_source(4, 3)
    for position, batch in enumerate(masked.batches):
        noise = fake_batch(2, 50)
        noise.mask_B[:] = False
        rows = zip(vars(noise).values(), vars(batch).values(), strict=True)
        # Before, between and after those that count.
        masked.batches[position] = FakeBatch(*(torch.cat([n[:1], b[:2], n[1:], b[2:], n]) for n, b in rows))
    first, second = tiny_network(), tiny_network()
    history, again = train(first, plain), train(second, masked)
    assert same_state(copied_state(first), copied_state(second))
    assert history == again


def test_batch_of_nothing_but_masked_rows_is_left_out() -> None:
    source = fake_source(4, 3)
    source.batches[1].mask_B[:] = False
    recorder = Recorder(model := tiny_network())
    train(model, source, epochs=1, observer=recorder)
    assert [heard for heard in recorder.heard if heard[0] == "step"] == [("step", 1, 2, 4)]


def test_stream_is_closed_also_when_it_is_left_early() -> None:
    closed = []

    class Stream(FakeSource):
        def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
            try:
                yield from super().epoch(epoch, first_step)
            finally:
                closed.append(epoch)

    train(tiny_network(), Stream([fake_batch(4, 1)]), epochs=2)
    assert closed == [1, 2]
    batches = [fake_batch(4, 1), fake_batch(4, 2)]
    batches[1].labels_B[:] = 2
    with pytest.raises(RunError, match="labels from"):
        train(tiny_network(), Stream(batches))
    assert closed == [1, 2, 1]


def test_stream_that_ends_early_is_an_error() -> None:
    class Short(FakeSource):
        def __len__(self) -> int:
            return 3

    with pytest.raises(RunError, match="epoch 1 ended before step 3 of 3"):
        train(tiny_network(), Short([fake_batch(4, 1), fake_batch(4, 2)]))


def test_error_of_the_stream_comes_through_unchanged() -> None:
    class Failing(FakeSource):
        def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
            yield self.batches[0]
            raise CacheError("the shard is gone")

    with pytest.raises(CacheError, match="the shard is gone"):
        train(tiny_network(), Failing([fake_batch(4, 1), fake_batch(4, 2)]))
