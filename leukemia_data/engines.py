"""Engines that run shard tasks: in this process, or in worker processes through joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from leukemia_data.errors import BuildError
from leukemia_data.shard_task import ShardResult, ShardTask, run_task


def run_in_processes(num_processes: int) -> Callable[[Sequence[ShardTask]], Iterator[tuple[int, ShardResult]]]:
    """Engine with `num_processes` worker processes, started afresh (no fork), on Linux, macOS and Windows alike.

    Largest tasks start first, so that no worker is left alone with a large one at the end.

    Raises
    ------
    BuildError
        When run, if a worker dies (killed, out of memory).
    """

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        order = sorted(range(len(tasks)), key=lambda position: -len(tasks[position].records))
        parallel = Parallel(
            n_jobs=min(num_processes, max(len(tasks), 1)),
            backend="loky",
            batch_size=1,
            return_as="generator_unordered",
        )
        try:
            yield from parallel(delayed(_run_numbered)(position, tasks[position]) for position in order)
        except TerminatedWorkerError as error:
            raise BuildError(
                "a worker process died (killed, or out of memory): build again, it goes on where it stopped; "
                "fewer --n-jobs need less memory"
            ) from error

    return run


def num_processes(n_jobs: int) -> int:
    """Number of processes that joblib's `n_jobs` means on this machine: negative counts back from all cores."""
    return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs


def _run_numbered(position: int, task: ShardTask) -> tuple[int, ShardResult]:
    return position, run_task(task)
