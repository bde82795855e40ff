"""Engines: what runs the tasks of a build, chosen by name. No engine changes a byte of a cache.

A module of one's own makes an engine and registers it; nothing else has to know it::

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
        """By which it is chosen."""
        ...

    def check(self, address: str | None, n_jobs: int) -> None:
        """Raise UsageError if the engine cannot be had with these arguments, see :meth:`runner`."""
        ...

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        """Return what runs tasks; it connects and starts workers when it is called.

        Parameters
        ----------
        address
            Of the cluster; None for workers on this machine, which end with the build.
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
    """An engine by name, where its cluster is, and with how many workers: see :meth:`Engine.runner`."""

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
        """Raise UsageError if the engine's library is not installed, or it cannot be had with these arguments."""
        if self.name != SERIAL:
            ENGINES.get(self.name).check(self.address, self.n_jobs)

    def runner(self, num_tasks: int) -> TaskRunner:
        """Return what runs so many tasks: this process where nothing is gained by others."""
        is_alone = self.address is None and (num_tasks <= 1 or (self.name == LOCAL and self.n_jobs == 1))
        return ENGINES.get(SERIAL if is_alone else self.name).runner(self.address, self.n_jobs)
