"""Builds compared with plain loops and with fresh builds of the final state, and their failures."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from leukemia_data import __version__
from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.process_engine import run_in_processes
from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.hdf5_file import read_index
from leukemia_data.caches.manifest import QuarantinedImage, find_current, load_manifest, source_state
from leukemia_data.errors import BuildError, CacheError
from leukemia_data.files.atomic import UNSETTLED_NS
from leukemia_data.files.lock import lock_cache
from leukemia_data.operations.framing import Canvas
from leukemia_data.operations.recipe import Recipe, load_recipe
from leukemia_data.operations.resizing import Resize
from leukemia_data.records.sample_table import MTIME
from leukemia_data.sources.source import list_source

from ..helpers import (
    LISTED_NS,
    OLD_NS,
    TINY_RECIPE,
    all_shards,
    build,
    cache_dir,
    file_states,
    flip_bit,
    fresh_shards,
    image_paths,
    make_plan,
    make_source,
    named_shards,
    relabelled,
    run_here,
    run_plan,
    work_done,
    write_cell,
)

NUM = 40


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source", NUM)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def built(source, cache) -> Path:
    assert work_done(build(source, cache)) == (NUM, 0, 0)
    return cache


def shard_size(directory: Path, record_id: str) -> int:
    """Number of samples in the shard that holds a record."""
    for shard in load_manifest(directory).shards:
        with h5py.File(directory / shard.name, "r") as file:
            if record_id.encode() in file["ids"][()].tolist():
                return shard.num_samples
    raise AssertionError(record_id)


def images_by_id(directory: Path) -> dict[str, np.ndarray]:
    """Pixels by record id, by h5py alone."""
    found = {}
    for shard in load_manifest(directory).shards:
        with h5py.File(directory / shard.name, "r") as file:
            found.update(zip(file["ids"].asstr()[()].tolist(), file["images"][()], strict=True))
    return found


def assert_same_as_fresh(source: Path, cache: Path, tmp_path: Path, *, max_bad: int = 0) -> None:
    assert all_shards(cache) == fresh_shards(source, tmp_path / "fresh", max_bad=max_bad)
    for path in cache.rglob("manifest.json"):
        index = read_index(path.parent, load_manifest(path.parent).index)
        fresh_dir = tmp_path / "fresh" / path.parent.relative_to(cache)
        assert index.table.equals(read_index(fresh_dir, load_manifest(fresh_dir).index).table)


# --- pixels


def plain_report_a(path: Path, size: int) -> np.ndarray:
    """The first report's preprocessing of one whole frame, by plain OpenCV calls."""
    clahe = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(9, 9))
    frame = cv2.merge([clahe.apply(channel) for channel in cv2.split(cv2.imread(str(path)))])
    sharp = cv2.addWeighted(frame, 2.5, cv2.GaussianBlur(frame, (0, 0), 3), -1.5, 0)
    crop = sharp[90:360, 90:360]
    return cv2.cvtColor(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def test_cached_pixels_are_those_of_a_plain_opencv_loop(sample_tree, cache):
    build(sample_tree, cache, sizes_px=(128, 224), recipe=load_recipe("report-a"), engine=run_in_processes(2))
    paths = {record.record_id: record.path for record in list_source([sample_tree]).records}
    for size in (128, 224):
        images = images_by_id(cache_dir(cache, size))
        assert images.keys() == paths.keys()
        differences = np.stack(
            [np.abs(images[key].astype(int) - plain_report_a(path, size).astype(int)) for key, path in paths.items()]
        )
        assert differences.max() <= 4
        assert differences.mean() < 0.02


def test_index_repeats_the_rows_of_the_shards_and_the_states_of_the_files(source, built):
    directory = cache_dir(built)
    index = read_index(directory, load_manifest(directory).index)
    ids, crcs = [], []
    for name in named_shards(directory):
        with h5py.File(directory / name, "r") as file:
            ids += file["ids"].asstr()[()].tolist()
            crcs += file["crcs"][()].tolist()
    assert index.table.id_texts == ids
    assert index.table.crcs.tolist() == crcs
    states = [(source / record_id).stat() for record_id in ids]
    assert index.source_states.tolist() == [[s.st_size, OLD_NS, s.st_ctime_ns, s.st_ino] for s in states]


# --- nothing depends on how the work was cut up


def test_both_sizes_at_once_are_each_size_alone(source, built, tmp_path):
    for size in (16, 24):
        build(source, tmp_path / "alone", sizes_px=(size,))
    assert all_shards(built) == all_shards(tmp_path / "alone")


def test_second_build_touches_no_shard_and_commits_the_same_manifest(source, built):
    before = file_states(built)
    manifests = {path: path.read_bytes() for path in built.rglob("manifest.json")}
    summary = build(source, built)
    assert work_done(summary) == (0, 0, NUM)
    assert [cache.num_new_shards for cache in summary.caches] == [0, 0]
    after = file_states(built)
    assert after.keys() == before.keys()
    assert {name: state for name, state in after.items() if "shard-" in name} == {
        name: state for name, state in before.items() if "shard-" in name
    }
    assert {path: path.read_bytes() for path in manifests} == manifests


def test_finished_cache_is_current_by_its_manifest_alone(source, built):
    listing = list_source([source])
    state = source_state(listing.classes, listing.records)
    assert find_current(cache_dir(built), state) is not None
    write_cell(source / "blast" / "p0" / "new.png", 1)
    listing = list_source([source])
    assert find_current(cache_dir(built), source_state(listing.classes, listing.records)) is None


# --- changes of the source: exactly the work that is due, and the bytes of a fresh build


def test_added_image(source, built, tmp_path):
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    processed, copied, kept = work_done(build(source, built))
    assert processed == 1
    assert copied == shard_size(cache_dir(built), "blast/p0/new.png") - 1
    assert kept == NUM - copied
    assert_same_as_fresh(source, built, tmp_path)


def test_added_image_that_splits_a_shard(tmp_path, cache):
    source = make_source(tmp_path / "source", 8)
    build(source, cache)
    assert len(named_shards(cache_dir(cache))) == 1
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    assert work_done(build(source, cache)) == (1, 8, 0)
    assert len(named_shards(cache_dir(cache))) >= 2
    assert_same_as_fresh(source, cache, tmp_path)


def test_removed_image(source, built, tmp_path):
    gone = image_paths(source)[7]
    num_neighbours = shard_size(cache_dir(built), gone.relative_to(source).as_posix()) - 1
    gone.unlink()
    processed, copied, kept = work_done(build(source, built))
    assert (processed, processed + copied + kept) == (0, NUM - 1)
    assert num_neighbours <= copied <= 8
    assert_same_as_fresh(source, built, tmp_path)


def test_changed_image(source, built, tmp_path):
    path = image_paths(source)[3]
    write_cell(path, 4711, mtime_ns=OLD_NS + 5)
    size = shard_size(cache_dir(built), path.relative_to(source).as_posix())
    assert work_done(build(source, built)) == (1, size - 1, NUM - size)
    assert_same_as_fresh(source, built, tmp_path)


def test_touched_image_is_read_but_not_processed_and_its_shard_stays(source, built, tmp_path):
    path = image_paths(source)[3]
    os.utime(path, ns=(OLD_NS + 7, OLD_NS + 7))
    size = shard_size(cache_dir(built), path.relative_to(source).as_posix())
    shards = {name: state for name, state in file_states(built).items() if "shard-" in name}
    assert work_done(build(source, built)) == (0, size, NUM - size)
    assert {name: state for name, state in file_states(built).items() if "shard-" in name} == shards
    assert work_done(build(source, built)) == (0, 0, NUM)
    assert_same_as_fresh(source, built, tmp_path)


def test_renamed_image_is_copied(source, built, tmp_path):
    path = image_paths(source)[3]
    path.rename(path.with_name("renamed.png"))
    processed, copied, kept = work_done(build(source, built))
    assert (processed, copied + kept) == (0, NUM)
    assert 1 <= copied <= 17
    assert_same_as_fresh(source, built, tmp_path)


def test_renamed_image_with_other_content_is_processed(source, built, tmp_path):
    path = image_paths(source)[3]
    path.unlink()
    write_cell(path.with_name("renamed.png"), 4711)
    assert work_done(build(source, built))[0] == 1
    assert_same_as_fresh(source, built, tmp_path)


def test_swapped_contents_are_not_confused(source, built, tmp_path):
    one, two = image_paths(source)[3], image_paths(source)[30]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    for path in (one, two):
        os.utime(path, ns=(OLD_NS + 9, OLD_NS + 9))
    build(source, built)
    assert_same_as_fresh(source, built, tmp_path)


def test_relabelled_image_is_copied(source, built, tmp_path):
    listing = list_source([source])
    changed = relabelled(listing, listing.records[3].record_id, 1 - listing.records[3].label)
    size = shard_size(cache_dir(built), listing.records[3].record_id)
    assert work_done(build(changed, built)) == (0, size, NUM - size)
    build(changed, tmp_path / "fresh")
    assert all_shards(built) == all_shards(tmp_path / "fresh")


@pytest.mark.parametrize("change", [{"subject": "X"}, {"split": "test"}, {"fold": 2}])
def test_other_metadata_is_stored_without_processing(source, built, change):
    listing = list_source([source])
    changed = replace(listing, records=(replace(listing.records[0], **change), *listing.records[1:]))
    assert work_done(build(changed, built))[0] == 0
    table = open_cache(cache_dir(built)).table
    row = table.id_texts.index(listing.records[0].record_id)
    stored = {"subject": table.subjects[row].decode(), "split": table.splits[row].decode(), "fold": table.folds[row]}
    assert stored[next(iter(change))] == next(iter(change.values()))


def test_many_changes_at_once(source, built, tmp_path):
    paths = image_paths(source)
    for path in paths[:3]:
        path.unlink()
    write_cell(paths[5], 900, mtime_ns=OLD_NS + 5)
    os.utime(paths[6], ns=(OLD_NS + 6, OLD_NS + 6))
    paths[8].rename(paths[8].with_name("renamed.png"))
    for number in range(3):
        write_cell(source / "blast" / "p9" / f"{number}.png", 1000 + number)
    summary = build(source, built, engine=run_in_processes(2))
    assert summary.num_processed == 4
    assert sum(work_done(summary)) == NUM
    assert_same_as_fresh(source, built, tmp_path)


def test_moved_source_and_moved_cache_are_hits(source, built, tmp_path):
    source.rename(tmp_path / "moved-source")
    built.rename(tmp_path / "moved-cache")
    assert work_done(build(tmp_path / "moved-source", tmp_path / "moved-cache")) == (0, 0, NUM)


# --- recipes and sizes


@pytest.mark.parametrize("sizes_px", [(16, 24), (32,)])
def test_changed_recipe_or_size_is_a_miss_beside_the_old_cache(source, built, sizes_px):
    before = file_states(built)
    recipe = Recipe("other", (Canvas(side_px=40), Resize())) if sizes_px == (16, 24) else TINY_RECIPE
    assert work_done(build(source, built, sizes_px=sizes_px, recipe=recipe)) == (NUM, 0, 0)
    after = file_states(built)
    assert {name: after[name] for name in before} == before
    assert len(list(built.rglob("manifest.json"))) == 2 + len(sizes_px)


def test_recipe_of_another_name_with_the_same_steps_is_a_hit(source, built):
    assert work_done(build(source, built, recipe=replace(TINY_RECIPE, name="x", description="y"))) == (0, 0, NUM)


def test_size_added_later_leaves_the_other_alone(source, cache, built, tmp_path):
    build(source, tmp_path / "one", sizes_px=(24,))
    directory = cache_dir(tmp_path / "one", 24)
    before = {name: state for name, state in file_states(directory).items() if "shard-" in name}
    assert work_done(build(source, tmp_path / "one")) == (NUM, 0, 0)
    assert {name: state for name, state in file_states(directory).items() if "shard-" in name} == before
    assert all_shards(tmp_path / "one") == all_shards(built)


# --- damaged earlier caches


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_shard_that_is_not_whole_is_made_anew(source, built, tmp_path, damage):
    directory = cache_dir(built)
    name, data = next(iter(named_shards(directory).items()))
    num = load_manifest(directory).shards[0].num_samples
    if damage == "missing":
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(data[:-1])
    assert work_done(build(source, built)) == (num, 0, NUM - num)
    assert (directory / name).read_bytes() == data
    assert_same_as_fresh(source, built, tmp_path)


@pytest.mark.parametrize("where", ["pixel", "row", "header"])
def test_nothing_is_copied_from_a_damaged_shard(source, built, tmp_path, where):
    directory = cache_dir(built)
    shard = next(shard for shard in load_manifest(directory).shards if shard.num_samples > 2)
    with h5py.File(directory / shard.name, "r") as file:
        removed, *rest = file["ids"].asstr()[()].tolist()
        sums_at = file["channel_sums"].id.get_offset() + 24
    offset = {"pixel": shard.images_offset_bytes + 16 * 16 * 3 + 17, "row": sums_at, "header": 9}[where]
    flip_bit(directory / shard.name, offset, 3)
    (source / removed).unlink()
    processed, copied, kept = work_done(build(source, built))
    assert processed == len(rest)
    assert processed + copied + kept == NUM - 1
    assert_same_as_fresh(source, built, tmp_path)


@pytest.mark.parametrize("name", ["index", "manifest"])
def test_damaged_index_or_manifest_is_built_anew(source, built, tmp_path, name):
    [path] = cache_dir(built).glob(f"{name}*")
    flip_bit(path, path.stat().st_size // 2, 1)
    assert work_done(build(source, built)) == (NUM, 0, 0)
    assert_same_as_fresh(source, built, tmp_path)


def test_shards_that_verify_named_are_made_anew_once_they_are_removed(source, built, tmp_path):
    directory = cache_dir(built)
    name = next(iter(named_shards(directory)))
    flip_bit(directory / name, 9000)
    (directory / name).unlink()
    build(source, built)
    assert_same_as_fresh(source, built, tmp_path)


# --- unusable images


@pytest.fixture
def bad_source(source) -> Path:
    (source / "blast" / "p0" / "empty.png").write_bytes(b"")
    (source / "normal" / "p1" / "text.bmp").write_text("no image", encoding="utf-8")
    cv2.imwrite(str(source / "normal" / "p1" / "black.png"), np.zeros((36, 44, 3), np.uint8))
    good = image_paths(source)[0].read_bytes()
    (source / "normal" / "p1" / "cut.png").write_bytes(good[: len(good) // 2])
    for path in source.rglob("*.*"):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return source


BAD_IDS = ["blast/p0/empty.png", "normal/p1/black.png", "normal/p1/cut.png", "normal/p1/text.bmp"]


def test_quarantined_images_are_listed_with_reasons_and_left_out(bad_source, cache, tmp_path):
    summary = build(bad_source, cache, max_bad=4)
    assert work_done(summary) == (NUM, 0, 0)
    assert [image.record_id for image in summary.quarantined] == BAD_IDS
    for built in summary.caches:
        assert built.manifest.quarantined == summary.quarantined
        assert load_manifest(built.directory).num_samples == NUM
        assert not set(open_cache(built.directory).table.id_texts) & set(BAD_IDS)
    reasons = {image.record_id: image.reason for image in summary.quarantined}
    for record_id, words in zip(BAD_IDS, ["empty", "black", "truncated", "not a BMP"], strict=True):
        assert words in reasons[record_id]


def test_second_build_with_quarantined_images_keeps_every_shard(bad_source, cache):
    build(bad_source, cache, max_bad=4)
    before = {name: state for name, state in file_states(cache).items() if "shard-" in name}
    summary = build(bad_source, cache, max_bad=4)
    assert work_done(summary) == (0, 0, NUM)
    assert [image.record_id for image in summary.quarantined] == BAD_IDS
    assert {name: state for name, state in file_states(cache).items() if "shard-" in name} == before


def test_image_added_to_a_cache_with_quarantined_ones_gives_the_shards_of_a_fresh_build(bad_source, cache, tmp_path):
    build(bad_source, cache, max_bad=4)
    for number in range(3):
        write_cell(bad_source / "blast" / "p0" / f"new-{number}.png", 4711 + number)
        build(bad_source, cache, max_bad=4)
        assert_same_as_fresh(bad_source, cache, tmp_path, max_bad=4)


def test_fixed_image_is_picked_up(bad_source, cache, tmp_path):
    build(bad_source, cache, max_bad=4)
    write_cell(bad_source / BAD_IDS[0], 4711, mtime_ns=OLD_NS + 5)
    summary = build(bad_source, cache, max_bad=4)
    assert summary.num_processed == 1
    assert [image.record_id for image in summary.quarantined] == BAD_IDS[1:]
    assert_same_as_fresh(bad_source, cache, tmp_path, max_bad=4)


def test_image_that_becomes_bad_leaves_the_cache(source, built, tmp_path):
    path = image_paths(source)[4]
    path.write_bytes(b"")
    summary = build(source, built, max_bad=1)
    assert summary.num_processed == 0
    assert [image.record_id for image in summary.quarantined] == [path.relative_to(source).as_posix()]
    assert load_manifest(cache_dir(built)).num_samples == NUM - 1
    assert_same_as_fresh(source, built, tmp_path, max_bad=1)


def test_image_that_may_be_read_again_is_picked_up_though_its_state_did_not_change(source, cache, monkeypatch):
    locked = image_paths(source)[4]
    open_file = os.open

    def refuse(path: str | Path, *arguments: int, **options: int) -> int:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    summary = build(source, cache, max_bad=1)
    assert "may not be read" in summary.quarantined[0].reason
    monkeypatch.undo()
    listing = list_source([source])
    assert find_current(cache_dir(cache), source_state(listing.classes, listing.records)) is None
    summary = build(source, cache, max_bad=1)
    assert (summary.num_processed, summary.quarantined) == (1, ())


@pytest.mark.skipif(sys.platform == "win32" or os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_image_without_read_permission_is_quarantined_until_it_is_readable(source, cache):
    locked = image_paths(source)[4]
    locked.chmod(0)
    assert len(build(source, cache, max_bad=1).quarantined) == 1
    locked.chmod(stat.S_IRUSR)
    assert work_done(build(source, cache))[0] == 1


def write_table(path: Path, ids: list[str]) -> Path:
    lines = ["Path,label", *(f"{record_id},{n % 2}" for n, record_id in enumerate(ids))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_missing_files_of_a_table(source, cache):
    ids = [path.relative_to(source).as_posix() for path in image_paths(source)]
    table = write_table(source / "train.csv", [*ids[:10], "gone/1.png"])
    with pytest.raises(BuildError, match=r"(?s)1 of 11 images.*gone/1\.png: the file is missing"):
        build(list_source([table]), cache)
    assert not list(cache.rglob("shard-*"))
    summary = build(list_source([table]), cache, max_bad=1)
    assert summary.quarantined == (QuarantinedImage("gone/1.png", "the file is missing"),)
    assert work_done(summary) == (10, 0, 0)
    write_cell(source / "gone" / "1.png", 4711)
    summary = build(list_source([table]), cache)
    assert (summary.num_processed, summary.quarantined) == (1, ())


def test_source_without_a_usable_image_fails_whatever_the_policy(tmp_path, cache):
    for number in range(3):
        path = tmp_path / "source" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(BuildError, match="3 of 3 images cannot be used"):
        build(tmp_path / "source", cache)
    with pytest.raises(BuildError, match="none of the 3 images can be used, the first because: the file is empty"):
        build(tmp_path / "source", cache, max_bad=3)
    assert not list(cache.rglob("manifest.json"))


# --- too many of them


def bad_images(num: int) -> list[QuarantinedImage]:
    return [QuarantinedImage(f"a/{n}.png", f"reason {n}") for n in range(num)]


def test_policy_allows_exactly_max_bad():
    FailurePolicy(0).check([], 10)
    FailurePolicy(3).check(bad_images(3), 10)
    with pytest.raises(BuildError, match=r"4 of 10 images cannot be used: more than --max-bad allows \(3\)"):
        FailurePolicy(3).check(bad_images(4), 10)
    with pytest.raises(BuildError, match="--on-error quarantine"):
        FailurePolicy().check(bad_images(1), 10)
    with pytest.raises(BuildError, match=r"more than --max-bad allows \(0\)"):
        FailurePolicy(0).check(bad_images(1), 10)


def test_policy_names_the_first_twenty():
    with pytest.raises(BuildError) as caught:
        FailurePolicy().check(bad_images(23), 99)
    assert len(re.findall("reason", str(caught.value))) == 20
    assert str(caught.value).endswith("and 3 more")


@pytest.mark.parametrize("processes", [0, 2])
def test_too_many_bad_images_stop_the_build_and_leave_the_earlier_cache(source, built, processes):
    before = file_states(built)
    earlier = all_shards(built)
    for path in image_paths(source)[::4]:
        path.write_bytes(b"")
    options = {"engine": run_in_processes(processes)} if processes else {}
    with pytest.raises(BuildError, match=r"more than --max-bad allows \(2\)"):
        build(source, built, max_bad=2, **options)
    after = file_states(built)
    assert {name: after[name] for name in before} == before
    assert all_shards(built) == earlier
    for directory in built.glob("*/*"):
        SampleReader(open_cache(directory))


def test_failed_build_keeps_what_was_finished(bad_source, cache):
    with pytest.raises(BuildError, match="4 of 44"):
        build(bad_source, cache)
    assert not list(cache.rglob("manifest.json"))
    for record_id in BAD_IDS:
        (bad_source / record_id).unlink()
    processed, copied, _ = work_done(build(bad_source, cache))
    assert processed + copied == NUM
    assert copied > 0


# --- the disk


def test_too_little_room_is_an_error_before_anything_is_written(source, cache, monkeypatch):
    plan = make_plan(source, cache)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, plan.bytes_to_write() - 1))
    with pytest.raises(BuildError, match=rf"not enough room.*{plan.bytes_to_write():,} bytes"):
        run_plan(plan)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, plan.bytes_to_write()))
    assert work_done(run_plan(plan)) == (NUM, 0, 0)


@pytest.mark.parametrize(("number", "message"), [(28, "the disk is full"), (5, "could not be written")])
def test_write_errors_are_reported_and_nothing_is_lost(source, built, number, message):
    earlier = all_shards(built)
    write_cell(source / "blast" / "p0" / "new.png", 4711)

    def fail(tasks: object) -> object:
        raise OSError(number, os.strerror(number), "somewhere/shard-1.h5")
        yield

    with pytest.raises(BuildError, match=message):
        build(source, built, engine=fail)
    assert all_shards(built) == earlier


# --- races


def test_fresh_modification_times_are_not_trusted_later(source, cache):
    path = image_paths(source)[3]
    write_cell(path, 1, mtime_ns=LISTED_NS - 1_000_000)
    build(source, cache)
    index = read_index(cache_dir(cache), load_manifest(cache_dir(cache)).index)
    assert (index.source_states[:, MTIME] == UNSETTLED_NS).sum() == 1
    write_cell(path, 2, mtime_ns=LISTED_NS - 1_000_000)
    listing = list_source([source])
    assert find_current(cache_dir(cache), source_state(listing.classes, listing.records)) is None
    later = build(source, cache, listed_at_ns=LISTED_NS + 10**12)
    assert later.num_processed == 1
    assert work_done(build(source, cache, listed_at_ns=LISTED_NS + 10**12)) == (0, 0, NUM)


def test_file_changed_between_listing_and_reading_is_stored_as_it_was_read(source, cache, tmp_path):
    plan = make_plan(source, cache)
    path = image_paths(source)[3]
    write_cell(path, 4711, mtime_ns=OLD_NS + 77)
    run_plan(plan)
    assert_same_as_fresh(source, cache, tmp_path)
    index = read_index(cache_dir(cache), load_manifest(cache_dir(cache)).index)
    row = index.table.id_texts.index(path.relative_to(source).as_posix())
    assert index.source_states[row, MTIME] == OLD_NS + 77
    assert work_done(build(source, cache)) == (0, 0, NUM)


def test_file_removed_between_listing_and_reading_is_an_unusable_image(source, cache):
    plan = make_plan(source, cache)
    image_paths(source)[3].unlink()
    with pytest.raises(BuildError, match="the file is missing"):
        run_plan(plan)


def test_plan_that_gc_has_overtaken_is_refused(source, built):
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    plan = make_plan(source, built)
    directory = cache_dir(built)
    kept = next(kept for kept in plan.targets[0].kept if kept is not None)
    (directory / kept.entry.name).unlink()
    with pytest.raises(BuildError, match="build again"):
        run_plan(plan)
    build(source, built)
    open_cache(directory)


def test_two_builds_at_once_are_refused(source, built):
    with lock_cache(cache_dir(built)), pytest.raises(CacheError, match="in use by another process"):
        build(source, built)
    assert work_done(build(source, built)) == (0, 0, NUM)


def test_progress_counts_every_image_that_is_made(source, cache):
    counts: list[int] = []
    plan = make_plan(source, cache)
    for target in plan.targets:
        target.target.directory.mkdir(parents=True)
    run_locked_build(
        plan,
        run_tasks=run_here,
        policy=FailurePolicy(),
        listed_at_ns=LISTED_NS,
        progress=counts.append,
    )
    assert sum(counts) == NUM


def test_manifest_records_what_made_the_pixels(built):
    manifest = load_manifest(cache_dir(built))
    assert manifest.library_versions["opencv"] == cv2.__version__
    assert manifest.library_versions["hdf5"] == h5py.version.hdf5_version
    assert manifest.recipe == TINY_RECIPE
    assert manifest.classes == ("blast", "normal")
    assert not (cache_dir(built) / "receipts").exists()


def test_source_without_images_is_named(source, cache):
    plan = replace(make_plan(source, cache), records=())
    with pytest.raises(BuildError, match="cells: the source has no images"):
        run_plan(plan)


def test_manifest_records_the_release_that_built_it(built):
    assert load_manifest(cache_dir(built)).library_versions["leukemia-cells"] == __version__
