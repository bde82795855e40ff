"""The harness itself: it has to notice what it looks for."""

from __future__ import annotations

import shutil

import pytest

from ..leukemia_data.helpers import flip_bit
from .build_ground import SIZES, BuildGround, left_after_gc, make_ground, wrong_caches
from .io_faults import run_ldata


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> BuildGround:
    return make_ground(tmp_path_factory.mktemp("ground"), run_ldata, num_images=16)


@pytest.fixture
def cache(ground, tmp_path):
    return ground.fresh_cache(tmp_path / "cache", with_first=True)


def test_an_undisturbed_cache_has_no_problems(ground, cache):
    assert wrong_caches(cache, [ground.first_files], must_open=True) == []
    assert left_after_gc(cache, ground.first_files) == []


def test_a_cache_of_another_state_is_noticed(ground, cache):
    assert len(wrong_caches(cache, [ground.second_files], must_open=True)) == len(SIZES)
    assert left_after_gc(cache, ground.second_files) != []


def test_a_flipped_bit_is_noticed(ground, cache):
    shard = next(cache.rglob("shard-*.h5"))
    flip_bit(shard, shard.stat().st_size // 2)
    assert any(shard.name in problem for problem in wrong_caches(cache, [ground.first_files], must_open=True))
    assert left_after_gc(cache, ground.first_files) == [f"{shard.relative_to(cache).as_posix()} has other bytes"]


def test_a_lost_cache_is_noticed(ground, cache):
    shutil.rmtree(next(cache.rglob("manifest.json")).parent)
    assert wrong_caches(cache, [ground.first_files], must_open=True) == ["1 of 2 earlier caches are left"]


def test_what_gc_leaves_is_noticed(ground, cache):
    manifest = next(cache.rglob("manifest.json"))
    (manifest.parent / "left.tmp").write_bytes(b"")
    left = (manifest.parent / "left.tmp").relative_to(cache).as_posix()
    assert left_after_gc(cache, ground.first_files) == [f"{left} is left over"]
