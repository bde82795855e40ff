"""Looks of images in caches: computed by builds, and added to caches of earlier releases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.building.repair import convert, repair_cache
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import find_current, load_manifest, save_manifest
from leukemia_data.caches.verify import verify_cache
from leukemia_data.decoding.look import image_look
from leukemia_data.sources.source import list_source

from ..helpers import (
    as_earlier_release,
    build,
    cache_dir,
    flip_bit,
    image_paths,
    make_plan,
    make_source,
    run_plan,
    work_done,
)

NUM, SIZE = 20, 16


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source", NUM)


def contents(directory: Path) -> dict[str, bytes]:
    names = load_manifest(directory).file_names()
    return {name: (directory / name).read_bytes() for name in names}


@pytest.fixture
def earlier(source, tmp_path) -> Path:
    build(source, tmp_path / "cache", sizes_px=(SIZE,))
    directory = cache_dir(tmp_path / "cache", SIZE)
    as_earlier_release(directory)
    return directory


def test_a_cache_has_the_looks_of_the_decoded_originals_at_every_size(source, tmp_path):
    build(source, tmp_path / "cache")
    expected = {
        path.relative_to(source).as_posix(): image_look(cv2.imread(str(path))[..., ::-1].copy())
        for path in image_paths(source)
    }
    for size_px in (16, 24):
        cache = open_cache(cache_dir(tmp_path / "cache", size_px))
        assert cache.manifest.has_looks
        assert cache.table.looks.any(axis=1).all()
        for record_id, look in zip(cache.table.id_texts, cache.table.looks, strict=True):
            np.testing.assert_array_equal(look, expected[record_id])


def test_copied_images_keep_their_looks(source, tmp_path):
    build(source, tmp_path / "cache")
    before = open_cache(cache_dir(tmp_path / "cache", 16)).table
    moved = image_paths(source)[0]
    moved.rename(moved.with_name("moved.png"))
    assert work_done(build(source, tmp_path / "cache"))[0] == 0
    after = open_cache(cache_dir(tmp_path / "cache", 16)).table
    assert sorted(map(bytes, after.looks)) == sorted(map(bytes, before.looks))


def test_an_earlier_release_s_cache_opens_without_looks(earlier):
    cache = open_cache(earlier)
    assert not cache.manifest.has_looks
    assert not cache.table.looks.any()
    assert len(set(cache.table.near_groups.tolist())) == NUM
    assert verify_cache(earlier, num_threads=1, progress=lambda _: None).damages == ()


def test_looks_of_a_later_release_are_not_compared(earlier, source, tmp_path):
    build(source, tmp_path / "cache", sizes_px=(SIZE,))
    save_manifest(earlier, replace(load_manifest(earlier), looks_version=99))
    assert not open_cache(earlier).table.looks.any()


def test_a_build_makes_an_earlier_release_s_cache_anew_and_says_why(earlier, source, tmp_path):
    state = load_manifest(earlier).source_state
    assert find_current(earlier, state) is None
    plan = make_plan(source, tmp_path / "cache", sizes_px=(SIZE,))
    assert sum("kept no looks" in note for note in plan.notes) == 1
    assert work_done(run_plan(plan)) == (NUM, 0, 0)
    build(source, tmp_path / "fresh", sizes_px=(SIZE,))
    fresh = cache_dir(tmp_path / "fresh", SIZE)
    assert {entry.name for entry in load_manifest(earlier).shards} == {e.name for e in load_manifest(fresh).shards}
    assert find_current(earlier, state) is not None
    again = make_plan(source, tmp_path / "cache", sizes_px=(SIZE,))
    assert not any("looks" in note for note in again.notes)
    assert work_done(run_plan(again)) == (0, 0, NUM)


@pytest.mark.parametrize("damaged", ["shard", "index"])
def test_repair_gives_an_earlier_release_s_cache_the_same_bytes(earlier, source, damaged):
    before = contents(earlier)
    manifest = load_manifest(earlier)
    flip_bit(earlier / (manifest.shards[0].name if damaged == "shard" else manifest.index.name), 5000)
    report = repair_cache(earlier, lambda: list_source([source]).records, num_threads=1, progress=lambda _: None)
    assert report.left.damages == ()
    after = contents(earlier)
    for name in before.keys() - {"manifest.json", manifest.index.name}:
        assert after[name] == before[name]
    assert not load_manifest(earlier).has_looks


def test_conversion_keeps_what_there_is(earlier, source, tmp_path):
    pytest.importorskip("zstandard")
    report = convert(earlier, "zstd", num_threads=1)
    assert not report.after.has_looks
    build(source, tmp_path / "cache", sizes_px=(SIZE,))
    looks = open_cache(earlier).table.looks.copy()
    assert looks.any(axis=1).all()
    assert convert(earlier, "raw", num_threads=1).after.has_looks
    np.testing.assert_array_equal(open_cache(earlier).table.looks, looks)
