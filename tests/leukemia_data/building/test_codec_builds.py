"""Builds of compressed caches: choice of the codec, copied rows, continued builds, repairs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.building.repair import RepairReport, repair_cache
from leukemia_data.building.shard_maker import run_task
from leukemia_data.building.shard_task import RECEIPTS_DIR, ShardTask, find_receipts
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import CacheError
from leukemia_data.sources.source import list_source

from ..helpers import (
    OLD_NS,
    adopt_states,
    all_shards,
    build,
    cache_dir,
    flip_bit,
    forget_zstandard,
    image_paths,
    make_plan,
    make_source,
    named_shards,
    work_done,
    write_cell,
)

NUM, SIZE = 24, 16


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A source and its caches by codec. Read it, never change it."""
    root = tmp_path_factory.mktemp("codecs")
    make_source(root / "source", NUM)
    for codec in ("raw", "zstd"):
        build(root / "source", root / codec, sizes_px=(SIZE,), codec=codec)
    return root


@pytest.fixture
def place(pristine, tmp_path) -> Path:
    """The same, to be changed."""
    copy = Path(shutil.copytree(pristine, tmp_path / "copy"))
    for codec in ("raw", "zstd"):
        adopt_states(copy / "source", copy / codec)
    return copy


@pytest.fixture
def zstd(place) -> Path:
    return cache_dir(place / "zstd")


def pixels(directory: Path) -> np.ndarray:
    with open_cache(directory) as cache:
        return cache.reader.gather(np.arange(len(cache)))


def repair(directory: Path, source: Path | None) -> RepairReport:
    def records() -> list | None:
        return None if source is None else list(list_source([source]).records)

    return repair_cache(directory, records, num_threads=2, progress=lambda _: None)


def first_task(place: Path, codec: str) -> ShardTask:
    """A task after which the build is interrupted."""
    plan = make_plan(place / "source", place / "stopped", sizes_px=(SIZE,), codec=codec)
    plan.targets[0].target.directory.mkdir(parents=True, exist_ok=True)
    return plan.tasks[0]


def is_sound(directory: Path) -> bool:
    return verify_cache(directory, num_threads=1, progress=lambda _: None).damages == ()


def test_a_new_cache_is_raw(place):
    assert [load_manifest(cache_dir(place / codec)).codec for codec in ("raw", "zstd")] == ["raw", "zstd"]
    build(place / "source", place / "new", sizes_px=(SIZE,))
    assert all_shards(place / "new") == all_shards(place / "raw")


@pytest.mark.parametrize(("earlier", "wanted"), [("raw", "zstd"), ("zstd", "raw")])
def test_another_codec_copies_every_row_and_gives_the_bytes_of_a_fresh_build(place, earlier, wanted):
    before = pixels(cache_dir(place / earlier))
    summary = build(place / "source", place / earlier, sizes_px=(SIZE,), codec=wanted)
    directory = cache_dir(place / earlier)
    assert work_done(summary) == (0, NUM, 0)
    assert all_shards(place / earlier) == all_shards(place / wanted)
    assert np.array_equal(pixels(directory), before)
    assert load_manifest(directory).index == load_manifest(cache_dir(place / wanted)).index
    assert ("zstandard" in load_manifest(directory).library_versions) == (wanted == "zstd")
    named = set(named_shards(directory))
    assert collect_garbage(place / earlier, remove=True).garbage
    assert {path.name for path in directory.glob("shard-*")} == named
    assert is_sound(directory)


def test_a_cache_keeps_its_codec_and_its_other_shards_when_an_image_changes(place, zstd):
    before = named_shards(zstd)
    write_cell(image_paths(place / "source")[3], 999, mtime_ns=OLD_NS + 5)
    summary = build(place / "source", place / "zstd", sizes_px=(SIZE,))
    assert load_manifest(zstd).codec == "zstd"
    assert summary.num_processed == 1
    assert len(before.keys() - named_shards(zstd).keys()) == 1
    build(place / "source", place / "fresh", sizes_px=(SIZE,), codec="zstd")
    assert all_shards(place / "fresh") == all_shards(place / "zstd")
    assert is_sound(zstd)


