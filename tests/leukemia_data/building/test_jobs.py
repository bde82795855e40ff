"""Builds by jobs and commit compared with one build of the same source."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from leukemia_data.building import jobs
from leukemia_data.building.build import FailurePolicy
from leukemia_data.building.build_request import BuildSummary
from leukemia_data.building.garbage import KEPT_DAYS, collect_garbage, forget_job_file, mark_pending, pending_mark
from leukemia_data.building.job_file import JobFile, JobSettings, write_job_file
from leukemia_data.building.jobs import ShareSummary, commit_job_file, run_share, share_bounds
from leukemia_data.building.shard_task import ShardTask
from leukemia_data.caches.manifest import load_manifest, manifest_digest
from leukemia_data.errors import BuildError, UsageError
from leukemia_data.files import atomic
from leukemia_data.files.lock import lock_caches
from leukemia_data.sources.source import list_source

from ..helpers import (
    CAPACITY,
    LISTED_NS,
    OLD_NS,
    SIZES,
    all_shards,
    build,
    cache_dir,
    file_states,
    image_paths,
    make_plan,
    make_source,
    run_here,
    write_cell,
)


def job_file(source: Path, cache: Path, path: Path) -> JobFile:
    """The work of `ldata plan`."""
    plan = make_plan(source, cache)
    directories = [target.target.directory for target in plan.targets]
    settings = JobSettings(
        inputs=plan.inputs,
        codecs=tuple(target.target.codec for target in plan.targets),
        listed_at_ns=LISTED_NS,
        commits=tuple(map(manifest_digest, directories)),
        quarantined=plan.quarantined,
    )
    with lock_caches(directories):
        written = write_job_file(path, plan, settings)
        mark_pending(directories, written.digest, path)
    return written


def share(plan: JobFile, number: int, num_shares: int) -> ShareSummary:
    return run_share(plan, number, num_shares, choose_engine=lambda _: run_here, progress=lambda _: None)


def commit(plan: JobFile, max_bad: int | None = None) -> BuildSummary:
    return commit_job_file(plan, policy=FailurePolicy(max_bad), progress=lambda _: None)


def all_files(root: Path) -> dict[str, bytes]:
    """Every file but locks."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def plan(source, cache, tmp_path) -> JobFile:
    return job_file(source, cache, tmp_path / "cells.plan")


@pytest.mark.parametrize(("num_tasks", "num_shares"), [(0, 3), (1, 1), (10, 3), (3, 10), (97, 8)])
def test_shares_are_all_tasks_once_and_nearly_equal(num_tasks, num_shares):
    bounds = [share_bounds(number, num_shares, num_tasks) for number in range(1, num_shares + 1)]
    assert [task for first, end in bounds for task in range(first, end)] == list(range(num_tasks))
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("number", "num_shares"), [(0, 3), (4, 3), (1, 0), (-1, 3)])
def test_there_is_no_such_share(number, num_shares):
    with pytest.raises(UsageError, match="count from 1"):
        share_bounds(number, num_shares, 10)


def test_shares_in_any_order_and_twice_make_the_bytes_of_one_build(source, cache, plan, tmp_path):
    for number in (3, 1, 3, 4, 2):
        share(plan, number, 4)
    summary = commit(plan)
    assert summary.quarantined == ()
    build(source, tmp_path / "alone")
    assert all_files(cache) == all_files(tmp_path / "alone")


def test_a_share_made_again_reads_no_image(plan, source):
    first = share(plan, 2, 3)
    for path in image_paths(source):
        path.unlink()
    again = share(plan, 2, 3)
    assert (again.num_processed, again.num_found) == (0, first.num_processed)
    assert again.num_shards == first.num_shards > 1


def test_missing_shards_are_named_with_the_commands_that_make_them_and_nothing_is_committed(cache, plan, source):
    share(plan, 1, 2)
    share(plan, 2, 2)
    lost = next(path for path in cache.rglob("shard-*.h5"))
    lost.unlink()
    with pytest.raises(BuildError, match=rf"^1 of {plan.num_tasks} shards of .* are not made") as caught:
        commit(plan)
    assert not list(cache.rglob("manifest.json"))
    [command] = [line.strip() for line in str(caught.value).splitlines() if "--task" in line and "ldata" in line]
    number, total = map(int, command.rpartition(" ")[2].split("/"))
    assert command == f"ldata build --plan {plan.path} --task {number}/{total}"
    share(plan, number, total)
    assert commit(plan).num_kept == 0
    assert lost.is_file()


