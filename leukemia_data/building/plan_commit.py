"""The commit of a plan whose shards were made by jobs: as a build that finds them all made.

The plan is made again from its own listing, under the caches' locks, so that what is committed is what is there. Each
shard is read once, for a receipt is believed only if the shard's bytes are those that it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from leukemia_data.building.build import BuildSummary, FailurePolicy, TaskRunner, run_locked_build
from leukemia_data.building.cache_home import DiskHome
from leukemia_data.building.pending_plan import forget_plan
from leukemia_data.building.plan import BuildPlan, plan_build
from leukemia_data.building.plan_file import PlanFile
from leukemia_data.building.receipts import find_receipts
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.caches.manifest import manifest_digest
from leukemia_data.errors import BuildError, listed

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
        From :func:`leukemia_data.building.plan_file.open_plan`.
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
