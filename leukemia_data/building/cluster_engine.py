"""Common parts of cluster engines: address checks, running tasks, retrying those of lost workers."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblib import Parallel, delayed
from joblib._parallel_backends import ParallelBackendBase

from leukemia_data.building.shard_maker import run_numbered
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner, largest_first
from leukemia_data.errors import BuildError, UsageError, listed

_ROUNDS_TOGETHER = 2


@dataclass(frozen=True, slots=True)
class LostTask:
    """Position of a task whose worker was lost, and the engine's reason."""

    position: int
    reason: str


Answer = tuple[int, ShardResult] | LostTask
RoundRunner = Callable[[Sequence[ShardTask], Sequence[int]], Iterable[Answer]]
"""Runs the tasks at the given positions on an engine; yields one answer each, in any order."""


def run_until_done(run_round: RoundRunner) -> TaskRunner:
    """Return a task runner that retries the tasks of lost workers.

    Raises
    ------
    BuildError
        When run, if a worker is lost even when its task runs alone.
    """

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        waiting = largest_first(tasks)
        for _ in range(_ROUNDS_TOGETHER):
            lost: list[int] = []
            for answer in run_round(tasks, waiting):
                if isinstance(answer, LostTask):
                    lost.append(answer.position)
                else:
                    yield answer
            waiting = lost
            if not waiting:
                return
        for position in waiting:
            for answer in run_round(tasks, [position]):
                if isinstance(answer, LostTask):
                    raise _lost_for_good(tasks[position], answer)
                yield answer

    return run


def silently(
    run: Callable[[Sequence[ShardTask]], Generator[tuple[int, ShardResult]]],
    silence: Callable[[], AbstractContextManager[None]],
) -> TaskRunner:
    """Return a task runner that enters `silence` while the engine runs, and leaves it while the caller does."""

    def run_silently(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        if not tasks:
            return
        answers = run(tasks)
        try:
            while True:
                with silence():
                    answer = next(answers, None)
                if answer is None:
                    return
                yield answer
        finally:
            with silence():
                answers.close()

    return run_silently


@contextmanager
def ignoring_warnings(*packages: str) -> Iterator[None]:
    """Ignore the warnings of `packages` and joblib; show all others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"({'|'.join([*packages, 'joblib'])})(\.|$)")
        yield


def with_absolute_paths(task: ShardTask) -> ShardTask:
    """Return the task for a worker with another current folder."""
    records = tuple(
        replace(record, path=record.path.absolute()) if isinstance(record.path, Path) else record
        for record in task.records
    )
    targets = tuple(replace(target, directory=target.directory.absolute()) for target in task.targets)
    return replace(task, records=records, targets=targets)


def _lost_for_good(task: ShardTask, lost: LostTask) -> BuildError:
    ids = listed([record.record_id for record in task.records], most=3)
    return BuildError(
        f"every worker that tried the shard of {ids} died (killed, or out of memory; {lost.reason}): give the workers "
        "more memory, or look at these images; finished shards are kept for the next build"
    )


CONNECT_WITHIN_S = 10.0
_FRAME_HEADER_BYTES = 9
_SETTINGS = 4


def check_listening(address: str, schemes: tuple[str, ...], *, is_grpc: bool = False) -> None:
    """Check that a server answers at ``HOST:PORT`` or ``scheme://HOST:PORT``.

    With `is_grpc`, it must be gRPC without TLS: such a server sends HTTP/2 settings unprompted.

    Raises
    ------
    UsageError
        If the address is malformed.
    BuildError
        If no server answers there, or one of another protocol.
    """
    host, port = _parse(address, schemes)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_WITHIN_S) as connection:
            if is_grpc and connection.recv(_FRAME_HEADER_BYTES)[3:4] != bytes([_SETTINGS]):
                raise OSError("the server there speaks another protocol")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BuildError(
            f"nothing answers at address {address} ({reason}): is the cluster running, and can this machine reach it?"
        ) from error


def _parse(address: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"{schemes[0]}://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in schemes:
        known = " or ".join(f"{scheme}://HOST:PORT" for scheme in schemes)
        raise UsageError(f"address {address!r}: give HOST:PORT or {known}")
    return host, port


class LossReporting:
    """Mixin for a joblib backend: the loss of a worker becomes the answer of its task.

    :attr:`losses` are the exceptions that mean a lost worker, not a failed task.
    """

    losses: tuple[type[BaseException], ...]

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of workers, at least two: joblib would run a single worker's tasks in this process."""
        return max(int(super().effective_n_jobs(n_jobs)), 2)  # type: ignore[misc]

    def submit(self, batch: Any, callback: Callable[[Any], None]) -> Any:  # noqa: ANN401 - joblib's own types
        """Submit a batch of one task; `callback` gets its answer or loss."""
        [(_, (position, _), _)] = batch.items

        def answer(outcome: Any) -> None:  # noqa: ANN401 - a list of one answer, or an exception
            is_lost = isinstance(outcome, self.losses)
            callback([LostTask(position, type(outcome).__name__)] if is_lost else outcome)

        submitted = super().submit(batch, answer)  # type: ignore[misc]
        if isinstance(submitted, Future):
            # Dask's backend calls back for results alone.
            submitted.add_done_callback(lambda done: answer(done.exception()) if done.exception() else None)
        return submitted


def run_round(
    backend: ParallelBackendBase,
    num_workers: int,
    tasks: Sequence[ShardTask],
    positions: Sequence[int],
    *,
    min_ahead: int = 0,
) -> Iterator[Answer]:
    """Run the tasks at `positions` in order, and yield each answer as it finishes.

    `backend` is of a subclass of :class:`LossReporting`. Twice as many tasks as workers are submitted ahead of the
    answers, at least `min_ahead`.

    Raises
    ------
    BuildError
        If the workers lack this package or have another release of it.
    """
    parallel = Parallel(
        n_jobs=num_workers,
        backend=backend,
        batch_size=1,
        pre_dispatch=max(2 * num_workers, min_ahead),
        return_as="generator_unordered",
        max_nbytes=None,
    )
    jobs = (delayed(run_numbered)(position, with_absolute_paths(tasks[position])) for position in positions)
    answers: Generator[Answer] = parallel(jobs)
    try:
        yield from answers
    except (ImportError, AttributeError) as error:
        raise BuildError(
            f"a worker cannot run this build ({error}): install the same release of leukemia-cells on all of them"
        ) from error
    finally:
        with warnings.catch_warnings():
            # The caller stopped early on purpose: joblib's warning about dropped tasks is noise.
            warnings.simplefilter("ignore", UserWarning)
            answers.close()
