"""Engines run the tasks of a build, and are chosen by name. A cache's bytes do not depend on the engine.

A third-party module registers its engine::

    class BatchQueue:
        name = "batch-queue"

        def check(self, address, n_jobs): ...

        def runner(self, address, n_jobs): ...

    ENGINES.register(BatchQueue())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry

if TYPE_CHECKING:
    from leukemia_data.building.shard_task import TaskRunner

LOCAL = "local"
SERIAL = "serial"


class Engine(Protocol):
    """Runs tasks in this process, in others, or on a cluster."""

    @property
    def name(self) -> str:
        """Name by which it is chosen."""
        ...

    def check(self, address: str | None, n_jobs: int) -> None:
        """Raise UsageError if the engine does not support these arguments, see :meth:`runner`."""
        ...

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        """Return a task runner, which connects and starts workers when called.

        Parameters
        ----------
        address
            Address of the cluster; None for local workers that end with the build.
        n_jobs
            Number of worker processes, -1 for as many as there are cores.
        """
        ...


ENGINES: Registry[Engine] = Registry("engine")
ENGINES.lazy(LOCAL, "leukemia_data.building.process_engine:PROCESSES")
ENGINES.lazy("dask", "leukemia_data.building.dask_engine:DASK", extra="dask")
ENGINES.lazy("ray", "leukemia_data.building.ray_engine:RAY", extra="ray")
ENGINES.lazy(SERIAL, "leukemia_data.building.shard_maker:SERIAL")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Engine name, cluster address and number of workers: see :meth:`Engine.runner`."""

    name: str = LOCAL
    address: str | None = None
    n_jobs: int = -1

    def __post_init__(self) -> None:
        if self.n_jobs == 0:
            raise UsageError("no worker processes: give their number, or -1 for one per core (`--n-jobs`)")
        if self.name not in ENGINES:
            ENGINES.get(self.name)
        if self.address is not None and self.name in (LOCAL, SERIAL):
            raise UsageError(f"address {self.address}: say whose it is (`--engine dask` or `--engine ray`)")

    def check(self) -> None:
        """Raise UsageError if the engine's library is not installed, or it does not support these arguments."""
        if self.name != SERIAL:
            ENGINES.get(self.name).check(self.address, self.n_jobs)

    def runner(self, num_tasks: int) -> TaskRunner:
        """Return the runner for `num_tasks` tasks: this process if others would gain nothing."""
        is_alone = self.address is None and (num_tasks <= 1 or (self.name == LOCAL and self.n_jobs == 1))
        return ENGINES.get(SERIAL if is_alone else self.name).runner(self.address, self.n_jobs)
