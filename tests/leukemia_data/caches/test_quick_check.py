"""A quick check finds all damage outside the pixels, without reading pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.shard import ShardImages
from leukemia_data.caches.verify import check_quickly
from leukemia_data.errors import CacheError

from ..helpers import build, cache_dir, flip_bit, make_source

SIZE = 16


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("quick")
    build(make_source(root / "source", 24), root / "cache", sizes_px=(SIZE,))
    return cache_dir(root / "cache", SIZE)


@pytest.fixture
def cache(pristine, tmp_path) -> Path:
    return shutil.copytree(pristine, tmp_path / "copy")


def damages_of(directory: Path) -> list[tuple[str, str]]:
    done: list[int] = []
    report = check_quickly(directory, num_threads=2, progress=done.append)
    assert sum(done) == report.num_samples == 24
    return [(damage.file, damage.problem) for damage in report.damages]


def test_a_sound_cache(cache):
    assert damages_of(cache) == []


@pytest.mark.parametrize("place", ["header", "rows"])
def test_a_bit_beside_the_pixels(cache, place):
    shard = load_manifest(cache).shards[1]
    flip_bit(cache / shard.name, 40 if place == "header" else shard.num_bytes - 5)
    assert damages_of(cache) == [(shard.name, "its header or its rows are not those that were written")]


def test_a_bit_of_a_pixel_is_left_to_the_full_check(cache):
    shard = load_manifest(cache).shards[1]
    flip_bit(cache / shard.name, shard.images_offset_bytes + 10)
    assert damages_of(cache) == []


def test_missing_short_and_swapped_files(cache):
    first, second, third, *_ = load_manifest(cache).shards
    (cache / first.name).unlink()
    with (cache / second.name).open("rb+") as file:
        file.truncate(second.num_bytes - 1)
    (cache / third.name).write_bytes(bytes(third.num_bytes))
    found = dict(damages_of(cache))
    assert found[first.name] == "is missing"
    assert found[second.name] == f"has {second.num_bytes - 1} bytes, the manifest says {second.num_bytes}"
    assert "header" in found[third.name]


def test_a_damaged_index(cache):
    index = load_manifest(cache).index
    flip_bit(cache / index.name, index.num_bytes // 2)
    [(file, problem)] = damages_of(cache)
    assert file == index.name
    assert "damaged" in problem


def test_a_forged_manifest(cache):
    path = cache / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert [file for file, _ in damages_of(cache)] == ["manifest.json"]


def test_no_manifest(tmp_path):
    with pytest.raises(CacheError, match="no cache"):
        check_quickly(tmp_path, num_threads=1, progress=lambda _: None)


def test_no_pixel_is_read(cache, monkeypatch):
    monkeypatch.setattr(ShardImages, "map", lambda self: pytest.fail("pixels were mapped"))
    assert damages_of(cache) == []