def test_a_shard_with_other_bytes_counts_as_missing(cache, plan):
    share(plan, 1, 1)
    torn = next(cache.rglob("shard-*.h5"))
    data = bytearray(torn.read_bytes())
    data[-1] ^= 1
    torn.write_bytes(bytes(data))
    with pytest.raises(BuildError, match=r"^1 of .* are not made"):
        commit(plan)


def test_bad_images_of_shares_reach_the_commit_which_decides(source, cache, plan, tmp_path):
    bad = image_paths(source)[3]
    bad.write_bytes(b"no image")
    os.utime(bad, ns=(OLD_NS, OLD_NS))
    summaries = [share(plan, number, 3) for number in (1, 2, 3)]
    failed = [failure.record_id for summary in summaries for failure in summary.failures]
    assert failed == [bad.relative_to(source).as_posix()]
    with pytest.raises(BuildError, match=rf"1 of 40 images cannot be used.*\n  {failed[0]}: "):
        commit(plan)
    with pytest.raises(BuildError, match="more than --max-bad allows"):
        commit(plan, max_bad=0)
    assert not list(cache.rglob("manifest.json"))
    assert [image.record_id for image in commit(plan, max_bad=1).quarantined] == failed
    build(source, tmp_path / "alone", max_bad=1)
    assert all_shards(cache) == all_shards(tmp_path / "alone")


def test_a_build_tries_images_again_that_a_share_could_not_use(source, cache, plan):
    """Repaired since, with the same modification time: listing and receipts are those of the plan."""
    good = image_paths(source)[3].read_bytes()
    image_paths(source)[3].write_bytes(b"no image".ljust(len(good), b"."))
    os.utime(image_paths(source)[3], ns=(OLD_NS, OLD_NS))
    share(plan, 1, 1)
    image_paths(source)[3].write_bytes(good)
    os.utime(image_paths(source)[3], ns=(OLD_NS, OLD_NS))
    summary = build(source, cache)
    assert summary.quarantined == ()
    assert 0 < summary.num_processed <= CAPACITY


def test_a_shard_without_a_usable_image(source, cache, tmp_path, plan):
    [record_ids] = {tuple(record.record_id for record in task.records) for task in plan.tasks(0, 1)}
    for record_id in record_ids:
        (source / record_id).write_bytes(b"no image")
        os.utime(source / record_id, ns=(OLD_NS, OLD_NS))
    share(plan, 1, 1)
    assert len(commit(plan, max_bad=CAPACITY).quarantined) == len(record_ids)
    build(source, tmp_path / "alone", max_bad=CAPACITY)
    assert all_shards(cache) == all_shards(tmp_path / "alone")


def test_an_image_that_changes_between_plan_and_share_is_found_changed_by_the_next_build(source, cache, plan, tmp_path):
    changed = image_paths(source)[5]
    write_cell(changed, 4711, mtime_ns=OLD_NS + 7)
    for number in (2, 1):
        share(plan, number, 2)
    commit(plan)
    summary = build(source, cache)
    assert summary.num_processed == 0
    build(source, tmp_path / "alone")
    assert all_files(cache) == all_files(tmp_path / "alone")


def test_an_image_that_changes_between_share_and_commit_is_made_anew_by_the_next_build(source, cache, plan, tmp_path):
    share(plan, 1, 1)
    write_cell(image_paths(source)[5], 4711, mtime_ns=OLD_NS + 7)
    commit(plan)
    assert build(source, cache).num_processed == 1
    build(source, tmp_path / "alone")
    assert all_shards(cache) == all_shards(tmp_path / "alone")


def test_a_later_state_that_another_build_committed_is_not_overwritten(source, cache, plan, tmp_path):
    share(plan, 1, 1)
    write_cell(image_paths(source)[5], 4711, mtime_ns=OLD_NS + 7)
    build(source, cache)
    later = all_shards(cache)
    with pytest.raises(BuildError, match=r"changed by another build after .* plan again"):
        commit(plan)
    assert all_shards(cache) == later
    # The finished shards of all other images are used.
    assert list(cache.rglob("receipts/*.json"))


def test_a_build_of_the_very_state_that_was_planned_is_no_obstacle(source, cache, plan):
    share(plan, 1, 2)
    build(source, cache)
    committed = all_shards(cache)
    assert commit(plan).num_kept == 40
    assert all_shards(cache) == committed


def test_an_incremental_plan_keeps_what_is_unchanged(source, cache, tmp_path):
    build(source, cache)
    write_cell(image_paths(source)[5], 4711, mtime_ns=OLD_NS + 7)
    write_cell(source / "blast" / "p9" / "new.png", 4712)
    image_paths(source)[7].unlink()
    plan = job_file(source, cache, tmp_path / "cells.plan")
    assert 0 < plan.num_images < 4 * CAPACITY
    share(plan, 1, 1)
    commit(plan)
    build(source, tmp_path / "alone")
    assert all_shards(cache) == all_shards(tmp_path / "alone")


