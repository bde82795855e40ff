"""Batches of a cache in a real S3 server equal those from disk, before and after its shards are copied."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.caches.local_copies import LocalCopies
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.remote_cache import RemoteCache, open_remote_cache
from leukemia_data.errors import CacheError, StorageError, UsageError
from leukemia_data.stores.faults import Retry
from leukemia_data.stores.object_store import ObjectStore
from leukemia_data.stores.url import parse_url
from leukemia_data.streams.dataset import CachedCells
from leukemia_data.streams.loader import BatchStream

from ...forked_python import forked_python
from ...object_server import CORRUPTED, DROPPED, SERVER_ERROR, SLOW_DOWN, TRUNCATED, Fault, FaultyProxy, ObjectServer
from ..helpers import build, cache_dir, flip_bit, make_source, python_environment
from .pushed import NUM, SIZE, put_cache, shard_names


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("remote")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return cache_dir(root / "cache", SIZE)


@pytest.fixture(scope="module")
def local(directory) -> Cache:
    return open_cache(directory)


@pytest.fixture(scope="module")
def url(directory, object_server: ObjectServer) -> str:
    return put_cache(directory, object_server, f"{object_server.make_bucket()}/cache/cells/16-x")


def no_wait(seconds: float) -> None:
    """Retries without waits."""


def store_at(url: str, num_attempts: int = 4) -> ObjectStore:
    return ObjectStore(parse_url(url), Retry(num_attempts=num_attempts, sleep=no_wait))


def open_here(url: str, folder: Path, max_bytes: int | None = None) -> RemoteCache:
    return open_remote_cache(store_at(url), LocalCopies(folder / "stage", max_bytes))


def batches(cache: Cache, epoch: int, residency: str = "mapped", batch_size: int = 3) -> list[tuple[list, np.ndarray]]:
    stream = BatchStream(cache, np.arange(len(cache)), batch_size=batch_size, seed=5, residency=residency)
    return [(batch.indices_B.tolist(), batch.images_BHWC.numpy().copy()) for batch in stream.epoch(epoch)]


def require_equal(found: list, expected: list) -> None:
    assert [numbers for numbers, _ in found] == [numbers for numbers, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))


def wait_until_copied(cache: RemoteCache) -> None:
    deadline_s = time.monotonic() + 30
    while not all(cache.copies.holds(shard) for shard in cache.manifest.shards):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def copying_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shard-copies"]


# --- the same batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("residency", ["mapped", "ram"])
def test_first_and_second_epoch_are_those_of_the_local_cache(url, local, s3, tmp_path, residency):
    with open_here(url, tmp_path) as cache:
        assert cache.location == parse_url(url)
        require_equal(batches(cache, 0, residency), batches(local, 0))
        assert cache.reader.traffic.num_ranges > 0
        wait_until_copied(cache)
        before = cache.reader.traffic.num_ranges
        require_equal(batches(cache, 1, residency), batches(local, 1))
        assert cache.reader.traffic.num_ranges == before
        assert cache.reader.traffic.copied_bytes == sum(shard.num_bytes for shard in cache.manifest.shards)
    assert copying_threads() == []


def test_nothing_is_copied_before_samples_are_read(url, faulty_s3: FaultyProxy, tmp_path):
    with open_here(url, tmp_path) as cache:
        assert cache.table.labels.shape == (NUM,)
    assert faulty_s3.seen("shard-") == []


def test_a_shard_with_many_requested_rows_is_copied_instead_of_read_by_rows(url, local, faulty_s3, tmp_path):
    with open_here(url, tmp_path) as cache:
        found = cache.reader.gather(np.arange(8))
        assert np.array_equal(found, local.reader.gather(np.arange(8)))
        assert cache.reader.traffic.num_ranges < 8


def test_dataset_and_single_images(url, local, s3, tmp_path):
    with open_here(url, tmp_path) as cache:
        assert np.array_equal(cache.reader.image(17), local.reader.image(17))
        remote, near = (CachedCells(each, np.array([3, 30, 9])) for each in (cache, local))
        for one, other in zip(remote.__getitems__([0, 1, 2]), near.__getitems__([0, 1, 2]), strict=True):
            assert np.array_equal(one.image_CHW.numpy(), other.image_CHW.numpy())
        with pytest.raises(UsageError, match=r"0 \.\.\. 39"):
            cache.reader.image(NUM)


def test_reader_pickles_into_another_process(url, local, s3, tmp_path):
    with open_here(url, tmp_path) as cache:
        copy = pickle.loads(pickle.dumps(cache.reader))
        numbers = np.array([4, 38, 21])
        assert np.array_equal(copy.gather(numbers), local.reader.gather(numbers))
        copy.close()


# --- the local copies ------------------------------------------------------------------------------------------------


_READ_ALL = """
import sys
import numpy as np
from pathlib import Path
from leukemia_data.caches.opening import LocalCopiesChoice, open_chosen_cache
from leukemia_data.stores.url import parse_url
with open_chosen_cache(parse_url(sys.argv[1]), LocalCopiesChoice(Path(sys.argv[2]))) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    print(int(cache.reader.gather(np.arange(len(cache))).astype(np.int64).sum()))
"""


def test_processes_share_local_copies_and_fetch_each_shard_once(url, local, faulty_s3, tmp_path):
    command = [*forked_python(), "-c", _READ_ALL, url, str(tmp_path / "stage")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=python_environment(), **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    sums = [process.communicate(timeout=60)[0] for process in processes]
    assert sums == [f"{local.reader.gather(np.arange(NUM)).astype(np.int64).sum()}\n"] * 2
    for shard in local.manifest.shards:
        assert len(faulty_s3.seen(rf"GET .*{shard.name} bytes=0-{shard.num_bytes - 1}$")) == 1


def test_versions_of_a_cache_share_their_shards(url, directory, faulty_s3, tmp_path, local):
    with open_here(url, tmp_path) as cache:
        cache.reader.gather(np.arange(NUM))
    other = put_cache(directory, faulty_s3.server, f"{faulty_s3.server.make_bucket()}/elsewhere")
    with open_here(other, tmp_path) as cache:
        found = cache.reader.gather(np.arange(NUM))
    assert np.array_equal(found, local.reader.gather(np.arange(NUM)))
    assert faulty_s3.seen("GET .*elsewhere/shard-") == []


def test_stage_stays_within_its_bound_and_the_rest_is_read_by_ranges(url, local, s3, tmp_path):
    shards = local.manifest.shards
    most = local.manifest.index.num_bytes + sum(shard.num_bytes for shard in shards[:2])
    with open_here(url, tmp_path, most) as cache:
        for epoch in range(2):
            require_equal(batches(cache, epoch), batches(local, epoch))
            assert sum(path.stat().st_size for path in (tmp_path / "stage").glob("*") if path.is_file()) <= most
        found = cache.reader.gather(np.arange(NUM))
    assert np.array_equal(found, local.reader.gather(np.arange(NUM)))
    staged = [shard for shard in shards if cache.copies.holds(shard)]
    assert 1 <= len(staged) < len(shards)


def test_damaged_copied_file_is_fetched_anew(url, local, s3, tmp_path):
    with open_here(url, tmp_path) as cache:
        cache.reader.gather(np.arange(NUM))
    shard = local.manifest.shards[0]
    flip_bit(tmp_path / "stage" / shard.name, 40)
    flip_bit(tmp_path / "stage" / local.manifest.index.name, 40)
    with open_here(url, tmp_path) as cache:
        found = cache.reader.gather(np.arange(NUM))
        assert np.array_equal(found, local.reader.gather(np.arange(NUM)))
        assert cache.copies.is_intact(shard)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("compressed")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,), codec="zstd")
    return cache_dir(root / "cache", SIZE)


def test_compressed_shards_give_the_same_batches_by_ranges_and_copied(compressed, local, object_server, s3, tmp_path):
    url = put_cache(compressed, object_server, f"{object_server.make_bucket()}/compressed")
    index_bytes = load_manifest(compressed).index.num_bytes
    with open_here(url, tmp_path / "small", index_bytes) as cache:
        require_equal(batches(cache, 0), batches(local, 0))
        assert cache.reader.traffic.num_ranges == NUM
    with open_here(url, tmp_path / "large") as cache:
        for epoch in range(2):
            require_equal(batches(cache, epoch), batches(local, epoch))
        assert all(cache.copies.holds(shard) for shard in cache.manifest.shards)
        assert cache.reader.num_unmapped == 0


def test_the_error_of_damaged_lengths_names_the_shard(compressed, object_server, s3, tmp_path):
    url = put_cache(compressed, object_server, f"{object_server.make_bucket()}/damaged")
    manifest = load_manifest(compressed)
    entry = manifest.shards[1]
    store = store_at(url)
    data = bytearray(store.read(entry.name))
    data[entry.chunk_lengths_offset_bytes] ^= 1
    store.write(entry.name, bytes(data))
    with (
        open_here(url, tmp_path, manifest.index.num_bytes) as cache,
        pytest.raises(StorageError, match=rf"{entry.name} is damaged: the lengths"),
    ):
        cache.reader.image(int(cache.first_rows[1]))


def test_compressed_shard_that_is_damaged_in_the_stage_is_fetched_anew(compressed, local, object_server, s3, tmp_path):
    url = put_cache(compressed, object_server, f"{object_server.make_bucket()}/compressed")
    with open_here(url, tmp_path) as cache:
        cache.reader.gather(np.arange(NUM))
        shard = cache.manifest.shards[0]
    staged = tmp_path / "stage" / shard.name
    flip_bit(staged, shard.images_offset_bytes)
    with open_here(url, tmp_path) as cache:
        for number in range(2):
            assert np.array_equal(cache.reader.image(number), local.reader.image(number))
        wait_until_copied(cache)
        assert np.array_equal(cache.reader.gather(np.arange(NUM)), local.reader.gather(np.arange(NUM)))
        assert cache.copies.is_intact(shard)


def test_lengths_that_arrive_damaged_are_read_once_more(compressed, local, faulty_s3, tmp_path):
    url = put_cache(compressed, faulty_s3.server, f"{faulty_s3.server.make_bucket()}/compressed")
    with open_here(url, tmp_path, load_manifest(compressed).index.num_bytes) as cache:
        faulty_s3.faults.append(Fault(CORRUPTED, "GET .*shard-", times=1))
        assert np.array_equal(cache.reader.image(0), local.reader.image(0))
    assert faulty_s3.num_failed == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_reader_raises_the_limit_of_open_files_as_it_needs(url, s3, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("leukemia_data.caches.range_reader.allow_open_files", asked.append)
    with open_here(url, tmp_path) as cache:
        cache.reader.image(0)
        assert asked == [len(cache.manifest.shards)]


# --- faults ---------------------------------------------------------------------------------------------------


def test_faulty_network_gives_the_same_batches(url, local, faulty_s3, tmp_path):
    kinds = (SERVER_ERROR, SLOW_DOWN, TRUNCATED, DROPPED, CORRUPTED)
    faulty_s3.faults += [Fault(kind, "GET .*shard-", share=0.06) for kind in kinds]
    store = store_at(url, num_attempts=9)
    with open_remote_cache(store, LocalCopies(tmp_path / "stage")) as cache:
        require_equal(batches(cache, 0), batches(local, 0))
    assert faulty_s3.num_failed > 0


def test_the_error_of_a_damaged_row_names_it(url, directory, local, faulty_s3, tmp_path):
    name = shard_names(directory)[1]
    faulty_s3.faults.append(Fault(CORRUPTED, f"GET .*{name}"))
    number = int(local.first_rows[1])
    with (
        open_here(url, tmp_path, max_bytes=local.manifest.index.num_bytes) as cache,
        pytest.raises(StorageError, match=rf"{url}/{name} is damaged: image 0 in it fails its CRC"),
    ):
        cache.reader.image(number)


def test_object_with_other_bytes_stops_the_stream_with_its_name(url, directory, local, faulty_s3, tmp_path):
    name = shard_names(directory)[1]
    faulty_s3.faults.append(Fault(CORRUPTED, f"GET .*{name}"))
    with open_here(url, tmp_path) as cache, pytest.raises(StorageError, match=rf"{name} is damaged: its digest is"):
        cache.reader.gather(np.arange(NUM))
    assert not cache.copies.holds(local.manifest.shards[1])
    assert list((tmp_path / "stage").glob("*.partial")) == []


def test_the_error_of_a_truncated_object_names_it(directory, local, s3, tmp_path):
    name, own = shard_names(directory)[2], f"{s3.make_bucket()}/c"
    put_cache(directory, s3, own)
    s3.write(f"{own}/{name}", (directory / name).read_bytes()[:1000])
    with open_here(own, tmp_path) as cache, pytest.raises(StorageError, match=name):
        cache.reader.gather(np.arange(NUM))


def test_error_of_a_copying_thread_reaches_the_reader_of_batches(url, directory, local, faulty_s3, tmp_path):
    name = shard_names(directory)[0]
    with open_here(url, tmp_path) as cache:
        # Only who wants a whole object asks for its size.
        faulty_s3.faults.append(Fault(SERVER_ERROR, f"HEAD .*{name}"))
        assert np.array_equal(cache.reader.image(0), local.reader.image(0))
        for thread in copying_threads():
            thread.join(30)
        with pytest.raises(StorageError, match=name):
            cache.reader.image(0)
    assert copying_threads() == []


def test_a_missing_cache_is_an_error(s3, tmp_path):
    bucket = s3.make_bucket()
    with pytest.raises(CacheError, match=rf"{bucket}/nothing holds no manifest.json"):
        open_here(f"{bucket}/nothing", tmp_path)
    with pytest.raises((CacheError, StorageError), match="no-such-bucket"):
        open_here("s3://no-such-bucket/cache", tmp_path)


def test_no_room_for_the_index_is_an_error(url, s3, tmp_path):
    with pytest.raises(CacheError, match=r"no room for the index .*--local-copies-gb"):
        open_here(url, tmp_path, max_bytes=10)
