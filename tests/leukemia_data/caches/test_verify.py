"""Every kind of damage is found and named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

from leukemia_data.caches import verify as verify_module
from leukemia_data.caches.manifest import ShardEntry, load_manifest
from leukemia_data.caches.verify import VerifyReport, changed_shards, verify_cache
from leukemia_data.errors import CacheError

from ..helpers import build, cache_dir, flip_bit, make_source, write_cell

SIZE = 16
IMAGE_BYTES = SIZE * SIZE * 3


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    build(make_source(root / "source", 24), root / "cache", sizes_px=(SIZE,))
    return cache_dir(root / "cache", SIZE)


@pytest.fixture
def cache(pristine, tmp_path) -> Path:
    return shutil.copytree(pristine, tmp_path / "copy")


def verify(directory: Path) -> VerifyReport:
    return verify_cache(directory, num_threads=2, progress=lambda _: None)


def shards(directory: Path) -> tuple[ShardEntry, ...]:
    return load_manifest(directory).shards


def ids_of(directory: Path, shard: ShardEntry) -> list[str]:
    with h5py.File(directory / shard.name, "r") as file:
        return file["ids"].asstr()[()].tolist()


def test_clean_cache(cache):
    counts: list[int] = []
    report = verify_cache(cache, num_threads=2, progress=counts.append)
    assert report.damages == ()
    assert (report.num_samples, sum(counts)) == (24, 24)
    assert report.num_shards == len(counts) == len(shards(cache))
    assert report.num_bytes == sum(path.stat().st_size for path in cache.glob("*.h5"))


def test_flipped_bit_anywhere_in_a_shard_is_found(cache):
    shard = shards(cache)[0]
    pixels_end = shard.images_offset_bytes + shard.num_samples * IMAGE_BYTES
    header = range(0, shard.images_offset_bytes, 1021)
    tail = range(pixels_end, shard.num_bytes, 499)
    for offset in [*header, shard.images_offset_bytes - 1, *tail, shard.num_bytes - 1]:
        flip_bit(cache / shard.name, offset, offset % 8)
        [damage] = verify(cache).damages
        assert (damage.file, damage.record_ids) == (shard.name, ())
        assert "digest" in damage.problem
        flip_bit(cache / shard.name, offset, offset % 8)
    assert verify(cache).damages == ()


@pytest.mark.parametrize("rows", [[0], [2], [0, 1, 3], [-1]])
def test_flipped_bits_in_pixels_name_the_images_they_hit(cache, rows):
    shard = next(shard for shard in shards(cache) if shard.num_samples > 4)
    ids = ids_of(cache, shard)
    for number, row in enumerate(row % shard.num_samples for row in rows):
        place = [0, IMAGE_BYTES // 2, IMAGE_BYTES - 1][number % 3]
        flip_bit(cache / shard.name, shard.images_offset_bytes + row * IMAGE_BYTES + place, 7)
    digest, pixels = verify(cache).damages
    assert digest.file == pixels.file == shard.name
    assert pixels.record_ids == tuple(ids[row] for row in rows)
    assert f"{len(rows)} images fail their CRC" in pixels.problem


def test_flipped_bit_in_the_index_is_found_and_the_shards_still_checked(cache):
    index = load_manifest(cache).index
    shard = shards(cache)[1]
    for offset in range(0, index.num_bytes, 509):
        flip_bit(cache / index.name, offset, 2)
        assert [damage.file for damage in verify(cache).damages] == [index.name]
        flip_bit(cache / index.name, offset, 2)
    flip_bit(cache / index.name, 100)
    flip_bit(cache / shard.name, shard.images_offset_bytes)
    assert {damage.file for damage in verify(cache).damages} == {index.name, shard.name}


def test_reformatted_manifest_is_a_finding(cache):
    path = cache / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    [damage] = verify(cache).damages
    assert (damage.file, "they mean the same" in damage.problem) == ("manifest.json", True)


def test_older_manifest_is_an_older_cache_until_gc_has_taken_its_shards(cache):
    """Whole, an older state is a cache like any other; what it lacks is named."""
    older = (cache / "manifest.json").read_bytes()
    before = load_manifest(cache).file_names()
    source = make_source(cache.parent / "source", 24)
    write_cell(next(source.rglob("*.png")), 99)
    build(source, cache.parent / "other", sizes_px=(SIZE,))
    newer = cache_dir(cache.parent / "other", SIZE)
    for path in newer.glob("*.h5"):
        shutil.copyfile(path, cache / path.name)
    assert verify(cache).damages == ()
    gone = before - load_manifest(newer).file_names()
    for name in gone:
        (cache / name).unlink()
    (cache / "manifest.json").write_bytes(older)
    assert {damage.file for damage in verify(cache).damages} == gone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("size_px", 17),
        ("fingerprint", "0" * 64),
        ("classes", ["normal", "blast"]),
        ("num_samples", 25),
        ("quarantined", [{"record_id": "a.png", "reason": "b"}]),
        ("library_versions", {}),
        ("source_state", None),
    ],
)
def test_edited_manifest_field_is_found(cache, field, value):
    path = cache / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content[field] != value
    path.write_text(json.dumps({**content, field: value}), encoding="utf-8")
    with pytest.raises(CacheError, match=r"manifest\.json is damaged"):
        verify(cache)


def test_swapped_shards_are_both_found(cache):
    one, two = (shard for shard in shards(cache)[:2])
    (cache / one.name).rename(cache / "x")
    (cache / two.name).rename(cache / one.name)
    (cache / "x").rename(cache / two.name)
    assert {damage.file for damage in verify(cache).damages} == {one.name, two.name}


def test_shard_of_another_cache_is_found(cache, tmp_path):
    source = make_source(tmp_path / "source", 24)
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        write_cell(path, 500 + number)
    build(source, tmp_path / "other", sizes_px=(SIZE,))
    other = cache_dir(tmp_path / "other", SIZE)
    mine, foreign = shards(cache)[0], shards(other)[0]
    assert mine.num_bytes == foreign.num_bytes
    shutil.copyfile(other / foreign.name, cache / mine.name)
    damages = verify(cache).damages
    assert {damage.file for damage in damages} == {mine.name}
    assert any(set(damage.record_ids) == set(ids_of(other, foreign)) for damage in damages)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_truncated_shard_is_found(cache, keep):
    path = cache / shards(cache)[0].name
    path.write_bytes(path.read_bytes()[:keep])
    [damage] = verify(cache).damages
    assert (damage.file, "bytes, the manifest says" in damage.problem) == (path.name, True)


def test_longer_shard_is_found(cache):
    path = cache / shards(cache)[0].name
    path.write_bytes(path.read_bytes() + b"x")
    assert len(verify(cache).damages) == 1


def test_missing_files_are_found(cache):
    shard, index = shards(cache)[0].name, load_manifest(cache).index.name
    (cache / shard).unlink()
    (cache / index).unlink()
    assert {(damage.file, "missing" in damage.problem) for damage in verify(cache).damages} == {
        (shard, True),
        (index, True),
    }


def test_no_manifest_is_no_cache(cache):
    (cache / "manifest.json").unlink()
    with pytest.raises(CacheError, match=r"holds no manifest\.json"):
        verify(cache)


def test_disk_that_cannot_be_read_is_a_finding(cache, monkeypatch):
    digest, bad = verify_module.file_digest, shards(cache)[1].name

    def fail(path: Path) -> str:
        if path.name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(path)

    monkeypatch.setattr(verify_module, "file_digest", fail)
    [damage] = verify(cache).damages
    assert damage.file == bad
    assert "cannot be read" in damage.problem


def test_rows_of_a_damaged_index_are_read_from_shards_whose_rows_are_intact(cache):
    shard, index = shards(cache)[0], load_manifest(cache).index
    ids = ids_of(cache, shard)
    flip_bit(cache / index.name, 100)
    flip_bit(cache / shard.name, shard.images_offset_bytes + 1)
    assert ids[0] in {record_id for damage in verify(cache).damages for record_id in damage.record_ids}


def test_changed_shards_are_those_with_other_bytes(cache):
    one, two, three = shards(cache)[:3]
    flip_bit(cache / one.name, one.images_offset_bytes)
    (cache / two.name).unlink()
    told: list[int] = []
    found = changed_shards(cache, [one, two, three], num_threads=2, progress=told.append)
    assert [(damage.file, damage.record_ids) for damage in found] == [(one.name, ()), (two.name, ())]
    assert sum(told) == one.num_bytes + two.num_bytes + three.num_bytes
