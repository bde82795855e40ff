"""Damaged caches are repaired byte for byte from the fewest source files, or the lost images are named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.building import repair as repair_module
from leukemia_data.building.repair import RepairReport, repair_cache
from leukemia_data.caches import shard as shard_module
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import Manifest, load_manifest
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import CacheError
from leukemia_data.files.lock import lock_cache
from leukemia_data.records.fingerprint import lines_digest
from leukemia_data.records.record import Record
from leukemia_data.sources.source import list_source

from ..helpers import adopt_states, build, cache_dir, flip_bit, image_paths, make_source, work_done

SIZE = 16
IMAGE_BYTES = SIZE * SIZE * 3
NUM = 24


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("repair")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return root


@pytest.fixture
def place(pristine, tmp_path) -> Path:
    """A source and its cache that a test may damage."""
    copy = Path(shutil.copytree(pristine, tmp_path / "copy"))
    adopt_states(copy / "source", copy / "cache")
    return copy


@pytest.fixture
def cache(place) -> Path:
    return cache_dir(place / "cache", SIZE)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".h5", ".json")}


def records_of(place: Path) -> Mapping[str, Record]:
    return {record.record_id: record for record in list_source([place / "source"]).records}


def repair(cache: Path, place: Path | None) -> RepairReport:
    find = (lambda: None) if place is None else (lambda: list(records_of(place).values()))
    return repair_cache(cache, find, num_threads=2, progress=lambda _: None)


def never() -> None:
    raise AssertionError("the source was asked for")


def is_clean(cache: Path) -> bool:
    return verify_cache(cache, num_threads=1, progress=lambda _: None).damages == ()


def hit_pixel(cache: Path, shard: int, row: int) -> str:
    """Flip a bit of an image; return its id."""
    entries = load_manifest(cache).shards
    entry = entries[shard]
    assert row < entry.num_samples
    number = sum(before.num_samples for before in entries[:shard]) + row
    record_id = open_cache(cache).table.id_texts[number]
    flip_bit(cache / entry.name, entry.images_offset_bytes + row * IMAGE_BYTES + 100, 3)
    return record_id


def shard_path(cache: Path, number: int) -> Path:
    return cache / load_manifest(cache).shards[number].name


def _truncate(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def _swap(cache: Path) -> None:
    one, two = (shard_path(cache, n) for n in (0, 1))
    one_bytes, two_bytes = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_bytes)
    two.write_bytes(one_bytes)


def _lose_all(cache: Path) -> None:
    for entry in load_manifest(cache).shards:
        (cache / entry.name).unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "header": lambda cache: flip_bit(shard_path(cache, 0), 9),
    "rows": lambda cache: flip_bit(shard_path(cache, 1), load_manifest(cache).shards[1].num_bytes - 40),
    "pixel": lambda cache: hit_pixel(cache, 1, 1),
    "pixels of two shards": lambda cache: (hit_pixel(cache, 0, 0), hit_pixel(cache, 2, 1)),
    "truncated in the pixels": lambda cache: _truncate(shard_path(cache, 0), 4096 + 2 * IMAGE_BYTES + 5),
    "empty": lambda cache: _truncate(shard_path(cache, 0), 0),
    "longer": lambda cache: shard_path(cache, 0).write_bytes(shard_path(cache, 0).read_bytes() + b"x"),
    "missing": lambda cache: shard_path(cache, 1).unlink(),
    "all missing": _lose_all,
    "swapped": _swap,
    "index": lambda cache: flip_bit(cache / load_manifest(cache).index.name, 3000),
    "index missing": lambda cache: (cache / load_manifest(cache).index.name).unlink(),
    "index and pixel": lambda cache: (hit_pixel(cache, 1, 1), flip_bit(cache / load_manifest(cache).index.name, 3000)),
    "manifest reformatted": lambda cache: (cache / "manifest.json").write_text(
        json.dumps(json.loads((cache / "manifest.json").read_text(encoding="utf-8"))), encoding="utf-8"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_the_source_every_byte_is_as_it_was(place, cache, damage):
    before = contents(cache)
    DAMAGES[damage](cache)
    assert contents(cache) != before
    report = repair(cache, place)
    assert contents(cache) == before
    assert (report.left.damages, report.renewed, report.lost) == ((), (), ())
    assert set(report.mended) == {found.file for found in report.found.damages}


def test_whole_files_are_not_touched(place, cache):
    untouched = [path for path in cache.glob("*.h5") if path != shard_path(cache, 1)] + [cache / "manifest.json"]
    states = [path.stat() for path in untouched]
    hit_pixel(cache, 1, 0)
    repair(cache, place)
    assert [(s.st_ino, s.st_mtime_ns) for s in states] == [(p.stat().st_ino, p.stat().st_mtime_ns) for p in untouched]


def test_clean_cache_needs_no_source_and_is_left_alone(cache):
    before = contents(cache)
    report = repair_cache(cache, never, num_threads=1, progress=lambda _: None)
    assert (report.mended, report.left.damages) == ((), ())
    assert contents(cache) == before


@pytest.mark.parametrize("damage", ["header", "rows", "longer"])
def test_damage_beside_the_pixels_needs_no_source(cache, damage):
    before = contents(cache)
    DAMAGES[damage](cache)
    report = repair_cache(cache, never, num_threads=1, progress=lambda _: None)
    assert contents(cache) == before
    assert (report.num_kept, report.num_remade) == (load_manifest(cache).shards[damage == "rows"].num_samples, 0)


def test_only_the_damaged_image_is_taken_from_the_source(place, cache):
    record_id = hit_pixel(cache, 1, 1)
    for path in image_paths(place / "source"):
        if path.relative_to(place / "source").as_posix() != record_id:
            path.write_bytes(b"gone")
    report = repair(cache, place)
    assert (report.num_kept, report.num_remade) == (load_manifest(cache).shards[1].num_samples - 1, 1)
    assert is_clean(cache)


def test_source_may_be_given_by_a_folder_above_or_below(place, cache):
    before = contents(cache)
    hit_pixel(cache, 1, 1)
    shutil.copytree(place / "source", place / "above" / "part" / "source")
    records = list_source([place / "above"]).records
    assert {record.record_id for record in records}.isdisjoint(records_of(place))
    repair_cache(cache, lambda: records, num_threads=1, progress=lambda _: None)
    assert contents(cache) == before


def test_of_several_files_of_a_name_the_one_with_the_right_bytes_is_taken(place, cache):
    before = contents(cache)
    name = Path(hit_pixel(cache, 1, 1)).name
    right = [path for path in image_paths(place / "source") if path.name == name]
    records = [Record(f"{n}/{name}", path) for n, path in enumerate([*image_paths(place / "source"), *right])]
    repair_cache(cache, lambda: records, num_threads=1, progress=lambda _: None)
    assert contents(cache) == before


# --- what cannot be repaired --------------------------------------------------------------------------------------


def _remove(place: Path, record_id: str) -> None:
    (place / "source" / record_id).unlink()


def _change(place: Path, record_id: str) -> None:
    path = place / "source" / record_id
    path.write_bytes(cv2.imencode(".png", np.zeros((36, 44, 3), np.uint8))[1].tobytes())


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_remove, "it is not in the source"), (_change, "the source file has other bytes")]
)
def test_image_that_the_source_lacks_or_changed_is_lost(place, cache, spoil, reason):
    record_id = hit_pixel(cache, 1, 1)
    damaged = contents(cache)
    spoil(place, record_id)
    report = repair(cache, place)
    [lost] = report.lost
    assert (lost.record_id, lost.subject) == (record_id, records_of(place).get(record_id, lost).subject)
    assert reason in lost.reason
    assert contents(cache) == damaged
    assert [found.file for found in report.left.damages] == [lost.file, lost.file]


def test_without_a_source_exactly_the_lost_images_are_named_and_the_rest_is_repaired(place, cache):
    before = contents(cache)
    pixel_of_one, header_of_other = hit_pixel(cache, 1, 1), shard_path(cache, 0)
    flip_bit(header_of_other, 9)
    report = repair(cache, None)
    [lost] = report.lost
    subject = records_of(place)[pixel_of_one].subject
    assert (lost.record_id, lost.subject, lost.reason) == (pixel_of_one, subject, "no source was given")
    assert report.mended == (header_of_other.name,)
    assert {name for name, content in contents(cache).items() if content != before[name]} == {lost.file}


def test_images_of_a_missing_shard_are_all_named(place, cache):
    entry = load_manifest(cache).shards[0]
    ids = open_cache(cache).table.id_texts[: entry.num_samples]
    (cache / entry.name).unlink()
    assert [lost.record_id for lost in repair(cache, None).lost] == ids


def test_rows_lost_twice_are_counted(place, cache):
    entry = load_manifest(cache).shards[0]
    flip_bit(cache / entry.name, entry.num_bytes - 40)
    flip_bit(cache / load_manifest(cache).index.name, 3000)
    report = repair(cache, place)
    assert (report.num_unnamed, report.mended) == (entry.num_samples, ())
    assert {found.file for found in report.left.damages} == {entry.name, load_manifest(cache).index.name}


def test_other_pixels_than_those_recorded_are_not_stored(place, cache, monkeypatch):
    hit_pixel(cache, 1, 1)
    damaged = contents(cache)
    genuine = repair_module.Preprocessor.__call__
    monkeypatch.setattr(
        repair_module.Preprocessor,
        "__call__",
        lambda self, frame: {size: image ^ 1 for size, image in genuine(self, frame).items()},
    )
    [lost] = repair(cache, place).lost
    assert f"makes other pixels of it than the one that built the cache (OpenCV {cv2.__version__}" in lost.reason
    assert contents(cache) == damaged


# --- right again in other bytes -----------------------------------------------------------------------------------


def test_index_without_the_sources_file_times_is_renewed_and_the_next_build_settles_them(place, cache):
    before = load_manifest(cache)
    flip_bit(cache / before.index.name, 3000)
    report = repair(cache, None)
    assert (report.renewed, report.left.damages) == ((before.index.name,), ())
    assert load_manifest(cache).shards == before.shards
    assert len(open_cache(cache)) == NUM
    assert work_done(build(place / "source", place / "cache", sizes_px=(SIZE,)))[0] == 0
    assert load_manifest(cache) == before


def test_shard_that_another_release_of_hdf5_writes_otherwise_is_renewed(place, cache, monkeypatch):
    pixels = open_cache(cache).reader.gather(np.arange(NUM))
    before = load_manifest(cache)
    hit_pixel(cache, 1, 1)
    monkeypatch.setattr(shard_module, "_ALIGN_ABOVE_BYTES", 1 << 10)
    monkeypatch.setattr(shard_module, "_PAGE_BYTES", 1 << 13)
    report = repair(cache, place)
    assert (report.renewed, report.left.damages) == ((before.shards[1].name,), ())
    assert np.array_equal(open_cache(cache).reader.gather(np.arange(NUM)), pixels)


# --- circumstances --------------------------------------------------------------------------------------------------


def as_version_1(cache: Path) -> Manifest:
    """Write a manifest as the first version did."""
    path = cache / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["format_version"] = 1
    for entry in content["shards"]:
        del entry["metadata_digest"]
    content["digest"] = lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")
    return load_manifest(cache)


@pytest.mark.parametrize("damage", ["header", "pixel", "missing", "index"])
def test_cache_of_the_first_version_is_repaired(place, cache, damage):
    as_version_1(cache)
    before = contents(cache)
    DAMAGES[damage](cache)
    report = repair(cache, place)
    assert report.left.damages == ()
    shards = {name: content for name, content in before.items() if name.startswith("shard-")}
    assert {name: content for name, content in contents(cache).items() if name.startswith("shard-")} == shards


def test_build_brings_a_cache_of_the_first_version_up_to_date(place, cache):
    before = contents(cache)
    assert not as_version_1(cache).is_up_to_date
    summary = build(place / "source", place / "cache", sizes_px=(SIZE,))
    assert work_done(summary) == (0, 0, NUM)
    assert contents(cache) == before


def test_build_gives_no_damaged_shard_of_the_first_version_a_digest(place, cache):
    before = contents(cache)
    as_version_1(cache)
    flip_bit(shard_path(cache, 0), 9)
    build(place / "source", place / "cache", sizes_px=(SIZE,))
    assert contents(cache) == before


def test_repair_does_not_wait(cache, place):
    with lock_cache(cache), pytest.raises(CacheError, match="in use by"):
        repair(cache, place)


def test_damaged_manifest_is_a_matter_for_a_build(place, cache):
    before = contents(cache)
    flip_bit(cache / "manifest.json", before["manifest.json"].index(b"blast"))
    with pytest.raises(CacheError, match="`ldata build` with the images it was made from"):
        repair(cache, place)
    build(place / "source", place / "cache", sizes_px=(SIZE,))
    assert contents(cache) == before


def test_full_disk_is_an_error_that_leaves_things_as_they_were(place, cache, monkeypatch):
    hit_pixel(cache, 1, 1)
    damaged = contents(cache)

    def fail(path: Path) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(shard_module, "file_digest", fail)
    with pytest.raises(CacheError, match=r"cannot be repaired: .*No space left"):
        repair(cache, place)
    assert contents(cache) == damaged
