from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from leukemia_data.cache import Cache, open_cache
from leukemia_data.errors import UsageError
from leukemia_data.loader import BatchStream
from leukemia_data.manifest import load_manifest

from .helpers import build, cache_dir, make_source

SIZE, NUM = 16, 30


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("loader")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return cache_dir(root / "cache", SIZE)


@pytest.fixture(scope="module")
def cache(directory) -> Cache:
    return open_cache(directory)


@pytest.fixture(scope="module")
def stored(directory) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for shard in load_manifest(directory).shards:
        with h5py.File(directory / shard.name, "r") as file:
            images.append(file["images"][()])
            labels.append(file["labels"][()])
    return np.concatenate(images), np.concatenate(labels)


def order(stream: BatchStream, epoch: int) -> list[int]:
    return [number for batch in stream.epoch(epoch) for number in batch.indices_B.tolist()]


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_are_what_h5py_reads(cache, stored, seed):
    numbers = np.arange(NUM)[::-1][:17].copy()
    images, labels = stored
    for batch in BatchStream(cache, numbers, batch_size=5, seed=seed).epoch(0):
        assert batch.images_BHWC.dtype == torch.uint8
        assert batch.labels_B.dtype == batch.indices_B.dtype == torch.int64
        assert np.array_equal(batch.images_BHWC.numpy(), images[batch.indices_B.numpy()])
        assert batch.labels_B.tolist() == labels[batch.indices_B.numpy()].tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 17, 100])
@pytest.mark.parametrize("seed", [None, 0, 5])
def test_every_sample_comes_once_an_epoch(cache, batch_size, seed):
    numbers = np.arange(NUM)[3:20]
    stream = BatchStream(cache, numbers, batch_size=batch_size, seed=seed)
    sizes = [len(batch.labels_B) for batch in stream.epoch(2)]
    assert sorted(order(stream, 2)) == numbers.tolist()
    assert len(sizes) == len(stream) == math.ceil(17 / batch_size)
    assert all(size == batch_size for size in sizes[:-1])


def test_without_a_seed_the_order_is_that_of_the_numbers(cache):
    numbers = np.array([9, 2, 25, 2])
    assert order(BatchStream(cache, numbers, batch_size=3), 7) == [9, 2, 25, 2]


def test_order_is_a_function_of_seed_and_epoch_alone(cache):
    numbers = np.arange(NUM)
    stream = BatchStream(cache, numbers, batch_size=4, seed=1)
    first = order(stream, 3)
    assert order(stream, 4) != first
    assert order(stream, 3) == first
    assert order(BatchStream(cache, numbers, batch_size=11, seed=1), 3) == first
    assert order(BatchStream(cache, numbers, batch_size=4, seed=2), 3) != first
    assert first != numbers.tolist()


def test_the_callers_random_state_does_not_count_and_is_left_alone(cache):
    stream = BatchStream(cache, np.arange(NUM), batch_size=4, seed=1)
    first, state = order(stream, 0), torch.get_rng_state()
    np.random.seed(99)  # noqa: NPY002 - the global state is what must not count
    assert order(stream, 0) == first
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("num", "batch_size", "sizes"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (5, 4, [4]), (3, 4, [3])])
def test_drop_last_drops_a_part_but_never_everything(cache, num, batch_size, sizes):
    stream = BatchStream(cache, np.arange(num), batch_size=batch_size, seed=1, drop_last=True)
    assert [len(batch.labels_B) for batch in stream.epoch(0)] == sizes
    assert len(stream) == len(sizes)


def test_dropped_samples_are_others_each_epoch(cache):
    stream = BatchStream(cache, np.arange(10), batch_size=4, seed=1, drop_last=True)
    assert len({frozenset(order(stream, epoch)) for epoch in range(6)}) > 1


def test_batches_do_not_share_memory(cache):
    first, second = list(BatchStream(cache, np.arange(8), batch_size=4).epoch(0))
    kept = second.images_BHWC.clone()
    first.images_BHWC.zero_()
    assert torch.equal(second.images_BHWC, kept)


def test_numbers_of_the_caller_are_copied_into_batches(cache):
    numbers = np.arange(8)
    batch = next(BatchStream(cache, numbers, batch_size=4).epoch(0))
    batch.indices_B.zero_()
    assert numbers.tolist() == list(range(8))


def test_no_samples_are_no_batches(cache):
    stream = BatchStream(cache, np.empty(0, np.int64), batch_size=4, seed=1, drop_last=True)
    assert len(stream) == len(list(stream.epoch(0))) == 0


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_one_is_refused(cache, batch_size):
    with pytest.raises(UsageError, match="at least 1"):
        BatchStream(cache, np.arange(3), batch_size=batch_size)
