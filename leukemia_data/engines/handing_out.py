"""Tasks whose worker was lost are handed out again, a bounded number of times: the same for every engine on a network.

Tasks are idempotent and leave receipts, so a lost worker costs the shard that it was at. What waited behind a task that
kills its worker is lost with it, though no fault of its own: whatever is lost twice runs alone, and only what is lost
alone as well is blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leukemia_data.building.build import TaskRunner
from leukemia_data.building.shard_task import ShardResult, ShardTask, largest_first
from leukemia_data.errors import BuildError, listed

_ROUNDS_TOGETHER = 2
_NAMED_IMAGES = 3


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task whose worker was lost, by its position, and what the engine said of it."""

    position: int
    reason: str


RoundRunner = Callable[[Sequence[ShardTask], Sequence[int]], Iterable[tuple[int, ShardResult] | LostTask]]
"""Runs the tasks at some positions on an engine; answers each once, in whatever order."""


def run_until_done(run_round: RoundRunner) -> TaskRunner:
    """Engine that hands lost tasks out again.

    Raises
    ------
    BuildError
        When run, if a task is lost even when it runs alone.
    """

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        waiting = largest_first(tasks)
        for _ in range(_ROUNDS_TOGETHER):
            lost: list[int] = []
            for answer in run_round(tasks, waiting):
                if isinstance(answer, LostTask):
                    lost.append(answer.position)
                else:
                    yield answer
            waiting = lost
            if not waiting:
                return
        for position in waiting:
            for answer in run_round(tasks, [position]):
                if isinstance(answer, LostTask):
                    raise _lost_for_good(tasks[position], answer)
                yield answer

    return run


def with_absolute_paths(task: ShardTask) -> ShardTask:
    """The task for a worker whose current folder is another one."""
    records = tuple(
        replace(record, path=record.path.absolute()) if isinstance(record.path, Path) else record
        for record in task.records
    )
    targets = tuple(replace(target, directory=target.directory.absolute()) for target in task.targets)
    return replace(task, records=records, targets=targets)


def _lost_for_good(task: ShardTask, lost: LostTask) -> BuildError:
    ids = listed([record.record_id for record in task.records], most=_NAMED_IMAGES)
    return BuildError(
        f"every worker that tried the shard of {ids} died (killed, or out of memory; {lost.reason}): give the workers "
        "more memory, or look at these images; finished shards are kept for the next build"
    )