def test_each_size_keeps_its_own_codec(place):
    build(place / "source", place / "zstd", sizes_px=(24,), codec="raw")
    write_cell(image_paths(place / "source")[3], 999, mtime_ns=OLD_NS + 5)
    summary = build(place / "source", place / "zstd", sizes_px=(SIZE, 24))
    assert [cache.manifest.codec for cache in summary.caches] == ["zstd", "raw"]
    assert summary.num_processed == 1


def test_receipts_of_a_stopped_build_serve_the_same_codec_only(place):
    task = first_task(place, "zstd")
    first = run_task(task)
    assert (task.targets[0].directory / RECEIPTS_DIR).is_dir()
    again = find_receipts(task)
    assert again is not None
    assert again.entries == first.entries
    assert find_receipts(first_task(place, "raw")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks_num_bytes": 7},
        {"chunks_num_bytes": None},
        {"chunk_lengths_offset_bytes": 0},
        {"chunk_lengths_offset_bytes": "9"},
    ],
)
def test_receipt_with_wrong_offsets_is_ignored(place, changes):
    task = first_task(place, "zstd")
    run_task(task)
    [receipt] = (task.targets[0].directory / RECEIPTS_DIR).iterdir()
    content = json.loads(receipt.read_text(encoding="utf-8"))
    content["shard"].update(changes)
    receipt.write_text(json.dumps(content), encoding="utf-8")
    assert find_receipts(task) is None


def test_damaged_chunk_of_an_earlier_shard_is_not_copied(place, zstd):
    shard = load_manifest(zstd).shards[0]
    flip_bit(zstd / shard.name, shard.images_offset_bytes + 50, 3)
    summary = build(place / "source", place / "zstd", sizes_px=(SIZE,), codec="raw")
    assert work_done(summary) == (shard.num_samples, NUM - shard.num_samples, 0)
    assert all_shards(place / "zstd") == all_shards(place / "raw")


def test_damaged_chunk_is_repaired_from_the_source(place, zstd):
    before, shard = named_shards(zstd), load_manifest(zstd).shards[1]
    flip_bit(zstd / shard.name, shard.images_offset_bytes + 50, 3)
    alone = repair(zstd, None)
    assert [image.reason for image in alone.lost] == ["no source was given"]
    report = repair(zstd, place / "source")
    assert (report.mended, report.num_remade, report.left.damages) == ((shard.name,), 1, ())
    assert report.num_kept == shard.num_samples - 1
    assert named_shards(zstd) == before


@pytest.mark.parametrize("where", ["header", "lengths", "rows", "index"])
def test_damage_beside_the_chunks_needs_no_source(zstd, where):
    before, manifest = named_shards(zstd), load_manifest(zstd)
    shard = manifest.shards[1]
    assert shard.chunk_lengths_offset_bytes is not None
    offsets = {"header": 9, "lengths": shard.chunk_lengths_offset_bytes + 5, "rows": shard.num_bytes - 20, "index": 0}
    flip_bit(zstd / (manifest.index.name if where == "index" else shard.name), offsets[where], 2)
    report = repair(zstd, None)
    assert (report.num_remade, report.lost, report.left.damages) == (0, (), ())
    assert named_shards(zstd) == before


def test_missing_shard_is_made_anew_as_it_was(place, zstd):
    before = named_shards(zstd)
    (zstd / next(iter(before))).unlink()
    assert repair(zstd, place / "source").left.damages == ()
    assert named_shards(zstd) == before


def test_a_build_that_needs_a_missing_library_fails_before_it_begins(place, monkeypatch):
    forget_zstandard(monkeypatch)
    for root, codec in (("raw", "zstd"), ("zstd", "raw"), ("zstd", None)):
        with pytest.raises(CacheError, match=r'pip install -e "\.\[zstd\]"'):
            make_plan(place / "source", place / root, sizes_px=(SIZE,), codec=codec)
    assert make_plan(place / "source", place / "raw", sizes_px=(SIZE,)).num_to_make == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps mapped files")
def test_reader_keeps_its_snapshot_while_the_codec_changes(place, zstd):
    with open_cache(zstd) as cache:
        before = cache.reader.gather(np.arange(NUM))
        build(place / "source", place / "zstd", sizes_px=(SIZE,), codec="raw")
        collect_garbage(place / "zstd", remove=True)
        assert np.array_equal(cache.reader.gather(np.arange(NUM)), before)
