"""What engines on a cluster have in common: the address, one round of tasks, tasks of lost workers again."""

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
_NAMED_IMAGES = 3


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task whose worker was lost, by its position, and what the engine said of it."""

    position: int
    reason: str


RoundRunner = Callable[[Sequence[ShardTask], Sequence[int]], Iterable[tuple[int, ShardResult] | LostTask]]
"""Runs the tasks at some positions on an engine; answers each once, in whatever order."""


def run_until_done(run_round: RoundRunner) -> TaskRunner:
    """Engine that hands lost tasks out again.

    Raises
    ------
    BuildError
        When run, if a task is lost even when it runs alone.
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
    answers: Generator[tuple[int, ShardResult]], silence: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[int, ShardResult]]:
    """Yield what an engine answers; all that it does is done in `silence`, what the caller does meanwhile is not."""
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


@contextmanager
def ignoring_warnings(*packages: str) -> Iterator[None]:
    """Ignore warnings about what packages and joblib do; those of others are shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"({'|'.join([*packages, 'joblib'])})(\.|$)")
        yield


def with_absolute_paths(task: ShardTask) -> ShardTask:
    """The task for a worker whose current folder is another one."""
    records = tuple(
        replace(record, path=record.path.absolute()) if isinstance(record.path, Path) else record
        for record in task.records
    )
    targets = tuple(replace(target, directory=target.directory.absolute()) for target in task.targets)
    return replace(task, records=records, targets=targets)


def _lost_for_good(task: ShardTask, lost: LostTask) -> BuildError:
    ids = listed([record.record_id for record in task.records], most=_NAMED_IMAGES)
    return BuildError(
        f"every worker that tried the shard of {ids} died (killed, or out of memory; {lost.reason}): give the workers "
        "more memory, or look at these images; finished shards are kept for the next build"
    )


CONNECT_WITHIN_S = 10.0


_FRAME_HEADER_BYTES = 9
_SETTINGS = 4


def check_listening(address: str, schemes: tuple[str, ...], *, is_grpc: bool = False) -> None:
    """Check that somebody listens at ``HOST:PORT`` or ``scheme://HOST:PORT``.

    Parameters
    ----------
    address
        As the user wrote it.
    schemes
        Those that the engine knows.
    is_grpc
        Whether the server speaks gRPC, without TLS: such a one begins with HTTP/2's settings, before it is asked.

    Raises
    ------
    UsageError
        If it is no such address.
    BuildError
        If nobody listens there, or somebody who speaks something else.
    """
    host, port = _parse(address, schemes)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_WITHIN_S) as connection:
            if is_grpc and connection.recv(_FRAME_HEADER_BYTES)[3:4] != bytes([_SETTINGS]):
                raise OSError("who listens there speaks something else")
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


Answer = tuple[int, ShardResult] | LostTask


class LossTelling:
    """Put before a joblib backend as a base class: a lost worker becomes the answer of the task that it had.

    Subclasses say by :attr:`losses` which exceptions mean that a worker was lost, not that the task failed.
    """

    losses: tuple[type[BaseException], ...]

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Number of workers, or two: what one worker has to do joblib would do in this process."""
        return max(int(super().effective_n_jobs(n_jobs)), 2)  # type: ignore[misc]

    def submit(self, batch: Any, callback: Callable[[Any], None]) -> Any:  # noqa: ANN401 - joblib's own types
        """Hand a batch of one task to the engine, and its answer or its loss to `callback`."""
        [(_, (position, _), _)] = batch.items

        def tell(outcome: Any) -> None:  # noqa: ANN401 - a list of one answer, or an exception
            is_lost = isinstance(outcome, self.losses)
            callback([LostTask(position, type(outcome).__name__)] if is_lost else outcome)

        handed_out = super().submit(batch, tell)  # type: ignore[misc]
        if isinstance(handed_out, Future):
            # Dask's backend calls back for results alone.
            handed_out.add_done_callback(lambda done: tell(done.exception()) if done.exception() else None)
        return handed_out


def run_round(
    backend: ParallelBackendBase,
    num_workers: int,
    tasks: Sequence[ShardTask],
    positions: Sequence[int],
    *,
    num_ahead: int | None = None,
) -> Iterator[Answer]:
    """Run the tasks at `positions` in their order, and answer each as it finishes.

    Parameters
    ----------
    backend
        Of :class:`LossTelling` and a joblib backend.
    num_ahead
        Tasks that the engine is given before it has answered; twice the number of workers by default.

    Raises
    ------
    BuildError
        If the workers lack this package or have another release of it.
    """
    parallel = Parallel(
        n_jobs=num_workers,
        backend=backend,
        batch_size=1,
        pre_dispatch=num_ahead or 2 * num_workers,
        return_as="generator_unordered",
        max_nbytes=None,
    )
    jobs = (delayed(run_numbered)(position, with_absolute_paths(tasks[position])) for position in positions)
    with _closing_quietly(parallel(jobs)) as answers:
        try:
            yield from answers
        except (ImportError, AttributeError) as error:
            raise BuildError(
                f"a worker cannot run this build ({error}): install the same release of leukemia-cells on all of them"
            ) from error


@contextmanager
def _closing_quietly(answers: Generator[Answer]) -> Iterator[Generator[Answer]]:
    try:
        yield answers
    finally:
        with warnings.catch_warnings():
            # Whoever stops early knows it; joblib's warning about dropped tasks tells them nothing.
            warnings.simplefilter("ignore", UserWarning)
            answers.close()
