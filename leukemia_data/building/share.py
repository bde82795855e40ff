"""One share of a plan's shards: what a job of a batch system makes, on whatever machine, in whatever order, any time.

A share takes no lock and commits nothing: it leaves shards and receipts, which the commit of the plan collects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leukemia_data.building.build import TaskRunner, telling_write_faults
from leukemia_data.building.pending_plan import is_marked, mark_pending
from leukemia_data.building.plan_file import PlanFile
from leukemia_data.caches.manifest_entries import QuarantinedImage
from leukemia_data.errors import BuildError, UsageError


@dataclass(frozen=True, slots=True)
class ShareSummary:
    """What a share did: shards it consists of, images that were processed, that were found made, and the unusable."""

    num_shards: int
    num_processed: int
    num_found: int
    failures: tuple[QuarantinedImage, ...]


def share_bounds(share: int, num_shares: int, num_tasks: int) -> tuple[int, int]:
    """First and end number of the tasks of a share; `share` counts from 1.

    >>> [share_bounds(share, 3, 10) for share in (1, 2, 3)]
    [(0, 3), (3, 6), (6, 10)]

    Raises
    ------
    UsageError
        If there is no such share.
    """
    if not 1 <= share <= num_shares:
        raise UsageError(f"--task {share}/{num_shares}: shares count from 1 to their number")
    return (share - 1) * num_tasks // num_shares, share * num_tasks // num_shares


def run_share(
    plan: PlanFile,
    share: int,
    num_shares: int,
    *,
    choose_engine: Callable[[int], TaskRunner],
    progress: Callable[[int], None],
) -> ShareSummary:
    """Make the shards of a share, or find them made. The same share may be made many times, even at once.

    Parameters
    ----------
    share, num_shares
        Which share (from 1) of how many.
    choose_engine
        From the number of tasks to the engine that runs them.
    progress
        Called with the number of images that each finished shard adds.

    Raises
    ------
    UsageError
        If there is no such share.
    CacheError
        If the plan is damaged.
    BuildError
        If the plan is committed, a shard cannot be written, or this machine would make other pixels than planned.
    """
    tasks = plan.tasks(*share_bounds(share, num_shares, plan.num_tasks))
    directories = [target.directory for target in plan.settings.targets]
    results = []
    if not is_marked(directories, plan.digest):
        raise BuildError(f"{plan.path} was committed or given up: plan again if there is more to do")
    with telling_write_faults(directories[0]):
        mark_pending(directories, plan.digest, plan.path)
        for _, result in choose_engine(len(tasks))(tasks):
            results.append(result)
            progress(result.num_records)
    return ShareSummary(
        num_shards=len(tasks),
        num_processed=sum(result.num_processed for result in results),
        num_found=sum(result.num_copied for result in results),
        failures=tuple(failure for result in results for failure in result.failures),
    )
