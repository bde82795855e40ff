from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.errors import CacheError
from leukemia_data.records.fingerprint import cache_fingerprint
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source

from ..helpers import (
    CAPACITY,
    TINY_RECIPE,
    build,
    cache_dir,
    file_states,
    flip_bit,
    image_paths,
    make_plan,
    make_source,
    named_shards,
    write_cell,
)


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source")


def test_plan_of_a_new_cache_makes_everything(source, tmp_path):
    plan = make_plan(source, tmp_path / "cache")
    assert len(plan.tasks) > 3
    assert sum(len(task.records) for task in plan.tasks) == 40
    for target in plan.targets:
        fingerprint = cache_fingerprint(TINY_RECIPE, target.target.size_px, cv2.__version__)
        name = f"{target.target.size_px}-{fingerprint[:12]}"
        assert target.target.directory == tmp_path / "cache" / "cells" / name
        assert target.kept == (None,) * len(plan.tasks)
    assert not (tmp_path / "cache").exists()


def test_plan_of_a_finished_cache_is_empty_and_planning_writes_nothing(source, tmp_path):
    build(source, tmp_path / "cache")
    before = file_states(tmp_path)
    plan = make_plan(source, tmp_path / "cache")
    assert len(plan.tasks) == 0
    assert plan.notes == plan.quarantined == ()
    assert file_states(tmp_path) == before


@pytest.mark.parametrize("sizes_px", [(16,), (64, 128)])
def test_bytes_to_write_bounds_what_is_written_from_above_and_closely(tmp_path, sizes_px):
    source = make_source(tmp_path / "source", 150)
    plan = make_plan(source, tmp_path / "cache", sizes_px=sizes_px, capacity=128)
    build(source, tmp_path / "cache", sizes_px=sizes_px, capacity=128)
    data = list((tmp_path / "cache").rglob("*.h5"))
    written = sum(path.stat().st_size for path in data)
    assert written <= plan.bytes_to_write()
    if sizes_px != (16,):
        assert plan.bytes_to_write() < 1.1 * written


def test_bytes_to_write_counts_new_shards_only(source, tmp_path):
    build(source, tmp_path / "cache", sizes_px=(64,))
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    plan = make_plan(source, tmp_path / "cache", sizes_px=(64,))
    [size] = {len(task.records) for task in plan.tasks}
    assert size <= CAPACITY
    assert size * 64 * 64 * 3 < plan.bytes_to_write() < size * 64 * 64 * 3 + 50_000


def test_other_source_under_the_same_name_is_refused(source, tmp_path):
    build(source, tmp_path / "cache")
    before = file_states(tmp_path / "cache")
    other = tmp_path / "other"
    for number in range(5):
        write_cell(other / "x" / f"{number}.png", number)
    with pytest.raises(CacheError, match=r"made from other images.*40 ids.*--name"):
        make_plan(other, tmp_path / "cache")
    assert file_states(tmp_path / "cache") == before
    assert len(make_plan(other, tmp_path / "cache", name="other").tasks) > 0


def test_a_part_of_the_source_is_the_same_source(source, tmp_path):
    build(source, tmp_path / "cache")
    for path in image_paths(source)[1:]:
        path.unlink()
    assert sum(len(task.records) for task in make_plan(source, tmp_path / "cache").tasks) == 1


@pytest.mark.parametrize("damage", ["index missing", "index flipped", "manifest broken", "manifest of other counts"])
def test_damaged_index_or_manifest_is_reported_and_everything_planned_anew(source, tmp_path, damage):
    build(source, tmp_path / "cache", sizes_px=(16,))
    directory = cache_dir(tmp_path / "cache")
    [index] = directory.glob("index-*.h5")
    manifest = directory / "manifest.json"
    if damage == "index missing":
        index.unlink()
    elif damage == "index flipped":
        flip_bit(index, 2000)
    elif damage == "manifest broken":
        manifest.write_text(manifest.read_text(encoding="utf-8")[:200], encoding="utf-8")
    else:
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(text.replace('"num_samples": 8', '"num_samples": 7'), encoding="utf-8")
    plan = make_plan(source, tmp_path / "cache", sizes_px=(16,))
    assert len(plan.tasks) == len(plan.targets[0].kept) > 0
    assert "built anew" in plan.notes[0]


def test_missing_shard_is_reported_and_made_anew_from_its_files(source, tmp_path):
    build(source, tmp_path / "cache", sizes_px=(16,))
    directory = cache_dir(tmp_path / "cache")
    name = sorted(named_shards(directory))[0]
    (directory / name).unlink()
    plan = make_plan(source, tmp_path / "cache", sizes_px=(16,))
    assert len(plan.tasks) == 1
    assert plan.notes == ("1 shards of the 16 px cache are missing or damaged and are made anew",)


def test_names_that_are_no_utf8_are_planned_and_kept(source, tmp_path):
    try:
        write_cell(source / "blast" / "p\udcff" / "x.png", 1)
    except (UnicodeEncodeError, OSError):
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_source([source], options=ReadingOptions(class_level=1, subject_from="folder"))
    build(listing, tmp_path / "cache")
    assert len(make_plan(listing, tmp_path / "cache").tasks) == 0
    assert "p\\xff" in {record.subject for record in listing.records}


def test_unchanged_rows_are_planned_as_copies(source, tmp_path):
    build(source, tmp_path / "cache")
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    plan = make_plan(source, tmp_path / "cache")
    for task in plan.tasks:
        new = {record.record_id for record in task.records} - task.unchanged.keys()
        assert new <= {"blast/p0/new.png"}
        assert all(set(sample.rows) == {16, 24} for sample in task.unchanged.values())
    assert np.sum([len(task.unchanged) for task in plan.tasks]) > 0
