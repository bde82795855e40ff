"""The engine that runs shard tasks in worker processes, through joblib."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from types import FrameType

import psutil
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from leukemia_data.building.shard_maker import run_numbered
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner, largest_first
from leukemia_data.errors import BuildError, UsageError

_WATCH_EVERY_S = 0.5
_HELD_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class ProcessEngine:
    """Runs tasks in processes of this machine; see :class:`leukemia_data.building.engine.Engine`."""

    name = "local"

    def check(self, address: str | None, n_jobs: int) -> None:
        """Refuse an address."""
        if address is not None:
            raise UsageError(f"address {address}: processes of this machine have none")

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        """Return what runs tasks in processes."""
        return run_in_processes(num_processes(n_jobs))


PROCESSES = ProcessEngine()


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
            # Nothing is shared by files here; joblib would make folders in shared memory, which killed builds leave.
            max_nbytes=None,
            temp_folder=tempfile.gettempdir(),
            initializer=_end_with,
            initargs=(os.getpid(),),
        )
        jobs = (delayed(run_numbered)(position, tasks[position]) for position in largest_first(tasks))
        with ExitStack() as opened:
            with holding_signals():
                results = parallel(jobs)
                # Now: a signal that was held back comes as soon as this block ends.
                opened.push(_Closing(results, _worker_pids(parallel)))
            try:
                for result in results:  # noqa: UP028 - "yield from" would close `results` with joblib's warnings
                    yield result
            except TerminatedWorkerError as error:
                raise BuildError(
                    "a worker process died (killed, or out of memory): build again, it goes on where it stopped; "
                    "fewer --n-jobs need less memory"
                ) from error

    return run


class _Closing:
    """Ends joblib's results, and with them the workers, without a word of theirs."""

    def __init__(self, results: Generator[tuple[int, ShardResult]], pids: Callable[[], list[int]]) -> None:
        self._results, self._pids = results, pids

    def __call__(self, error_type: type[BaseException] | None, *details: object) -> None:
        if error_type is not None:
            _kill(self._pids())
        with warnings.catch_warnings():
            # Whoever stops early knows it; joblib's warning about dropped tasks tells them nothing.
            warnings.simplefilter("ignore", UserWarning)
            self._results.close()


def _worker_pids(parallel: Parallel) -> Callable[[], list[int]]:
    """Return what tells the processes of the executor that joblib has just made or taken up again for this call."""
    # Private to joblib, which has no other way to them.
    executor = getattr(parallel._backend, "_workers", None)

    def pids() -> list[int]:
        return list(getattr(executor, "_processes", None) or {})

    return pids


def _kill(pids: Iterable[int]) -> None:
    """Kill workers now; those that are just starting would print what they miss once joblib cleans up."""
    for pid in pids:
        with suppress(psutil.Error):
            psutil.Process(pid).kill()


def num_processes(n_jobs: int) -> int:
    """Number of processes that joblib's `n_jobs` means on this machine: negative counts back from all cores."""
    return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs


def _end_with(parent: int) -> None:
    """In a worker: end soon after its parent is gone. joblib's workers would wait minutes for more to do."""

    def watch() -> None:
        while is_child_of(parent):
            time.sleep(_WATCH_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def is_child_of(parent: int) -> bool:
    """Whether the process with this number started this one and still lives."""
    if os.name != "nt":
        # An orphan has another parent at once.
        return os.getppid() == parent
    return bool(psutil.pid_exists(parent))


@contextmanager
def holding_signals() -> Iterator[None]:
    """Hold signals to end back for the block. Processes started in it inherit that; this one hears of it after.

    A terminal sends Ctrl-C to every process, a batch system its SIGTERM. Workers that know nothing of it print no
    tracebacks; this process ends them. Windows has no such mask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started now, because it lifts the mask whenever it starts (Python's own; joblib's keeps it).
    resource_tracker.ensure_running()
    with _putting_off_signals():
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name] for name in _HELD_SIGNALS})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextmanager
def _putting_off_signals() -> Iterator[None]:
    """Call the handler of the first signal after the block: a mask is one thread's, and libraries have threads.

    A second signal is not put off, for what the block waits for may never come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.Signals[name] for name in _HELD_SIGNALS]
    earlier = {number: signal.getsignal(number) for number in numbers}
    caught: list[int] = []

    def put_off(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for held in mine:
            signal.signal(held, earlier[held])

    # None stands for a handler that is not Python's.
    mine = [number for number, handler in earlier.items() if handler not in (None, signal.SIG_IGN)]
    for number in mine:
        signal.signal(number, put_off)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, earlier[number])
        if caught:
            signal.raise_signal(caught[0])
