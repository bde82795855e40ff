from __future__ import annotations

import errno
import gc
import json
import math
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from leukemia_data.building.repair import convert
from leukemia_data.caches.cache import Cache, SampleReader, open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.shard_rows import OpenFile, PlainRows
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import DeviceStore, RamStore

from ..copies import UnfinishedCopies
from ..helpers import build, cache_dir, flip_bit, make_source

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


def test_memory_of_dropped_batches_is_used_again(cache):
    stream = BatchStream(cache, np.arange(NUM), batch_size=3, num_threads=1, prefetch=1)
    pointers = [batch.images_BHWC.data_ptr() for epoch in range(3) for batch in stream.epoch(epoch)]
    assert len(set(pointers)) <= 3


def test_a_view_keeps_its_batch_whole(cache, stored):
    images, _ = stored
    corners = [
        (batch.images_BHWC[:, 0, 0], batch.indices_B) for batch in BatchStream(cache, np.arange(NUM), batch_size=3)
    ]
    for corner, numbers in corners:
        assert np.array_equal(corner.numpy(), images[numbers.numpy(), 0, 0])


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


# --- threads, errors, ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 2, 7])
def test_threads_and_prefetch_change_nothing(cache, stored, num_threads, prefetch):
    stream = BatchStream(cache, np.arange(NUM), batch_size=4, seed=1, num_threads=num_threads, prefetch=prefetch)
    batches = list(stream.epoch(3))
    numbers = torch.cat([batch.indices_B for batch in batches]).numpy()
    assert numbers.tolist() == order(BatchStream(cache, np.arange(NUM), batch_size=4, seed=1), 3)
    assert np.array_equal(torch.cat([batch.images_BHWC for batch in batches]).numpy(), stored[0][numbers])
    assert all(batch.mask_B.all() for batch in batches)


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batch-stream")]


def test_threads_end_with_the_epoch_and_with_an_iterator_closed_early(cache):
    stream = BatchStream(cache, np.arange(NUM), batch_size=2, num_threads=2)
    batches = stream.epoch(0)
    next(batches)
    assert stream_threads()
    batches.close()
    assert not stream_threads()
    for _ in stream.epoch(0):
        break
    assert not stream_threads()
    list(stream.epoch(0))
    assert not stream_threads()


def test_error_in_the_consumer_ends_the_threads(cache):
    def consume() -> None:
        for batch in BatchStream(cache, np.arange(NUM), batch_size=2):
            raise KeyError(int(batch.indices_B[0]))

    with pytest.raises(KeyError):
        consume()
    assert not stream_threads()


def test_error_in_a_thread_surfaces_at_its_batch(cache, monkeypatch):
    gather = cache.reader.gather

    def failing(indices_B, out):
        if 8 in indices_B:
            raise CacheError("the disk is gone")
        return gather(indices_B, out)

    monkeypatch.setattr(cache.reader, "gather", failing)
    batches = BatchStream(cache, np.arange(NUM), batch_size=4, residency="mapped").epoch(0)
    assert next(batches).indices_B.tolist() == [0, 1, 2, 3]
    assert next(batches).indices_B.tolist() == [4, 5, 6, 7]
    with pytest.raises(CacheError, match="the disk is gone"):
        next(batches)
    assert not stream_threads()
    assert list(batches) == []


def test_iterator_that_the_garbage_collector_drops_in_one_of_its_own_threads(cache, monkeypatch):
    """A thread cannot wait for itself; pytest reports an error that would otherwise be ignored."""
    dropped, gather = threading.Event(), cache.reader.gather

    def collecting(indices_B, out):
        if indices_B[0] > 0:
            dropped.wait(10)
            gc.collect()
        return gather(indices_B, out)

    monkeypatch.setattr(cache.reader, "gather", collecting)
    gc.disable()
    try:
        stream = BatchStream(cache, np.arange(NUM), batch_size=2, num_threads=2, prefetch=4, residency="mapped")
        cycle = SimpleNamespace(batches=stream.epoch(0))
        cycle.itself = cycle
        next(cycle.batches)
        own = [thread for thread in threading.enumerate() if thread.name in stream_threads()]
        del cycle, stream
        dropped.set()
        for thread in own:
            thread.join(10)
    finally:
        gc.enable()
    assert not stream_threads()


