"""Tasks that are made on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.building.plan import BuildPlan
from leukemia_data.building.planned_tasks import PlannedTasks
from leukemia_data.building.shard_task import largest_first

from ..helpers import build, make_plan, make_source, write_cell


@pytest.fixture
def plan(tmp_path) -> BuildPlan:
    """A build of which some shards of one size and all of the other are lacking."""
    source = make_source(tmp_path / "source")
    build(source, tmp_path / "cache", sizes_px=(16,))
    write_cell(source / "blast" / "p0" / "new.png", 4711)
    return make_plan(source, tmp_path / "cache")


def test_planning_makes_no_task(tmp_path, monkeypatch):
    monkeypatch.setattr(PlannedTasks, "_make", lambda self, number: pytest.fail("a task was made"))
    source = make_source(tmp_path / "source")
    plan = make_plan(source, tmp_path / "cache")
    assert plan.num_to_make == sum(plan.tasks.num_records()) == 40
    assert plan.bytes_to_write() > 40 * 3 * (16 * 16 + 24 * 24)
    assert sorted(largest_first(plan.tasks)) == list(range(len(plan.tasks)))


def test_a_task_is_the_same_each_time(plan):
    assert list(plan.tasks) == list(plan.tasks[:]) == [plan.tasks[n] for n in range(len(plan.tasks))]
    assert plan.tasks[-1] == plan.tasks[len(plan.tasks) - 1]
    with pytest.raises(IndexError):
        plan.tasks[len(plan.tasks)]


def test_counts_and_targets_are_known_without_the_tasks(plan):
    tasks = list(plan.tasks)
    assert plan.tasks.num_records() == [len(task.records) for task in tasks]
    assert largest_first(plan.tasks) == largest_first(tasks)
    assert [plan.tasks.targets_of(number) for number in plan.tasks.numbers] == [task.targets for task in tasks]


def test_a_task_serves_the_caches_that_lack_its_shard(plan):
    lacking = [tuple(target.size_px for target in task.targets) for task in plan.tasks]
    assert set(lacking) == {(16, 24), (24,)}
    assert len(lacking) == len(plan.tasks)


def test_paths_are_those_of_the_listing(plan):
    paths = {record.path for task in plan.tasks for record in task.records}
    assert paths == {Path(record.path) for record in plan.records}
