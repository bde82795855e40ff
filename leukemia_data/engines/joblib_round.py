"""One round of tasks through a joblib backend of an engine on a network.

joblib's backends for Dask and Ray bring results and a task's own errors back, but know nothing of lost workers: Dask's
waits for ever for a task that the scheduler has given up, Ray's ends all others with it. :class:`LossTelling` makes
such a loss the answer to that one task.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, delayed
from joblib._parallel_backends import ParallelBackendBase

from leukemia_data.building.shard_maker import run_numbered
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.engines.handing_out import LostTask, with_absolute_paths
from leukemia_data.errors import BuildError

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
