"""Run shard tasks on a Ray cluster through Ray's joblib backend. Needs the extra ``ray``."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any, TextIO

import ray
from ray._private import worker
from ray.exceptions import RayError, RayTaskError
from ray.util.joblib.ray_backend import RayBackend

from leukemia_data.building.cluster_engine import (
    Answer,
    LossReporting,
    check_listening,
    ignoring_warnings,
    run_round,
    run_until_done,
    silently,
)
from leukemia_data.building.process_engine import holding_signals, num_processes
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner
from leukemia_data.errors import BuildError, UsageError

_RETRIES_BY_RAY = 2


class _Backend(LossReporting, RayBackend):
    losses = (RayError,)
    # True for Ray's pool, though not for the multiprocessing backend that it derives from.
    supports_return_generator = True


class _RayEngine:
    """Runs tasks on a Ray cluster; see :class:`leukemia_data.building.engine.Engine`."""

    name = "ray"

    def check(self, address: str | None, n_jobs: int) -> None:
        """Accept everything."""

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        return run_on_ray(address, None if n_jobs == -1 else num_processes(n_jobs))


RAY = _RayEngine()


def run_on_ray(address: str | None, max_processes: int | None) -> TaskRunner:
    """Return a runner on the Ray cluster at `address`; None starts a local one that ends with the build.

    Ray itself retries the tasks of lost workers; a task it gives up is retried here.

    Parameters
    ----------
    address
        ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
    max_processes
        Number of workers, one core each; None for all free cores of the cluster.

    Raises
    ------
    UsageError, BuildError
        When run, if the address is malformed, no cluster answers there, it has no free core, or a task fails.
    """
    return silently(partial(_answers, address, max_processes), _silence)


def _answers(
    address: str | None, max_processes: int | None, tasks: Sequence[ShardTask]
) -> Generator[tuple[int, ShardResult]]:
    with _connected(address, max_processes or os.cpu_count() or 1):
        free = int(ray.available_resources().get("CPU", 0))
        if free < 1:
            raise BuildError("the Ray cluster has no free core: wait until its other work is done")
        num_cores = min(free, max_processes or free, len(tasks))
        try:
            yield from run_until_done(partial(_run_round, num_cores))(tasks)
        except RayError as error:
            raise BuildError(f"the Ray cluster failed: {_first_line(error)}; finished shards are kept") from error


def _run_round(num_cores: int, tasks: Sequence[ShardTask], positions: Sequence[int]) -> Iterator[Answer]:
    # joblib would run a single worker's tasks in this process.
    num_workers = max(num_cores, 2)
    actors = {
        "num_cpus": num_cores / num_workers,
        "max_restarts": -1,
        "max_task_retries": _RETRIES_BY_RAY,
        "scheduling_strategy": "SPREAD",
    }
    return run_round(_Backend(ray_remote_args=actors), num_workers, tasks, positions)


@contextmanager
def _connected(address: str | None, num_processes: int) -> Iterator[None]:
    if ray.is_initialized():
        # A connection that the calling program opened earlier stays open.
        yield
        return
    handler, print_message = signal.getsignal(signal.SIGTERM), worker.print_to_stdstream
    # Of lost workers a thread of Ray tells at any time, also while the caller has the process and its output.
    worker.print_to_stdstream = _drop_message
    try:
        _connect(address, num_processes)
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler exits the process immediately.
            signal.signal(signal.SIGTERM, handler)
        yield
    finally:
        ray.shutdown()
        worker.print_to_stdstream = print_message


def _drop_message(data: object, ignore_prefix: bool) -> None:
    """Take the place of Ray's function that prints a message."""


def _connect(address: str | None, num_processes: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        with holding_signals():
            ray.init("local", num_cpus=num_processes, include_dashboard=False, **quiet)
        return
    if address != "auto":
        # Ray itself would retry for a quarter of an hour.
        check_listening(address, ("ray",), is_grpc=os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"))
    try:
        ray.init(address, **quiet)
    except (ConnectionError, TimeoutError) as error:
        raise BuildError(
            f"no Ray cluster answers at address {address}: {_first_line(error)}. If it wants a token, as `ray start` "
            "says, set RAY_AUTH_MODE=token here, and RAY_AUTH_TOKEN to that of the cluster"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"address {address}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error.cause) if isinstance(error, RayTaskError) else str(error)
    return next(iter(text.splitlines()), type(error).__name__)


class _WithoutRay(io.TextIOBase):
    """A stream that drops Ray's output, from any thread, and passes on all other output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.current_thread()

    def write(self, text: str) -> int:
        writer = threading.current_thread()
        if writer is self._thread or writer.name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress Ray's messages: those on lost workers would go to standard output, among the results."""
    with redirect_stdout(_WithoutRay(sys.stdout)), ignoring_warnings("ray"):
        yield
