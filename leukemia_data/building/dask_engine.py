"""Run shard tasks on a Dask cluster through joblib's backend. Needs the extra ``dask``."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError, connect
from distributed.scheduler import KilledWorker, NoValidWorkerError
from joblib._dask import DaskDistributedBackend

from leukemia_data.building.cluster_engine import (
    CONNECT_WITHIN_S,
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
from leukemia_data.files.documents import parse_json

# An adaptive cluster needs tasks before it starts workers.
_MIN_AHEAD = 64
_WORKERS_WITHIN_S = 60.0
_LOGGERS = frozenset({"distributed", "dask", "tornado", "asyncio"})


class _Backend(LossReporting, DaskDistributedBackend):  # type: ignore[misc]
    losses = (KilledWorker, NoValidWorkerError, FutureCancelledError, CancelledError, AsyncCancelledError)


class _DaskEngine:
    """Runs tasks on a Dask cluster; see :class:`leukemia_data.building.engine.Engine`."""

    name = "dask"

    def check(self, address: str | None, n_jobs: int) -> None:
        if address is not None and n_jobs != -1:
            raise UsageError(
                f"{n_jobs} jobs and an address: a Dask cluster has the workers that were started for it "
                "(no `--n-jobs` with `--address`)"
            )

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        return run_on_dask(address, num_processes(n_jobs))


DASK = _DaskEngine()


def run_on_dask(address: str | None, max_processes: int) -> TaskRunner:
    """Return a runner on the Dask cluster at `address`; None starts `max_processes` single-threaded local workers.

    Dask itself retries the tasks of lost workers; a task it gives up is retried here.

    Parameters
    ----------
    address
        ``HOST:PORT``, ``tcp://HOST:PORT``, ``tls://HOST:PORT`` or the path of a scheduler file (``.json``).

    Raises
    ------
    UsageError, BuildError
        When run, if the address is malformed, nothing answers there, the cluster has no workers, or a task fails.
    """
    return silently(partial(_answers, address, max_processes), _silence)


def _answers(address: str | None, max_processes: int, tasks: Sequence[ShardTask]) -> Generator[tuple[int, ShardResult]]:
    with _connected(address, min(max_processes, len(tasks))) as client:
        try:
            yield from run_until_done(partial(_run_round, client))(tasks)
        except (CommClosedError, TimeoutError) as error:
            raise _lost_scheduler(str(error)) from error


def _run_round(client: Client, tasks: Sequence[ShardTask], positions: Sequence[int]) -> Iterator[Answer]:
    if client.status != "running":
        # Dask has given up reconnecting and cancelled all tasks.
        raise _lost_scheduler("it does not answer any more")
    num_workers = sum(client.ncores().values())
    backend = _Backend(client=client, wait_for_workers_timeout=_WORKERS_WITHIN_S)
    try:
        yield from run_round(backend, max(num_workers, 1), tasks, positions, min_ahead=_MIN_AHEAD)
    except TimeoutError as error:
        if num_workers > 0 or client.status != "running":
            raise
        raise BuildError(
            f"the Dask cluster has no workers, and none came within {_WORKERS_WITHIN_S:.0f} s: start some with "
            "`dask worker`, and build again"
        ) from error


def _lost_scheduler(reason: str) -> BuildError:
    return BuildError(f"the Dask scheduler was lost ({reason}): finished shards are kept, build again when it is back")


@contextmanager
def _connected(address: str | None, num_processes: int) -> Iterator[Client]:
    if address is not None:
        with _client_of(address) as client:
            yield client
        return
    with holding_signals():
        # Child processes inherit the signal mask: only this process handles the terminal's signals.
        cluster = LocalCluster(
            n_workers=num_processes,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _client_of(address: str) -> Client:
    if address.endswith(".json"):
        address = _read_scheduler_file(address)
    else:
        check_listening(address, ("tcp", "tls"))
    try:
        if not address.startswith("tls://"):
            # In a thread: the caller's thread may run an event loop already.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, _shake_hands(address)).result()
        return Client(address, timeout=CONNECT_WITHIN_S, set_as_default=False)
    except Exception as error:
        # An arbitrary server may answer anything.
        reason = str(error) or type(error).__name__
        raise BuildError(f"no Dask scheduler answers at address {address}: {reason}") from error


def _read_scheduler_file(path: str) -> str:
    if not Path(path).is_file():
        raise UsageError(f"address {path}: there is no such scheduler file")
    try:
        return str(parse_json(Path(path).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"address {path} is no scheduler file of Dask") from error


async def _shake_hands(address: str) -> None:
    """Check that a scheduler answers: Dask's client hangs if the server is not one."""
    comm = await asyncio.wait_for(connect(address, timeout=CONNECT_WITHIN_S), CONNECT_WITHIN_S)
    await comm.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress Dask's log lines and warnings; failures are raised as errors."""
    # Each of Dask's loggers has its own level and handler.
    loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LOGGERS and not logger.disabled
    ]
    for logger in loggers:
        logger.disabled = True
    try:
        with ignoring_warnings("dask", "distributed", "tornado", "asyncio"):
            yield
    finally:
        for logger in loggers:
            logger.disabled = False