def test_an_image_that_was_missing_when_planned_and_came_back_waits_for_the_next_build(source, cache, tmp_path):
    """Whether a share's shard holds it may not depend on when the plan is committed."""
    back = image_paths(source)[5]
    good = back.read_bytes()
    back.unlink()
    back.symlink_to(tmp_path / "nowhere")
    plan = job_file(source, cache, tmp_path / "cells.plan")
    assert len(plan.settings.quarantined) == 1
    share(plan, 1, 2)
    back.unlink()
    back.write_bytes(good)
    os.utime(back, ns=(OLD_NS, OLD_NS))
    share(plan, 2, 2)
    assert len(commit(plan, max_bad=1).quarantined) == 1
    assert build(source, cache).quarantined == ()


def test_a_machine_that_would_make_other_pixels_refuses(cache, plan):
    other = replace(
        plan, settings=replace(plan.settings, inputs=replace(plan.settings.inputs, opencv_version="4.11.0"))
    )
    mark_pending([target.directory for target in other.settings.targets], plan.digest, plan.path)
    with pytest.raises(BuildError, match="not the release"):
        share(other, 1, 2)


def test_a_share_of_a_committed_plan_makes_nothing(cache, plan):
    share(plan, 1, 1)
    commit(plan)
    before = file_states(cache)
    with pytest.raises(BuildError, match="committed or given up: plan again"):
        share(plan, 1, 2)
    assert file_states(cache) == before


# --- gc beside jobs


def test_gc_leaves_what_jobs_have_made_until_the_commit(source, cache, plan):
    share(plan, 1, 2)
    report = collect_garbage(cache, remove=True)
    assert report.num_bytes == 0
    assert len(report.skipped) == len(SIZES)
    assert all("waits for `ldata commit`" in reason for reason in report.skipped)
    share(plan, 2, 2)
    commit(plan)
    assert collect_garbage(cache, remove=True) == type(report)((), (), is_removed=True)
    assert len(list_source([source]).records) == load_manifest(cache_dir(cache)).num_samples


def test_gc_takes_what_a_forgotten_plan_left_and_its_mark(cache, plan):
    share(plan, 1, 2)
    long_ago_s = time.time() - (KEPT_DAYS * 24 + 1) * 3600
    for mark in cache.rglob("plan-*.json"):
        os.utime(mark, (long_ago_s, long_ago_s))
    assert pending_mark(cache_dir(cache)) is None
    collect_garbage(cache, remove=True)
    assert [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_every_share_renews_the_mark(cache, plan):
    [first, *_] = marks = list(cache.rglob("plan-*.json"))
    assert len(marks) == len(SIZES)
    os.utime(first, (1, 1))
    assert pending_mark(first.parent) is None
    share(plan, 1, 8)
    assert pending_mark(first.parent) == first


class LazyTasks(Sequence[ShardTask]):
    """A hundred thousand tasks, made on demand, with a count of those alive."""

    def __init__(self, task: ShardTask) -> None:
        self._task, self.alive, self.most_alive = task, weakref.WeakSet[Marked](), 0

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, position: int) -> ShardTask:
        task = Marked(self._task.records, self._task.targets, self._task.recipe)
        self.alive.add(task)
        self.most_alive = max(self.most_alive, len(self.alive))
        return task


class Marked(ShardTask):
    """A task that can be referred to weakly, and is equal to no other."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def test_commit_makes_few_tasks_ahead_of_those_that_it_has_read(plan):
    run = jobs._find_made(plan)
    tasks = LazyTasks(plan.tasks(0, 1)[0])
    share(plan, 1, 1)
    for number, _ in enumerate(run(tasks)):
        if number == 150:
            break
    assert tasks.most_alive < 40


def test_a_mark_that_is_read_on_windows_is_removed_when_it_is_let_go(tmp_path, monkeypatch):
    held, unlink = [PermissionError(13, "in use"), PermissionError(13, "in use")], Path.unlink
    for error in held:
        error.winerror = 32

    def let_go_later(path, missing_ok=False):
        if held:
            raise held.pop()
        unlink(path, missing_ok)

    monkeypatch.setattr(atomic, "_IS_WINDOWS", True)
    mark_pending([tmp_path], "0" * 64, tmp_path / "plan.json")
    monkeypatch.setattr(Path, "unlink", let_go_later)
    forget_job_file([tmp_path], "0" * 64)
    assert pending_mark(tmp_path) is None
    assert held == []
