"""Run shard tasks in worker processes through joblib."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from types import FrameType

import psutil
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from leukemia_data.building.shard_maker import run_numbered
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner, largest_first
from leukemia_data.errors import BuildError, UsageError

_POLL_S = 0.5
_HELD_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class _ProcessEngine:
    """Runs tasks in processes of this machine; see :class:`leukemia_data.building.engine.Engine`."""

    name = "local"

    def check(self, address: str | None, n_jobs: int) -> None:
        if address is not None:
            raise UsageError(f"address {address}: processes of this machine have none")

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        return run_in_processes(num_processes(n_jobs))


PROCESSES = _ProcessEngine()


def run_in_processes(num_processes: int) -> TaskRunner:
    """Return a runner with spawned worker processes (never forked), for Linux, macOS and Windows.

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
            # No memory-mapping: joblib's folders in shared memory would remain after a killed build.
            max_nbytes=None,
            temp_folder=tempfile.gettempdir(),
            initializer=_end_with,
            initargs=(os.getpid(),),
        )
        jobs = (delayed(run_numbered)(position, tasks[position]) for position in largest_first(tasks))
        with ExitStack() as opened:
            with holding_signals():
                results = parallel(jobs)
                # Now: a deferred signal is delivered as soon as this block ends.
                # The executor is private to joblib, which has no public access to its processes.
                opened.push(partial(_close, results, getattr(parallel._backend, "_workers", None)))
            try:
                for result in results:  # noqa: UP028 - "yield from" would close `results` with joblib's warnings
                    yield result
            except TerminatedWorkerError as error:
                raise BuildError(
                    "a worker process died (killed, or out of memory): build again, it goes on where it stopped; "
                    "fewer --n-jobs need less memory"
                ) from error

    return run


def _close(
    results: Generator[tuple[int, ShardResult]], executor: object, error_type: type[BaseException] | None, *rest: object
) -> None:
    """Close joblib's results and end the workers, silently."""
    for pid in list(getattr(executor, "_processes", None) or {}) if error_type else ():
        # Now: starting ones would print errors when joblib cleans up.
        with suppress(psutil.Error):
            psutil.Process(pid).kill()
    with warnings.catch_warnings():
        # The caller stopped early on purpose: joblib's warning about dropped tasks is noise.
        warnings.simplefilter("ignore", UserWarning)
        results.close()


def num_processes(n_jobs: int) -> int:
    """Return the number of processes for joblib's `n_jobs`: negative values count back from all cores."""
    return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs


def _end_with(parent: int) -> None:
    """In a worker: exit soon after its parent does. joblib's workers would wait for minutes."""

    def end_with_parent() -> None:
        while is_child_of(parent):
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()


def is_child_of(parent: int) -> bool:
    """Return whether `parent` is the living parent process of this one."""
    if os.name != "nt":
        # An orphan is reparented immediately.
        return os.getppid() == parent
    return bool(psutil.pid_exists(parent))


@contextmanager
def holding_signals() -> Iterator[None]:
    """Defer termination signals until the block ends. Processes started in it inherit the mask.

    Terminals send Ctrl-C, and batch systems SIGTERM, to every process. Masked workers print no tracebacks, and this
    process ends them. Windows has no such mask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Start the resource tracker now: Python's own (unlike joblib's) lifts the mask when it starts.
    resource_tracker.ensure_running()
    with _deferring_signals():
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name] for name in _HELD_SIGNALS})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextmanager
def _deferring_signals() -> Iterator[None]:
    """Call the handler of the first signal after the block: a mask covers one thread, and libraries have threads.

    A second signal is not deferred: the block may wait forever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.Signals[name] for name in _HELD_SIGNALS)}
    # None means a handler that was not installed from Python.
    earlier = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    caught: list[int] = []

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def defer(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    for number in earlier:
        signal.signal(number, defer)
    try:
        yield
    finally:
        restore()
        if caught:
            signal.raise_signal(caught[0])
