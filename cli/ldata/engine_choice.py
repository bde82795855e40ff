"""The engine that a build's command line asks for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from leukemia_data.building.build import TaskRunner
from leukemia_data.building.shard_maker import run_serially
from leukemia_data.errors import UsageError

_LIBRARIES = {"dask": ("dask", "distributed"), "ray": ("ray",)}


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What ``--engine``, ``--address`` and ``--n-jobs`` say; ``name`` is ``local``, ``dask`` or ``ray``."""

    name: str
    address: str | None
    n_jobs: int

    def runner(self, num_tasks: int) -> TaskRunner:
        """The engine for so many tasks: this process where nothing is gained by others."""
        if self.address is None and (num_tasks <= 1 or (self.name == "local" and self.n_jobs == 1)):
            return run_serially
        # joblib takes as long to load as a small build, Dask and Ray longer.
        from leukemia_data.building.process_engine import num_processes, run_in_processes

        if self.name == "local":
            return run_in_processes(num_processes(self.n_jobs))
        module = _load(self.name)
        if self.name == "dask":
            runner: TaskRunner = module.run_on_dask(self.address, num_processes(self.n_jobs))
        else:
            is_every_core = self.n_jobs == -1
            runner = module.run_on_ray(self.address, None if is_every_core else num_processes(self.n_jobs))
        return runner


def _load(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(f"leukemia_data.building.{name}_engine")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in _LIBRARIES[name]:
            raise
        raise UsageError(
            f'--engine {name}: {error.name} is not installed; pip install "leukemia-cells[{name}]"'
        ) from error
