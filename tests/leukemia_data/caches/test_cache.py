from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.caches.cache import Cache, SampleReader, find_cache_dirs, open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.errors import CacheError, UsageError

from ..helpers import OLD_NS, build, cache_dir, image_paths, make_source, named_shards, write_cell


@pytest.fixture
def root(tmp_path) -> Path:
    build(make_source(tmp_path / "source", 24), tmp_path / "cache")
    return tmp_path / "cache"


def stored_images(directory: Path) -> np.ndarray:
    """All images in sample order, by h5py alone."""
    parts = []
    for name in named_shards(directory):
        with h5py.File(directory / name, "r") as file:
            parts.append(file["images"][()])
    return np.concatenate(parts)


def test_reader_gives_what_h5py_gives(root):
    for size in (16, 24):
        cache = open_cache(cache_dir(root, size))
        reader, stored = SampleReader(cache), stored_images(cache.directory)
        assert len(cache) == len(stored) == 24
        assert cache.size_px == size
        assert np.array_equal(np.stack([reader.image(n) for n in range(24)]), stored)
        numbers = np.array([23, 0, 7, 7, 12])
        assert np.array_equal(reader.gather(numbers), stored[numbers])
        buffer = np.zeros((5, size, size, 3), np.uint8)
        assert reader.gather(numbers, out=buffer) is buffer
        assert np.array_equal(buffer, stored[numbers])
        assert reader.gather(np.empty(0, np.int64)).shape == (0, size, size, 3)


def test_rows_and_images_belong_together(root):
    cache = open_cache(cache_dir(root))
    sums = stored_images(cache.directory).astype(np.uint64).sum(axis=(1, 2))
    assert np.array_equal(cache.table.channel_sums, sums)
    assert cache.first_rows.tolist()[-1] == 24


@pytest.mark.parametrize("number", [-25, -1, 24, 1000])
def test_number_of_no_sample_is_refused(root, number):
    with pytest.raises(UsageError, match=r"number must be in 0 \.\.\. 23"):
        SampleReader(open_cache(cache_dir(root))).image(number)


def test_images_cannot_be_written(root):
    with pytest.raises(ValueError, match="read-only"):
        SampleReader(open_cache(cache_dir(root))).image(0)[:] = 0


def test_pickle_carries_no_pixels(root):
    reader = SampleReader(open_cache(cache_dir(root)))
    reader.gather(np.arange(24))
    data = pickle.dumps(reader)
    assert len(data) < 24 * 16 * 16 * 3 / 4
    assert np.array_equal(pickle.loads(data).gather(np.arange(24)), reader.gather(np.arange(24)))


@pytest.mark.parametrize("collect", [False, True])
def test_open_reader_keeps_its_snapshot_through_a_rebuild(root, tmp_path, collect):
    if collect and os.name == "nt":
        pytest.skip("Windows keeps mapped files")
    cache = open_cache(cache_dir(root))
    reader, before = SampleReader(cache), stored_images(cache.directory)
    for number, path in enumerate(image_paths(tmp_path / "source")):
        write_cell(path, 900 + number, mtime_ns=OLD_NS + 5)
    build(tmp_path / "source", root)
    if collect:
        assert collect_garbage(root, remove=True).garbage
    assert np.array_equal(reader.gather(np.arange(24)), before)
    fresh = open_cache(cache_dir(root))
    assert not np.array_equal(SampleReader(fresh).gather(np.arange(24)), before)


def test_reading_a_cache_after_gc_removed_its_shards_is_an_error(root, tmp_path):
    cache = open_cache(cache_dir(root))
    write_cell(image_paths(tmp_path / "source")[0], 900, mtime_ns=OLD_NS + 5)
    build(tmp_path / "source", root)
    collect_garbage(root, remove=True)
    with pytest.raises(CacheError, match=r"shard-\w+\.h5 cannot be mapped"):
        SampleReader(cache)


def test_moved_cache_opens(root, tmp_path):
    directory = cache_dir(root).rename(tmp_path / "elsewhere")
    assert len(open_cache(directory)) == 24


@pytest.mark.parametrize("damage", ["missing", "truncated", "index", "manifest"])
def test_incomplete_cache_is_refused(root, damage):
    directory = cache_dir(root)
    shard, index = sorted(named_shards(directory))[0], load_manifest(directory).index.name
    if damage == "missing":
        (directory / shard).unlink()
    elif damage == "truncated":
        (directory / shard).write_bytes((directory / shard).read_bytes()[:-1])
    else:
        (directory / {"index": index, "manifest": "manifest.json"}[damage]).unlink()
    with pytest.raises(CacheError, match=str(directory.name)):
        open_cache(directory)


def test_all_caches_are_found_and_nothing_else(root, tmp_path):
    build(tmp_path / "source", root, name="second", sizes_px=(16,))
    found = [cache_dir(root), cache_dir(root, 24), cache_dir(root, 16, "second")]
    (root / "cells" / "16-unfinished").mkdir()
    assert find_cache_dirs(root) == found
    assert find_cache_dirs(found[0]) == found[:1]
    assert find_cache_dirs(tmp_path / "absent") == []


def test_cache_is_a_value(root):
    cache = open_cache(cache_dir(root))
    assert isinstance(cache, Cache)
    assert cache.pixels_per_image == 256
    assert cache.manifest == load_manifest(cache.directory)


def test_repr_of_a_cache_is_one_line(root):
    cache = open_cache(cache_dir(root))
    assert repr(cache) == (
        f"Cache(name=cells, size=16 px, images=24 (blast 12, normal 12), recipe=tiny, location={cache_dir(root)})"
    )


def test_names_cannot_break_the_line_or_the_table(root):
    cache = open_cache(cache_dir(root))
    cache = replace(cache, manifest=replace(cache.manifest, name="<b>\nA & B"))
    assert repr(cache).count("\n") == 0
    table = cache._repr_html_()
    assert "&lt;b&gt;" in table
    assert "A &amp; B" in table
    assert "<b>" not in table
    assert len(table) < 1000


def test_gather_refuses_a_buffer_that_it_could_not_fill(root):
    reader = open_cache(cache_dir(root)).reader
    size = reader.size_px
    columns_first = np.empty((2, size, size, 3), np.uint8).swapaxes(1, 2)
    for wrong in (columns_first, np.empty((3, size, size, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"reshape|copy"):
            reader.gather(np.array([0, 1]), out=wrong)


def test_samples_that_do_not_exist_are_refused(root):
    cache = open_cache(cache_dir(root))
    for number in (-1, len(cache)):
        with pytest.raises(UsageError, match=r"in 0 \.\.\. 23"):
            cache.reader.gather(np.array([0, number]))
        with pytest.raises(UsageError, match=r"in 0 \.\.\. 23"):
            cache.reader.image(number)
