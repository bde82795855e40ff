"""The engine that runs shard tasks in worker processes, through joblib."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from leukemia_data.building.build import TaskRunner
from leukemia_data.building.shard_maker import run_numbered
from leukemia_data.building.shard_task import ShardResult, ShardTask, largest_first
from leukemia_data.errors import BuildError


def run_in_processes(num_processes: int) -> TaskRunner:
    """Engine with worker processes, started afresh (no fork), on Linux, macOS and Windows alike.

    Raises
    ------
    BuildError
        When run, if a worker dies (killed, out of memory).
    """

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        parallel = Parallel(
            n_jobs=min(num_processes, max(len(tasks), 1)),
            backend="loky",
            batch_size=1,
            return_as="generator_unordered",
        )
        with _holding_ctrl_c():
            results = parallel(delayed(run_numbered)(position, tasks[position]) for position in largest_first(tasks))
        try:
            for result in results:  # noqa: UP028 - "yield from" would close `results` outside the block below
                yield result
        except TerminatedWorkerError as error:
            raise BuildError(
                "a worker process died (killed, or out of memory): build again, it goes on where it stopped; "
                "fewer --n-jobs need less memory"
            ) from error
        finally:
            with warnings.catch_warnings():
                # Whoever stops early knows it; joblib's warning about dropped tasks tells them nothing.
                warnings.simplefilter("ignore", UserWarning)
                results.close()

    return run


def num_processes(n_jobs: int) -> int:
    """Number of processes that joblib's `n_jobs` means on this machine: negative counts back from all cores."""
    return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Hold SIGINT back for the block. Processes started in it inherit that for life; this process hears of it after.

    A terminal sends Ctrl-C to every process. Workers that know nothing of it print no tracebacks; this process ends
    them. Windows has no such mask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started now, because it lifts the mask whenever it starts (Python's own; joblib's keeps it).
    resource_tracker.ensure_running()
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
