"""Lost tasks, with simulated rounds; tests of the engines lose real workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from leukemia_data.building.cluster_engine import LostTask, run_until_done, with_absolute_paths
from leukemia_data.building.shard_maker import run_task
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.errors import BuildError

from ..helpers import all_shards, build, make_plan, make_source


class Rounds:
    """Runs each round here, but loses the tasks for which `is_lost(position, times it was tried)`."""

    def __init__(self, is_lost: Callable[[int, int], bool]) -> None:
        self.is_lost = is_lost
        self.rounds: list[list[int]] = []
        self.tries = Counter[int]()

    def __call__(
        self, tasks: Sequence[ShardTask], positions: Sequence[int]
    ) -> Iterator[tuple[int, ShardResult] | LostTask]:
        self.rounds.append(list(positions))
        for position in positions:
            self.tries[position] += 1
            if self.is_lost(position, self.tries[position]):
                yield LostTask(position, "Killed")
            else:
                yield position, run_task(tasks[position])


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source")


@pytest.mark.parametrize(
    ("is_lost", "num_rounds"),
    [
        (lambda position, tries: False, 1),
        (lambda position, tries: tries < 2 and position % 2 == 0, 2),
        (lambda position, tries: tries < 2, 2),
        (lambda position, tries: tries < 3 and position in (1, 3), 4),
    ],
)
def test_lost_tasks_run_again_and_the_bytes_are_the_same(source, tmp_path, is_lost, num_rounds):
    rounds = Rounds(is_lost)
    build(source, tmp_path / "lossy", engine=run_until_done(rounds))
    build(source, tmp_path / "local")
    assert all_shards(tmp_path / "lossy") == all_shards(tmp_path / "local")
    assert len(rounds.rounds) == num_rounds
    assert max(rounds.tries.values()) <= 3


def test_a_task_that_is_lost_every_time_ends_as_an_error_that_names_its_images(source, tmp_path):
    rounds = Rounds(lambda position, tries: position == 2)
    plan = make_plan(source, tmp_path / "cache")
    ids = [record.record_id for record in plan.tasks[2].records]
    with pytest.raises(BuildError, match=rf"every worker that tried the shard of {', '.join(ids[:3])}.* died .*Killed"):
        build(source, tmp_path / "cache", engine=run_until_done(rounds))
    assert rounds.tries[2] == 3
    assert sum(rounds.tries.values()) == len(plan.tasks) + 2
    assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_what_waited_behind_a_killer_is_not_blamed(source, tmp_path):
    """Task 1 kills its worker; in a round with others, task 3 is lost as well."""
    rounds = Rounds(lambda position, tries: position == 1 or (position == 3 and len(rounds.rounds[-1]) > 1))
    plan = make_plan(source, tmp_path / "cache")
    blamed = plan.tasks[1].records[0].record_id
    with pytest.raises(BuildError, match=blamed):
        build(source, tmp_path / "cache", engine=run_until_done(rounds))


def test_no_tasks():
    assert list(run_until_done(Rounds(lambda *_: True))([])) == []


def test_paths_for_another_machine_are_absolute_and_the_task_is_the_same(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [task, *_] = make_plan(Path("source"), Path("cache")).tasks
    assert not task.records[0].path.is_absolute()
    absolute = with_absolute_paths(task)
    assert [record.path for record in absolute.records] == [tmp_path / record.path for record in task.records]
    assert [target.directory for target in absolute.targets] == [tmp_path / t.directory for t in task.targets]
    assert absolute.key == task.key
    assert os.fspath(tmp_path) not in task.key
