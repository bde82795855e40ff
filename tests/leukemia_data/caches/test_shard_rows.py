"""Plain reads compared with h5py, on simulated network file systems."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.caches.cache import Cache, SampleReader, open_cache
from leukemia_data.caches.shard import ShardImages, shard_images
from leukemia_data.caches.shard_rows import OpenFile, PlainRows, open_rows
from leukemia_data.errors import CacheError

from ..helpers import OLD_NS, build, cache_dir, flip_bit, image_paths, make_source, named_shards, write_cell

NUM = 24


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with a source and its cache. Read it, never change it."""
    folder = tmp_path_factory.mktemp("rows")
    build(make_source(folder / "source", NUM), folder / "cache", sizes_px=(16,))
    return folder


@pytest.fixture
def cache(built, tmp_path) -> Cache:
    """A cache that a test may damage, in ``tmp_path / "cache"``, and its source beside it."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return open_cache(cache_dir(tmp_path / "cache"))


@pytest.fixture
def first(cache) -> ShardImages:
    return shard_images(cache.directory, cache.manifest.shards[0], cache.size_px)


def stored_rows(path: Path) -> np.ndarray:
    """The images of a shard as rows of bytes, by h5py alone."""
    with h5py.File(path, "r") as file:
        images = file["images"][()]
    return images.reshape(len(images), -1)


class FailingFile(OpenFile):
    """A file whose reads fail with an error number, or give a few bytes at a time."""

    def __init__(self, path: Path, number: int | None = None, max_bytes: int = 10**9) -> None:
        super().__init__(path)
        self._number, self._most_bytes = number, max_bytes

    def read_at(self, num_bytes: int, offset_bytes: int) -> bytes:
        if self._number is not None:
            raise OSError(self._number, os.strerror(self._number))
        return super().read_at(min(num_bytes, self._most_bytes), offset_bytes)


def opening(*files: Callable[[Path], OpenFile]) -> Callable[[Path], OpenFile]:
    """Opens the first time by the first, the second time by the second."""
    waiting = list(files)
    return lambda path: waiting.pop(0)(path)


def refuse_to_map(images: ShardImages) -> np.ndarray:
    raise CacheError(f"{images.path} cannot be mapped: {os.strerror(errno.ENODEV)}")


def test_plain_reads_give_what_h5py_gives(first):
    stored, rows = stored_rows(first.path), PlainRows(first)
    for number in range(len(stored)):
        assert np.array_equal(rows[number], stored[number])
    with pytest.raises(ValueError, match="read-only"):
        rows[0][:] = 0


def test_reads_in_pieces_are_put_together(first):
    rows = PlainRows(first, lambda path: FailingFile(path, max_bytes=100))
    assert np.array_equal(rows[1], stored_rows(first.path)[1])


def test_threads_read_at_once(first):
    stored, rows = stored_rows(first.path), PlainRows(first)
    numbers = np.random.default_rng(3).integers(0, len(stored), 400)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(rows.__getitem__, numbers.tolist()))
    assert np.array_equal(np.stack(found), stored[numbers])


def test_a_shard_that_cannot_be_mapped_is_read(first, monkeypatch):
    assert isinstance(open_rows(first), np.ndarray)
    monkeypatch.setattr(ShardImages, "map", refuse_to_map)
    rows = open_rows(first)
    assert isinstance(rows, PlainRows)
    assert np.array_equal(rows[2], stored_rows(first.path)[2])


def test_a_cache_on_a_file_system_without_maps_gives_the_same(cache, monkeypatch):
    mapped = SampleReader(cache).gather(np.arange(NUM))

    def no_map(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(np, "memmap", no_map)
    again = open_cache(cache.directory)
    reader = again.reader
    assert reader.num_unmapped == len(cache.manifest.shards) > 1
    assert again.table.equals(cache.table)
    assert np.array_equal(reader.gather(np.arange(NUM)), mapped)
    assert np.array_equal(reader.image(7), mapped[7])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).gather(np.arange(NUM)), mapped)


def test_stale_handle_is_opened_once_more(first):
    rows = PlainRows(first, opening(lambda path: FailingFile(path, errno.ESTALE), OpenFile))
    stored = stored_rows(first.path)
    assert np.array_equal(rows[1], stored[1])
    assert np.array_equal(rows[0], stored[0])


def test_handle_that_stays_stale_is_an_error(first):
    rows = PlainRows(first, lambda path: FailingFile(path, errno.ESTALE))
    with pytest.raises(CacheError, match=rf"{first.path.name} cannot be read: {os.strerror(errno.ESTALE)}"):
        rows[0]


def test_stale_handle_of_a_file_that_is_gone_is_an_error(first):
    rows = PlainRows(first, opening(lambda path: FailingFile(path, errno.ESTALE), OpenFile))
    first.path.unlink()
    with pytest.raises(CacheError, match="cannot be read: No such file"):
        rows[0]


def test_error_of_the_disk_names_the_file(first):
    rows = PlainRows(first, lambda path: FailingFile(path, errno.EIO))
    with pytest.raises(CacheError, match=rf"{first.path} cannot be read: {os.strerror(errno.EIO)}"):
        rows[0]


def test_file_that_ends_early_is_an_error(first):
    rows = PlainRows(first)
    # Never done by this project: a shard is replaced by renaming. Under a map this would kill the process.
    os.truncate(first.path, first.offset_bytes + 5)
    with pytest.raises(CacheError, match="ends before its images"):
        rows[0]


@pytest.mark.parametrize("damage", ["absent", "short", "header"])
def test_damaged_shard_is_not_read_plainly_either(first, damage, monkeypatch):
    if damage == "absent":
        first.path.unlink()
    elif damage == "short":
        first = replace(first, shape=(10**6, *first.shape[1:]))
    else:
        flip_bit(first.path, 9)
    monkeypatch.setattr(ShardImages, "map", refuse_to_map)
    with pytest.raises(CacheError, match="cannot be mapped"):
        open_rows(first)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files")
def test_plain_reader_keeps_its_snapshot_through_a_rebuild_and_gc(cache, tmp_path):
    reader = SampleReader(cache, open_rows=PlainRows)
    before = np.concatenate([stored_rows(cache.directory / name) for name in named_shards(cache.directory)])
    for number, path in enumerate(image_paths(tmp_path / "source")):
        write_cell(path, 900 + number, mtime_ns=OLD_NS + 5)
    build(tmp_path / "source", tmp_path / "cache", sizes_px=(16,))
    assert collect_garbage(tmp_path / "cache", remove=True).garbage
    assert np.array_equal(reader.gather(np.arange(NUM)).reshape(NUM, -1), before)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_files_are_closed_with_the_reader(cache):
    def num_open() -> int:
        return sum(os.path.realpath(path).startswith(str(cache.directory)) for path in Path("/proc/self/fd").iterdir())

    before = num_open()
    reader = SampleReader(cache, open_rows=PlainRows)
    assert num_open() == before + len(cache.manifest.shards)
    del reader
    assert num_open() == before
