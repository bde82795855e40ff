"""Builds by jobs of a batch system: write a job file, run one job's part of the shards, commit the caches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from leukemia_data.building.build import DiskCommitTarget, FailurePolicy, run_locked_build, write_faults_named
from leukemia_data.building.build_request import BuildRequest, BuildSummary, MaxBad
from leukemia_data.building.engine import EngineChoice
from leukemia_data.building.garbage import forget_job_file, is_marked, mark_pending
from leukemia_data.building.job_file import JobFile, JobSettings, open_job_file, write_job_file
from leukemia_data.building.listed_build import locked, newest_state, plan_listed, with_caution
from leukemia_data.building.plan import BuildPlan, plan_build
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner, find_receipts
from leukemia_data.caches.manifest import QuarantinedImage, manifest_digest
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import BuildError, UsageError, listed
from leukemia_data.files.lock import lock_caches, note_waiting

_NUM_THREADS = 4
_TASKS_AHEAD = 4 * _NUM_THREADS


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """Summary of a job file.

    Attributes
    ----------
    num_shards, num_images, num_bytes
        Shards to make, their images, and the bytes that they and the indexes take.
    num_kept, num_unusable
        Images in kept shards, and images known to be unusable.
    """

    path: Path
    num_shards: int
    num_images: int
    num_kept: int
    num_unusable: int
    num_bytes: int
    caches: tuple[Path, ...]

    def to_dict(self) -> dict[str, object]:
        """Return all fields as JSON values."""
        values = asdict(self)
        return {"plan": str(values.pop("path")), **values, "caches": [str(cache) for cache in self.caches]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSummary:
    """Summary of a job.

    Attributes
    ----------
    share, num_shares
        Which part of the shards (from 1), of how many.
    num_shards
        Shards of the part.
    num_processed, num_found
        Images that were preprocessed, and images in shards that an earlier run had finished.
    failures
        Unusable images.
    """

    share: int
    num_shares: int
    num_shards: int
    num_processed: int
    num_found: int
    failures: tuple[QuarantinedImage, ...]

    def to_dict(self) -> dict[str, object]:
        """Return all fields as JSON values."""
        return {
            "task": f"{self.share}/{self.num_shares}",
            "num_shards": self.num_shards,
            "num_processed": self.num_processed,
            "num_found": self.num_found,
            "unusable": [asdict(failure) for failure in self.failures],
        }


def plan_jobs(request: BuildRequest, path: Path) -> JobPlan:
    """Plan a build and write it to a job file.

    The request's caches must be in a folder; its path and `path`, the file to write, are absolute.

    Raises
    ------
    UsageError, SourceError
        If the source cannot be read, or the folder of `path` is missing.
    CacheError
        If the caches are locked and the request does not wait, or an earlier cache was made from other images.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent} for the plan (`--out`)")
    first = request.list_first()
    directories = request.directories(first.listing)
    with locked(request, first, "plan"):
        listing, _ = newest_state(request, first)
        plan = plan_listed(request, listing)
        settings = JobSettings(
            inputs=plan.inputs,
            codecs=tuple(target.target.codec for target in plan.targets),
            listed_at_ns=listing.listed_at_ns,
            commits=tuple(manifest_digest(target.target.directory) for target in plan.targets),
            quarantined=plan.quarantined,
        )
        written = write_job_file(path, plan, settings)
        mark_pending(directories, written.digest, path)
    num_images, num_unusable = plan.num_to_make, len(plan.quarantined)
    if num_unusable:
        request.console.note(f"note: {num_unusable} images cannot be used: commit with --on-error quarantine")
    return JobPlan(
        path=path,
        num_shards=written.num_tasks,
        num_images=num_images,
        num_kept=len(plan.records) - num_unusable - num_images,
        num_unusable=num_unusable,
        num_bytes=plan.bytes_to_write(),
        caches=tuple(directories),
    )


def run_job(
    path: Path, share: int, num_shares: int, engine: EngineChoice, console: Console = NULL_CONSOLE
) -> ShareSummary:
    """Make one part of the shards of a job file; see :func:`run_share` for the errors."""
    engine.check()
    job_file = open_job_file(path)
    num_images = job_file.num_images_of(*share_bounds(share, num_shares, job_file.num_tasks))
    with console.progress(num_images, "building") as bar:
        return run_share(job_file, share, num_shares, choose_engine=engine.runner, progress=bar.update)


def share_bounds(share: int, num_shares: int, num_tasks: int) -> tuple[int, int]:
    """Return the first task of a part (from 0) and its end; `share` counts from 1.

    >>> [share_bounds(share, 3, 10) for share in (1, 2, 3)]
    [(0, 3), (3, 6), (6, 10)]

    Raises
    ------
    UsageError
        If `share` is not in 1 to `num_shares`.
    """
    if not 1 <= share <= num_shares:
        raise UsageError(f"share {share}/{num_shares}: shares count from 1 to their number (`--task`)")
    return (share - 1) * num_tasks // num_shares, share * num_tasks // num_shares


