"""Conversions between codecs: same pixels, same bytes after converting back, and atomic commits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.building import repair as convert_module
from leukemia_data.building.garbage import collect_garbage
from leukemia_data.building.repair import convert
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest, source_state
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.files.lock import lock_cache
from leukemia_data.records.fingerprint import lines_digest
from leukemia_data.sources.source import list_source

from ..consoles import ListConsole
from ..helpers import adopt_states, build, cache_dir, file_states, flip_bit, make_source, named_shards, work_done

NUM, SIZE = 24, 16


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("convert")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return root


@pytest.fixture
def place(pristine, tmp_path) -> Path:
    copy = Path(shutil.copytree(pristine, tmp_path / "copy"))
    adopt_states(copy / "source", copy / "cache")
    return copy


@pytest.fixture
def cache(place) -> Path:
    return cache_dir(place / "cache")


def pixels(directory: Path) -> np.ndarray:
    with open_cache(directory) as cache:
        return cache.reader.gather(np.arange(len(cache)))


def is_sound(directory: Path) -> bool:
    return verify_cache(directory, num_threads=1, progress=lambda _: None).damages == ()


def test_there_and_back_again_gives_the_same_bytes(cache):
    raw, manifest, images = named_shards(cache), load_manifest(cache), pixels(cache)
    console = ListConsole()
    report = convert(cache, "zstd", num_threads=2, console=console)
    assert (report.directory, report.before, report.after) == (cache, manifest, load_manifest(cache))
    assert [bar.done for bar in console.bars] == [NUM]
    assert report.after.codec == "zstd"
    assert not raw.keys() & named_shards(cache).keys()
    assert np.array_equal(pixels(cache), images)
    assert is_sound(cache)
    collect_garbage(cache, remove=True)
    convert(cache, "raw")
    assert named_shards(cache) == raw
    assert load_manifest(cache) == manifest


def test_a_build_after_it_has_nothing_to_do(place, cache):
    convert(cache, "zstd")
    listing = list_source([place / "source"])
    assert load_manifest(cache).source_state == source_state(listing.classes, listing.records)
    summary = build(place / "source", place / "cache", sizes_px=(SIZE,))
    assert (work_done(summary), load_manifest(cache).codec) == ((0, 0, NUM), "zstd")


def test_bytes_are_those_of_a_build(place, cache):
    convert(cache, "zstd")
    build(place / "source", place / "built", sizes_px=(SIZE,), codec="zstd")
    assert named_shards(cache) == named_shards(cache_dir(place / "built"))


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_into_another_folder_leaves_the_cache_alone(place, cache, codec):
    before = file_states(cache)
    report = convert(cache, codec, out=place / "deep" / "other")
    assert file_states(cache) == before
    assert report.directory == place / "deep" / "other"
    assert load_manifest(report.directory).codec == codec
    assert np.array_equal(pixels(report.directory), pixels(cache))
    assert is_sound(report.directory)
    with pytest.raises(CacheError, match="holds a cache already"):
        convert(cache, codec, out=report.directory)


def test_the_same_codec_is_nothing_to_do(cache):
    before = file_states(cache)
    report = convert(cache, "raw")
    assert report.after is report.before
    after = {name: state for name, state in file_states(cache).items() if name != ".lock"}
    assert after == {name: state for name, state in before.items() if name != ".lock"}


def test_cache_of_the_first_version_is_converted(cache):
    with open_cache(cache) as opened:
        images = opened.reader.gather(np.arange(NUM))
    save_as_version_1(cache)
    assert load_manifest(cache).shards[0].metadata_digest is None
    after = convert(cache, "zstd").after
    assert all(shard.metadata_digest for shard in after.shards)
    assert np.array_equal(pixels(cache), images)


def save_as_version_1(cache: Path) -> None:
    """As the first release wrote it."""
    path = cache / "manifest.json"
    content = json.loads(path.read_text(encoding="ascii"))
    content["format_version"] = 1
    del content["codec"], content["shard_capacity"]
    for shard in content["shards"]:
        del shard["metadata_digest"]
    content["digest"] = lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


@pytest.mark.parametrize("where", ["pixel", "header", "index", "missing"])
def test_damaged_cache_is_not_converted(cache, where):
    manifest = load_manifest(cache)
    shard = manifest.shards[2]
    if where == "missing":
        (cache / shard.name).unlink()
    else:
        offset = {"pixel": shard.images_offset_bytes + 99, "header": 9, "index": 99}[where]
        flip_bit(cache / (manifest.index.name if where == "index" else shard.name), offset, 4)
    with pytest.raises(CacheError, match=r"is missing or damaged|is damaged"):
        convert(cache, "zstd")
    assert load_manifest(cache) == manifest


def test_image_whose_crc_is_not_that_of_its_row_is_named(place, cache, monkeypatch):
    """A shard that was written from pixels that memory had changed: its digest is right."""
    record_id = open_cache(cache).table.id_texts[0]
    monkeypatch.setattr(convert_module.zlib, "crc32", lambda data: 0)
    with pytest.raises(CacheError, match=rf"image {record_id} fails its CRC"):
        convert(cache, "zstd")


def test_shard_that_does_not_read_as_it_was_written_is_not_committed(cache, monkeypatch):
    manifest, write = load_manifest(cache), convert_module.write_shard

    def write_badly(directory: Path, *arguments: object) -> object:
        entry = write(directory, *arguments)
        flip_bit(directory / entry.name, entry.images_offset_bytes + 30, 1)
        return entry

    monkeypatch.setattr(convert_module, "write_shard", write_badly)
    with pytest.raises(CacheError, match="does not read as it was written"):
        convert(cache, "zstd")
    monkeypatch.undo()
    assert load_manifest(cache) == manifest
    # The damaged file has the name of other bytes, and is not used for them.
    convert(cache, "zstd")
    assert is_sound(cache)


def test_a_busy_cache_is_left_alone(cache):
    with lock_cache(cache, "build"), pytest.raises(CacheError, match=r"in use by another process \(build"):
        convert(cache, "zstd")


def test_folder_with_other_things_is_refused_and_remains_are_not(place, cache):
    other = place / "other"
    other.mkdir()
    (other / "shard-0123456789abcdef.h5").write_bytes(b"left by a conversion that was stopped")
    convert(cache, "zstd", out=other)
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("!")
    for out in (place / "mine", place / "mine" / "thesis.txt"):
        with pytest.raises(CacheError, match="name a folder that is new or empty"):
            convert(cache, "zstd", out=out)
    assert [path.name for path in (place / "mine").iterdir()] == ["thesis.txt"]


def test_unknown_codec_and_what_is_no_cache_are_refused(place, cache):
    with pytest.raises(UsageError, match="unknown codec"):
        convert(cache, "gzip")
    with pytest.raises(CacheError, match="no cache at"):
        convert(place / "source", "zstd")
    assert not (place / "source" / ".lock").exists()


def test_too_little_room_is_an_error_before_anything_is_written(cache, monkeypatch):
    names = set(file_states(cache))
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(CacheError, match="not enough room"):
        convert(cache, "zstd")
    assert {name for name in file_states(cache) if name.endswith(".h5")} == {n for n in names if n.endswith(".h5")}