def open_files_and_maps(directory: Path) -> list[str]:
    files = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    return [line for line in [*files, *Path("/proc/self/maps").read_text().splitlines()] if str(directory) in line]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_early_leaves_no_file_and_no_map(directory, tmp_path):
    own = Path(shutil.copytree(directory, tmp_path / "own"))
    with open_cache(own) as cache, BatchStream(cache, np.arange(NUM), batch_size=2, seed=0) as stream:
        batches = stream.epoch(0)
        batch = next(batches)
        assert open_files_and_maps(own)
    batches.close()
    del batches, batch, stream, cache
    assert open_files_and_maps(own) == []
    assert not stream_threads()


def test_a_closed_stream_is_an_error(cache):
    stream = BatchStream(cache, np.arange(NUM), batch_size=2)
    stream.close()
    with pytest.raises(UsageError, match="closed"):
        next(stream.epoch(0))


def test_thread_and_prefetch_counts_are_checked(cache):
    for name in ("num_threads", "prefetch", "num_processes"):
        for wrong in (0, 1.5, True, "2"):
            with pytest.raises(UsageError, match=f"{name} must be"):
                BatchStream(cache, np.arange(3), batch_size=2, **{name: wrong})


# --- residency ------------------------------------------------------------------------------------------------


def test_resident_stream_gives_the_same_batches(cache):
    numbers = np.array([7, 3, 3, 29, 0, 12])
    mapped = list(BatchStream(cache, numbers, batch_size=4, seed=2, residency="mapped").epoch(1))
    resident = BatchStream(cache, numbers, batch_size=4, seed=2, residency="ram")
    assert resident.residency.kind == "ram"
    for one, other in zip(mapped, resident.epoch(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_resident_stream_reads_each_sample_once(cache, monkeypatch):
    gather, read = cache.reader.gather, []

    def counting(indices_B, out):
        read.extend(indices_B.tolist())
        return gather(indices_B, out)

    monkeypatch.setattr(cache.reader, "gather", counting)
    stream = BatchStream(cache, np.arange(NUM), batch_size=4, seed=2, residency="ram", num_threads=1)
    assert read == []
    for epoch in range(3):
        list(stream.epoch(epoch))
    assert sorted(read) == list(range(NUM))


def test_resident_samples_that_two_threads_want_are_read_once_and_a_failed_read_is_made_again(cache, stored):
    class Failing:
        """Reads that meet in the middle; the first of them fails."""

        size_px, num_reads, meeting = SIZE, 0, threading.Barrier(2)

        def gather(self, indices_B, out):
            self.num_reads += 1
            if self.num_reads == 1:
                self.meeting.wait(10)
                raise CacheError("gone")
            return cache.reader.gather(indices_B, out)

    reader = Failing()
    store, out, failures = RamStore(reader, np.arange(6)), np.empty((2, 4, SIZE, SIZE, 3), np.uint8), []

    def read(numbers, out):
        try:
            store.gather(np.array(numbers), out)
        except CacheError as error:
            failures.append(str(error))

    first = threading.Thread(target=read, args=([0, 1, 2, 3], out[0]))
    first.start()
    second = threading.Thread(target=read, args=([3, 2, 5, 2], out[1]))
    while reader.num_reads == 0:
        pass
    second.start()
    reader.meeting.wait(10)
    first.join(10)
    second.join(10)
    assert failures == ["gone"]
    assert np.array_equal(out[1], stored[0][[3, 2, 5, 2]])
    # Half of the room was lost with the read that failed: what finds none is read each time.
    for _ in range(2):
        store.gather(np.array([4, 1, 0, 5]), out[0])
        assert np.array_equal(out[0], stored[0][[4, 1, 0, 5]])


@pytest.mark.parametrize("store", ["ram", "device"])
def test_stores_hold_the_samples_pixels(cache, stored, store):
    numbers, asked = np.array([20, 4, 4, 9, 28]), np.array([9, 20, 20, 4])
    if store == "ram":
        out = np.empty((4, SIZE, SIZE, 3), np.uint8)
        RamStore(cache.reader, numbers).gather(asked, out)
    else:
        out = DeviceStore(cache.reader, numbers, torch.device("cpu")).take(asked).numpy()
    assert np.array_equal(out, stored[0][asked])


@pytest.fixture
def unmapped(directory) -> Cache:
    """The cache as on a file system without memory maps."""
    cache = open_cache(directory)
    cache.__dict__["reader"] = SampleReader(cache, open_rows=PlainRows)
    return cache


@pytest.mark.parametrize("residency", ["mapped", "ram"])
def test_shards_that_cannot_be_mapped_give_the_same_batches_and_a_note(cache, unmapped, residency):
    num_shards = len(cache.manifest.shards)
    mapped = BatchStream(cache, np.arange(NUM), batch_size=4, seed=2, residency=residency)
    plain = BatchStream(unmapped, np.arange(NUM), batch_size=4, seed=2, residency=residency)
    for first, second in zip(mapped.epoch(1), plain.epoch(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert plain.residency.reason.endswith(f"; {num_shards} shards cannot be mapped there and are read instead")
    assert "cannot" not in mapped.residency.reason


@pytest.fixture
def compressed(directory, tmp_path) -> Cache:
    """The cache with compressed shards."""
    convert(directory, "zstd", out=tmp_path / "zstd", num_threads=1)
    return open_cache(tmp_path / "zstd")


@pytest.mark.parametrize("residency", ["mapped", "ram"])
def test_compressed_shards_give_the_same_batches(cache, compressed, residency):
    raw = BatchStream(cache, np.arange(NUM), batch_size=4, seed=2, residency=residency)
    zstd = BatchStream(compressed, np.arange(NUM), batch_size=4, seed=2, residency=residency, num_threads=3)
    for first, second in zip(raw.epoch(1), zstd.epoch(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    on_device = DeviceStore(compressed.reader, np.arange(NUM), torch.device("cpu")).take(np.array([5, 2]))
    assert np.array_equal(on_device.numpy(), cache.reader.gather(np.array([5, 2])))
    assert "cannot" not in zstd.residency.reason


@pytest.mark.parametrize("residency", ["mapped", "ram"])
def test_damaged_chunk_ends_the_epoch_by_name(compressed, residency):
    shard = compressed.manifest.shards[1]
    flip_bit(compressed.directory / shard.name, shard.images_offset_bytes + 60, 2)
    stream = BatchStream(compressed, np.arange(NUM), batch_size=4, residency=residency, num_threads=2)
    with pytest.raises(CacheError, match=rf"{shard.name} is damaged, image 0 in it: .*`ldata verify --repair`"):
        list(stream.epoch(0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch-stream")]


@pytest.mark.parametrize("residency", ["mapped", "ram"])
def test_the_error_of_an_unreadable_shard_names_it(unmapped, residency, monkeypatch):
    stream = BatchStream(unmapped, np.arange(NUM), batch_size=4, residency=residency, num_threads=2)

    def fail(file: OpenFile, num_bytes: int, offset_bytes: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(OpenFile, "read_at", fail)
    with pytest.raises(CacheError, match=r"shard-\w+\.h5 cannot be read: Input/output error"):
        list(stream.epoch(0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch-stream")]


def test_device_residency_needs_a_device(cache):
    with pytest.raises(UsageError, match="needs a CUDA or MPS device"):
        BatchStream(cache, np.arange(3), batch_size=2, residency="device")


def gpu() -> torch.device:
    name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if name is None:
        pytest.skip("no CUDA and no MPS device")
    return torch.device(name)


def test_no_copy_that_may_outlive_its_source_is_begun_off_cuda(cache):
    """On MPS such a copy reads its source later, when the buffer may hold the next batch."""
    device = torch.device("meta")
    with UnfinishedCopies() as copies:
        batch = next(BatchStream(cache, np.arange(NUM), batch_size=4, device=device, residency="mapped").epoch(0))
        DeviceStore(cache.reader, np.arange(NUM), device).take(np.arange(4))
    assert batch.images_BHWC.device == batch.labels_B.device == device
    assert copies.begun == []


@pytest.mark.gpu
@pytest.mark.parametrize("residency", ["mapped", "ram", "device"])
def test_batches_arrive_whole_on_the_device(cache, stored, residency):
    device = gpu()
    stream = BatchStream(cache, np.arange(NUM), batch_size=4, seed=1, device=device, residency=residency)
    for epoch in range(5):
        for batch in stream.epoch(epoch):
            assert batch.images_BHWC.device.type == batch.labels_B.device.type == device.type
            # Immediate work on the consumer's stream must see the copied values.
            doubled = (batch.images_BHWC.to(torch.int32) * 2).cpu()
            assert np.array_equal(doubled.numpy(), stored[0][batch.indices_B.numpy()].astype(np.int32) * 2)


# --- resume ---------------------------------------------------------------------------------------------------


def steps(batches) -> list[list[int]]:
    return [batch.indices_B.tolist() for batch in batches]


@pytest.fixture
def make_stream(cache):
    return lambda **changes: BatchStream(cache, np.arange(NUM), **{"batch_size": 4, "seed": 1, **changes})


@pytest.mark.parametrize("stop", range(9))
def test_restored_stream_gives_the_rest_of_the_epoch_and_the_next(make_stream, stop):
    whole = [steps(make_stream().epoch(epoch)) for epoch in range(3)]
    first = make_stream()
    assert steps(first) == whole[0]
    batches = iter(first)
    taken = [next(batches).indices_B.tolist() for _ in range(stop)]
    second = make_stream(num_threads=1, prefetch=1)
    second.load_state_dict(first.state_dict())
    if stop < 8:
        assert taken + steps(second) == whole[1]
    assert steps(second) == whole[2]


def test_stream_restored_twice_within_an_epoch_and_at_its_end(make_stream):
    whole = steps(make_stream().epoch(0))
    state, seen = make_stream().state_dict(), []
    for take in (3, 2, 3):
        stream = make_stream()
        stream.load_state_dict(state)
        batches = iter(stream)
        seen += [next(batches).indices_B.tolist() for _ in range(take)]
        state = stream.state_dict()
    assert seen == whole
    stream = make_stream()
    stream.load_state_dict(state)
    # All batches were returned, though the loop over them had not ended yet.
    assert (state["epoch"], state["step"]) == (1, 0)
    assert steps(stream) == steps(make_stream().epoch(1))


def test_state_is_that_of_the_iterator_created_last(make_stream):
    stream = make_stream()
    earlier, later = stream.epoch(0), stream.epoch(5)
    next(later)
    list(earlier)
    assert (stream.state_dict()["epoch"], stream.state_dict()["step"]) == (5, 1)
    assert steps(later) == steps(make_stream().epoch(5, 1))
    assert steps(stream) == steps(make_stream().epoch(0))


def test_state_of_numpys_integers_is_plain_data(make_stream):
    stream = make_stream(seed=np.int64(1), batch_size=np.int64(4))
    next(stream.epoch(np.int64(2)))
    plain = make_stream()
    plain.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert steps(plain) == steps(make_stream().epoch(2, 1))


def test_state_holds_for_another_number_of_ranks(make_stream):
    alone = make_stream()
    batches = iter(alone)
    for _ in range(3):
        next(batches)
    ranks = [make_stream(rank=rank, world_size=2) for rank in range(2)]
    for stream in ranks:
        stream.load_state_dict(alone.state_dict())
    shares = zip(*(steps_masked(stream) for stream in ranks), strict=True)
    assert [[*one, *two] for one, two in shares] == steps(batches)


def steps_masked(batches) -> list[list[int]]:
    return [batch.indices_B[batch.mask_B].tolist() for batch in batches]


def test_state_is_plain_data_and_checked(make_stream, cache):
    state = make_stream().state_dict()
    assert state["epoch"] == state["step"] == 0
    for other, words in (
        (make_stream(seed=2), "seed"),
        (make_stream(batch_size=5), "batch_size"),
        (make_stream(drop_last=True), "drop_last"),
        (BatchStream(cache, np.arange(NUM)[::-1], batch_size=4, seed=1), "samples_digest"),
    ):
        with pytest.raises(UsageError, match=f"stream of another {words}"):
            other.load_state_dict(state)
    with pytest.raises(UsageError, match="no state of a stream"):
        make_stream().load_state_dict({"epoch": 1})
    with pytest.raises(UsageError, match="epoch"):
        make_stream().load_state_dict({**state, "epoch": 1.5})
    with pytest.raises(UsageError, match="no step 9"):
        make_stream().load_state_dict({**state, "step": 9})


def test_epochs_and_steps_out_of_range_are_refused(make_stream):
    for epoch, step in ((-1, 0), (0, -1), (0, 9)):
        with pytest.raises(UsageError, match="there is no step"):
            make_stream().epoch(epoch, step)
    assert steps(make_stream().epoch(0, 8)) == []


@pytest.mark.parametrize("micro_batches_per_rank", [1, 2])
def test_ranks_read_their_own_rows_and_together_each_sample_once(cache, monkeypatch, micro_batches_per_rank):
    """Mapped, as for sets larger than memory: a rank reads only the rows of its part of the batches."""
    read, gather = [], cache.reader.gather

    def watched(indices_B, out=None):
        read.append(indices_B.tolist())
        return gather(indices_B, out)

    monkeypatch.setattr(cache.reader, "gather", watched)
    by_rank = []
    for rank in (0, 1):
        stream = BatchStream(
            cache,
            np.arange(24),
            batch_size=8,
            seed=1,
            rank=rank,
            world_size=2,
            micro_batches_per_rank=micro_batches_per_rank,
            residency="mapped",
            num_threads=1,
        )
        read.clear()
        handed_out = [batch.indices_B.tolist() for batch in stream.epoch(3)]
        assert sorted(read) == sorted(handed_out)
        assert {len(numbers) for numbers in read} == {4 // micro_batches_per_rank}
        by_rank.append([number for numbers in read for number in numbers])
    assert [len(numbers) for numbers in by_rank] == [12, 12]
    assert sorted(by_rank[0] + by_rank[1]) == list(range(24))


def test_a_step_counts_when_all_its_micro_batches_were_returned(cache):
    stream = BatchStream(cache, np.arange(24), batch_size=8, seed=1, micro_batches_per_rank=4)
    expected = [batch.indices_B.tolist() for batch in stream.epoch(0)]
    assert (len(stream), len(expected)) == (3, 12)
    batches = stream.epoch(0)
    for _ in range(6):
        next(batches)
    state = stream.state_dict()
    assert state["step"] == 1
    again = BatchStream(cache, np.arange(24), batch_size=8, seed=1, micro_batches_per_rank=4)
    again.load_state_dict(state)
    assert [batch.indices_B.tolist() for batch in again] == expected[4:]


def test_memory_is_shared_by_the_processes_of_one_machine_only(cache, monkeypatch):
    """24 images of 16 px are 18 kB, a quarter of what is free for one process but not for 4."""
    monkeypatch.setattr("leukemia_data.streams.residency.free_ram_bytes", lambda: 100_000)
    given = {"batch_size": 8, "rank": 3, "world_size": 4}
    assert BatchStream(cache, np.arange(24), **given).residency.kind == "mapped"
    assert BatchStream(cache, np.arange(24), **given, num_processes=1).residency.kind == "ram"
