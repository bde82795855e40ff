"""Job files compared with the plan in memory, and damaged ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leukemia_data.building.job_file import JobFile, JobSettings, open_job_file, write_job_file
from leukemia_data.building.plan import BuildPlan
from leukemia_data.caches.manifest import QuarantinedImage
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.sources.source import list_source
from leukemia_data.stores.object_store import stored_url
from leukemia_data.stores.url import parse_url

from ..helpers import (
    LISTED_NS,
    SIZES,
    build,
    flip_bit,
    image_paths,
    make_plan,
    make_source,
)


def settings_of(plan: BuildPlan) -> JobSettings:
    return JobSettings(
        inputs=plan.inputs,
        codecs=tuple(target.target.codec for target in plan.targets),
        listed_at_ns=LISTED_NS,
        commits=("0" * 32, None),
        quarantined=(QuarantinedImage("gone\udcff.png", "the file is missing"),),
    )


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source", 24)


@pytest.fixture
def plan(source, tmp_path) -> BuildPlan:
    return make_plan(source, tmp_path / "cache")


@pytest.fixture
def written(plan, tmp_path) -> JobFile:
    return write_job_file(tmp_path / "cells.plan", plan, settings_of(plan))


def test_tasks_images_and_settings_come_back(plan, written, tmp_path):
    tasks = list(plan.tasks)
    assert len(tasks) > 3
    assert written.tasks(0, len(tasks)) == tasks
    assert written.tasks(1, 3) == tasks[1:3]
    assert written.tasks(2, 2) == []
    assert [task.key for task in written.tasks(0, 2)] == [task.key for task in tasks[:2]]
    assert written.records() == list(plan.records)
    assert (written.num_tasks, written.num_images, written.num_records) == (len(tasks), 24, 24)
    assert written.settings == settings_of(plan)
    assert [target.directory for target in written.settings.targets] == [t.target.directory for t in plan.targets]


def test_shards_that_stay_are_no_tasks_but_their_images_are_listed(source, tmp_path):
    """One cache is there already, one lacks every shard; then both are and one image changes."""
    cache = tmp_path / "cache"
    build(source, cache, sizes_px=SIZES[:1])
    half = make_plan(source, cache)
    written = write_job_file(tmp_path / "half", half, settings_of(half))
    assert {task.targets for task in written.tasks(0, written.num_tasks)} == {(half.targets[1].target,)}
    build(source, cache)
    os.utime(image_paths(source)[0], ns=(1, 1))
    changed = make_plan(source, cache)
    written = write_job_file(tmp_path / "changed", changed, settings_of(changed))
    [task] = written.tasks(0, written.num_tasks)
    assert image_paths(source)[0] in [record.path for record in task.records]
    assert written.records() == list(changed.records)


def test_plan_with_nothing_to_make(source, tmp_path):
    build(source, tmp_path / "cache")
    plan = make_plan(source, tmp_path / "cache")
    written = write_job_file(tmp_path / "plan", plan, settings_of(plan))
    assert (written.num_tasks, written.num_images, written.tasks(0, 0)) == (0, 0, [])
    assert written.records() == list(plan.records)


@pytest.mark.skipif(os.name == "nt", reason="names there are always valid text")
def test_odd_names_and_relative_paths_survive(tmp_path, monkeypatch):
    folder = tmp_path / "source" / "blast"
    make_source(tmp_path / "source", 2)
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff\n.png")).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    listing = list_source([Path("source")])
    plan = make_plan(listing, tmp_path / "cache")
    written = write_job_file(tmp_path / "plan", replace(plan, records=listing.records), settings_of(plan))
    monkeypatch.chdir("/")
    assert [replace(r, path=r.path.absolute()) for r in written.records()] == [
        replace(r, path=tmp_path / r.path) for r in listing.records
    ]
    assert all(record.path.is_file() for record in written.records())


def test_images_in_a_store_are_read_there_whatever_their_names(source, tmp_path):
    """A ``#`` or ``?`` in an object's name is a letter as any other."""
    bucket = stored_url(parse_url(f"memory://{tmp_path.name}-{id(tmp_path)}"))
    for number, path in enumerate(image_paths(source)):
        bucket.store.write(f"{path.parent.parent.name}/{number}#?%20 @.png", path.read_bytes())
    listing = list_source([bucket])
    plan = make_plan(listing, tmp_path / "cache")
    written = write_job_file(tmp_path / "plan", plan, settings_of(plan))
    assert written.records() == list(listing.records)
    assert written.records()[0].path.read_bytes() == listing.records[0].path.read_bytes()


def test_each_job_checks_the_rows_that_it_reads_and_no_others(plan, written):
    with h5py.File(written.path, "r+") as file:
        row = int(file["first_rows"][1])
        file["labels"][row] = 1 - file["labels"][row]
    opened = open_job_file(written.path)
    assert opened.tasks(0, 1) == list(plan.tasks[:1])
    assert opened.tasks(2, 4) == list(plan.tasks[2:4])
    for read in (lambda: opened.tasks(1, 2), lambda: opened.tasks(0, 3), opened.records):
        with pytest.raises(CacheError, match=r"damaged: the rows of shard 2 .* plan again"):
            read()


@pytest.mark.parametrize("name", ["settings", "first_rows", "row_digests", "lacking"])
def test_any_other_damage_is_noticed_at_once(written, name):
    with h5py.File(written.path, "r") as file:
        offset = file[name].id.get_offset()
    flip_bit(written.path, offset)
    with pytest.raises(CacheError, match=r"cells\.plan is damaged: its digest"):
        open_job_file(written.path)


@pytest.mark.parametrize("content", [None, b"", b"not HDF5 at all", "cut"])
def test_what_is_no_plan_is_refused(written, tmp_path, content):
    path = tmp_path / "other"
    if content is not None:
        path.write_bytes(written.path.read_bytes()[:-3000] if content == "cut" else content)
    with pytest.raises(CacheError, match="other"):
        open_job_file(path)


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_version_is_refused(written, version):
    with h5py.File(written.path, "r+") as file:
        file.attrs["format_version"] = version
    with pytest.raises(CacheError, match=rf"another release \(version {version}\): plan again with `ldata plan`"):
        open_job_file(written.path)


def test_rows_in_another_file_are_refused(written, tmp_path):
    with h5py.File(written.path, "r+") as file:
        labels = file["labels"][()]
        del file["labels"]
        np.save(tmp_path / "elsewhere.npy", labels)
        file.create_dataset("labels", labels.shape, labels.dtype, external=[(str(tmp_path / "elsewhere.npy"), 0, 999)])
    with pytest.raises((CacheError, UsageError), match="not stored contiguously"):
        open_job_file(written.path)
