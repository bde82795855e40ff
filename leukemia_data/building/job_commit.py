"""What the jobs of a job file do, and the commit of what they made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from leukemia_data.building.build import (
    BuildSummary,
    DiskHome,
    FailurePolicy,
    TaskRunner,
    run_locked_build,
    telling_write_faults,
)
from leukemia_data.building.job_file import PlanFile, forget_plan, is_marked, mark_pending
from leukemia_data.building.plan import BuildPlan, plan_build
from leukemia_data.building.shard_task import ShardResult, ShardTask, find_receipts
from leukemia_data.caches.manifest import QuarantinedImage, manifest_digest
from leukemia_data.errors import BuildError, UsageError, listed


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


_NUM_THREADS = 4


def run_plan_commit(
    plan: PlanFile,
    *,
    policy: FailurePolicy,
    package_version: str,
    progress: Callable[[int], None],
) -> BuildSummary:
    """Commit a plan's caches, whose locks the caller holds.

    Parameters
    ----------
    plan
        From :func:`leukemia_data.building.job_file.open_plan`.
    policy
        What to do about unusable images.
    package_version
        Recorded in the manifests.
    progress
        Called with the number of images that each found shard adds.

    Raises
    ------
    BuildError
        If shards are missing, another build committed since the plan was made, or too many images are unusable. The
        caches stay as they were.
    """
    settings = plan.settings
    current = plan_build(
        name=settings.name,
        cache_root=settings.cache_root,
        recipe=settings.recipe,
        sizes_px=settings.sizes_px,
        classes=settings.classes,
        records=plan.records(),
        opencv_version=settings.opencv_version,
        shard_capacity=settings.shard_capacity,
        codec=settings.codec,
        quarantined=settings.quarantined,
        recheck_ns=settings.recheck_ns,
        reading=settings.reading,
    )
    _check_commits(plan, current)
    summary = run_locked_build(
        current,
        run_tasks=_find_made(plan),
        policy=policy,
        listed_at_ns=settings.listed_at_ns,
        package_version=package_version,
        progress=progress,
        home=DiskHome(is_made=True),
    )
    forget_plan([target.directory for target in settings.targets], plan.digest)
    return summary


def _check_commits(plan: PlanFile, current: BuildPlan) -> None:
    """Refuse to put an older state over a later one; a cache that holds what was planned already is none."""
    for target, planned_on in zip(current.targets, plan.settings.commits, strict=True):
        directory = target.target.directory
        if manifest_digest(directory) != planned_on and any(kept is None for kept in target.kept):
            raise BuildError(
                f"{directory} was changed by another build after {plan.path} was made: plan again; finished shards of "
                "unchanged images are found again"
            )


def _find_made(plan: PlanFile) -> TaskRunner:
    """Engine that makes nothing: it finds what jobs have made, and tells what they have not."""

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        missing = []
        with ThreadPoolExecutor(_NUM_THREADS) as readers:
            results = readers.map(partial(find_receipts, take_failures=True), tasks)
            for position, result in enumerate(results):
                if result is None:
                    missing.append(tasks[position])
                else:
                    yield position, result
        if missing:
            raise _not_made(plan, missing)

    return run


def _not_made(plan: PlanFile, missing: Sequence[ShardTask]) -> BuildError:
    number_of_id = {task.records[0].record_id: n for n, task in enumerate(plan.tasks(0, plan.num_tasks), 1)}
    numbers = [number_of_id.get(task.records[0].record_id) for task in missing]
    if None in numbers:
        return BuildError(f"shards that were there when {plan.path} was made are gone: plan again")
    total = plan.num_tasks
    commands = listed(
        (f"ldata build --plan {plan.path} --task {number}/{total}" for number in numbers), separator="\n  "
    )
    return BuildError(
        f"{len(missing)} of {total} shards of {plan.path} are not made. These commands make them, one each "
        f"(or their shares again, or --task 1/1 all of them); then commit again:\n  {commands}"
    )