def run_share(
    job_file: JobFile,
    share: int,
    num_shares: int,
    *,
    choose_engine: Callable[[int], TaskRunner],
    progress: Callable[[int], object],
) -> ShareSummary:
    """Make the shards of a part, or find them finished. Idempotent, and safe to run several times at once.

    `choose_engine` maps the number of tasks to the engine that runs them; `progress` is called with the images of each
    finished shard.

    Raises
    ------
    UsageError
        If `share` is not in 1 to `num_shares`.
    CacheError
        If the job file is damaged.
    BuildError
        If the job file is committed, a shard cannot be written, or this machine's OpenCV differs from the planned one.
    """
    tasks = job_file.tasks(*share_bounds(share, num_shares, job_file.num_tasks))
    directories = [target.directory for target in job_file.settings.targets]
    results = []
    if not is_marked(directories, job_file.digest):
        raise BuildError(f"{job_file.path} was committed or given up: plan again if there is more to do")
    with write_faults_named(directories[0]):
        mark_pending(directories, job_file.digest, job_file.path)
        for _, result in choose_engine(len(tasks))(tasks):
            results.append(result)
            progress(result.num_records)
    return ShareSummary(
        share=share,
        num_shares=num_shares,
        num_shards=len(tasks),
        num_processed=sum(result.num_processed for result in results),
        num_found=sum(result.num_copied for result in results),
        failures=tuple(failure for result in results for failure in result.failures),
    )


def commit_jobs(
    path: Path,
    *,
    on_error: str = "fail",
    max_bad: int | str = "5%",
    wait: bool = False,
    console: Console = NULL_CONSOLE,
) -> BuildSummary:
    """Commit the caches of a job file once all its shards are made.

    Parameters
    ----------
    on_error, max_bad
        What to do about unusable images, see :meth:`leukemia_data.building.build_request.MaxBad.parse`.
    wait
        Wait for other processes that work on the same caches, instead of raising.

    Raises
    ------
    UsageError, BuildError, CacheError
        If arguments are wrong, shards are missing, another build committed since the plan was made, or too many images
        are unusable. The caches stay as they were.
    """
    allowed_bad = MaxBad.parse(on_error, max_bad)
    job_file = open_job_file(path)
    directories = [target.directory for target in job_file.settings.targets]
    on_busy = partial(note_waiting, console) if wait else None
    with (
        lock_caches(directories, "commit", on_busy=on_busy),
        console.progress(job_file.num_images, "reading shards") as bar,
    ):
        policy = FailurePolicy(allowed_bad.of(job_file.num_records))
        summary = commit_job_file(job_file, policy=policy, progress=bar.update)
    return with_caution(summary, console)


def commit_job_file(job_file: JobFile, *, policy: FailurePolicy, progress: Callable[[int], object]) -> BuildSummary:
    """Commit the caches of a job file while the caller holds their locks; see :func:`commit_jobs`."""
    settings = job_file.settings
    current = plan_build(settings.inputs, job_file.records(), quarantined=settings.quarantined)
    _check_commits(job_file, current)
    summary = run_locked_build(
        current,
        run_tasks=_find_made(job_file),
        policy=policy,
        listed_at_ns=settings.listed_at_ns,
        progress=progress,
        commit_target=DiskCommitTarget(is_made=True),
    )
    forget_job_file([target.directory for target in settings.targets], job_file.digest)
    return summary


def _check_commits(job_file: JobFile, current: BuildPlan) -> None:
    """Raise BuildError if a cache changed since the plan was made. An up-to-date cache is accepted."""
    for target, planned_on in zip(current.targets, job_file.settings.commits, strict=True):
        directory = target.target.directory
        if manifest_digest(directory) != planned_on and any(kept is None for kept in target.kept):
            raise BuildError(
                f"{directory} was changed by another build after {job_file.path} was made: plan again; finished shards "
                "of unchanged images are found again"
            )


def _find_made(job_file: JobFile) -> TaskRunner:
    """Return a task runner that only collects the shards made by jobs, and raises BuildError for missing ones."""

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        missing = []
        for position, result in enumerate(_found(tasks)):
            if result is None:
                missing.append(position)
            else:
                yield position, result
        if missing:
            raise _not_made(job_file, [tasks[position].records[0].record_id for position in missing])

    return run


def _found(tasks: Sequence[ShardTask]) -> Iterator[ShardResult | None]:
    """Read receipts with threads, a bounded number ahead: there may be ten million tasks."""
    waiting: deque[Future[ShardResult | None]] = deque()
    with ThreadPoolExecutor(_NUM_THREADS) as readers:
        for position in range(len(tasks)):
            waiting.append(readers.submit(find_receipts, tasks[position], take_failures=True))
            if len(waiting) >= _TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _not_made(job_file: JobFile, first_ids: Sequence[str]) -> BuildError:
    """Return the error that names the missing shards, given their first images."""
    number_of_id = {record_id: number for number, record_id in enumerate(job_file.first_ids(), 1)}
    numbers = [number_of_id.get(record_id) for record_id in first_ids]
    if None in numbers:
        return BuildError(f"shards that were there when {job_file.path} was made are gone: plan again")
    total = job_file.num_tasks
    commands = listed(
        (f"ldata build --plan {job_file.path} --task {number}/{total}" for number in numbers), separator="\n  "
    )
    return BuildError(
        f"{len(first_ids)} of {total} shards of {job_file.path} are not made. These commands make them, one each "
        f"(or repeat their jobs, or --task 1/1 for all of them); then commit again:\n  {commands}"
    )
