"""How fast builds on Dask and Ray are beside worker processes of this machine: ratios from one run on one machine.

Each engine has N workers with one thread. The clusters of Dask and Ray are started once, and how long that takes is
told apart. In every round each engine builds a fresh cache of the same images, in turn; all must make the same bytes.

whole    from the first task handed out to the last shard: with connecting, and starting processes or actors
steady   from the N-th shard on, when all workers are at work: what a longer build comes to
overhead what a shard costs more than in the local engine, in ms of its worker: (steady seconds - local's) * N / shards

Usage: python benchmarks/bench_engines.py [SOURCE] [--size PX] [--workers N] [--rounds N] [--limit N] [--json OUT.json]
SOURCE is a C-NMC folder; without one, a generated sample of 1,920 cells is used.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import distributed
import joblib
import ray

from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.dask_engine import run_on_dask
from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.building.process_engine import run_in_processes
from leukemia_data.building.ray_engine import run_on_ray
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.files.lock import lock_caches
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.sources.sample_set import write_sample
from leukemia_data.sources.source import SourceListing, list_source


class Watch:
    """An engine that notes when each shard was answered."""

    def __init__(self, engine: TaskRunner) -> None:
        self._engine = engine
        self.started_s = 0.0
        self.answers: list[tuple[float, int]] = []

    def __call__(self, tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        """Run the tasks."""
        self.started_s = time.perf_counter()
        for position, result in self._engine(tasks):
            self.answers.append((time.perf_counter(), result.num_records))
            yield position, result

    def timing(self, num_workers: int) -> dict:
        """Seconds and images/s, of all and from the time when each worker has answered."""
        whole_s = self.answers[-1][0] - self.started_s
        steady_s = self.answers[-1][0] - self.answers[num_workers - 1][0]
        num_steady = sum(count for _, count in self.answers[num_workers:])
        return {
            "whole_s": whole_s,
            "steady_s": steady_s,
            "whole_images_per_s": sum(count for _, count in self.answers) / whole_s,
            "steady_images_per_s": num_steady / steady_s,
            "num_steady_shards": len(self.answers) - num_workers,
        }


def make_plan(listing: SourceListing, cache_root: Path, size_px: int) -> BuildPlan:
    inputs = PlanInputs(
        name="bench",
        cache_root=cache_root,
        recipe=load_recipe("report-a"),
        sizes_px=(size_px,),
        classes=listing.classes,
        opencv_version=cv2.__version__,
    )
    return plan_build(inputs, listing.records)


def build(listing: SourceListing, cache_root: Path, size_px: int, engine: TaskRunner, num_workers: int) -> dict:
    """Timing and shard digests of one build of a fresh cache."""
    shutil.rmtree(cache_root, ignore_errors=True)
    plan, watch = make_plan(listing, cache_root, size_px), Watch(engine)
    with lock_caches(target.target.directory for target in plan.targets):
        summary = run_locked_build(
            plan,
            run_tasks=watch,
            policy=FailurePolicy(),
            listed_at_ns=time.time_ns(),
            progress=lambda _: None,
        )
    shards = load_manifest(summary.caches[0].directory).shards
    return {**watch.timing(num_workers), "digests": [shard.digest for shard in shards]}


def start_engines(num_workers: int, opened: ExitStack) -> tuple[dict[str, Callable[[], TaskRunner]], dict[str, float]]:
    """How to get each engine, and the seconds that its cluster took to start."""
    started_s = time.perf_counter()
    cluster = opened.enter_context(
        distributed.LocalCluster(num_workers, threads_per_worker=1, memory_limit=None, dashboard_address=None)
    )
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(num_workers)
    dask_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    ray.init("local", num_cpus=num_workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    opened.callback(ray.shutdown)
    ray_s = time.perf_counter() - started_s
    engines = {
        "local": lambda: run_in_processes(num_workers),
        "dask": lambda: run_on_dask(cluster.scheduler_address, num_workers),
        # It joins the cluster that this process is connected to.
        "ray": lambda: run_on_ray(None, num_workers),
    }
    return engines, {"dask": dask_s, "ray": ray_s}


def run(listing: SourceListing, scratch: Path, size_px: int, num_workers: int, rounds: int) -> dict:
    builds: dict[str, list[dict]] = {}
    with ExitStack() as opened:
        engines, start_s = start_engines(num_workers, opened)
        for round_number in range(rounds):
            names = list(engines)
            for name in names[round_number % 3 :] + names[: round_number % 3]:
                made = build(listing, scratch / "cache", size_px, engines[name](), num_workers)
                builds.setdefault(name, []).append(made)
    digests = {tuple(made.pop("digests")) for all_made in builds.values() for made in all_made}
    assert len(digests) == 1, "the engines made different bytes"
    task = make_plan(listing, scratch / "sizes", size_px).tasks[0]
    return {
        "num_images": len(listing.records),
        "num_shards": len(next(iter(digests))),
        "size_px": size_px,
        "num_workers": num_workers,
        "cluster_start_s": start_s,
        "builds": builds,
        "engines": {name: compare(name, builds, num_workers) for name in builds},
        "task_bytes": len(pickle.dumps(task)),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": joblib.cpu_count(),
            "python": platform.python_version(),
            "joblib": joblib.__version__,
            "distributed": distributed.__version__,
            "ray": ray.__version__,
            "opencv": cv2.__version__,
        },
    }


def compare(name: str, builds: dict[str, list[dict]], num_workers: int) -> dict:
    """Medians of an engine, and of its ratio to the local one in the same round."""
    pairs = list(zip(builds[name], builds["local"], strict=True))

    def ratios(what: str) -> list[float]:
        return [made[what] / local[what] for made, local in pairs]

    overheads_ms = [
        (made["steady_s"] - local["steady_s"]) * num_workers / made["num_steady_shards"] * 1000 for made, local in pairs
    ]
    return {
        "whole_images_per_s": statistics.median(made["whole_images_per_s"] for made in builds[name]),
        "steady_images_per_s": statistics.median(made["steady_images_per_s"] for made in builds[name]),
        "whole_ratio": statistics.median(ratios("whole_images_per_s")),
        "steady_ratio": statistics.median(ratios("steady_images_per_s")),
        "steady_ratios": ratios("steady_images_per_s"),
        "overhead_per_shard_ms": statistics.median(overheads_ms),
    }


def print_table(result: dict) -> None:
    print(
        f"{result['num_images']} images, {result['num_shards']} shards of {result['size_px']} px, "
        f"{result['num_workers']} workers, {result['machine']}"
    )
    print(f"{'':8}{'whole':>10}{'of local':>10}{'steady':>10}{'of local':>10}{'overhead':>14}{'cluster start':>16}")
    for name, engine in result["engines"].items():
        start_s = result["cluster_start_s"].get(name)
        print(
            f"{name:8}{engine['whole_images_per_s']:>8.0f}/s{engine['whole_ratio']:>10.2f}"
            f"{engine['steady_images_per_s']:>8.0f}/s{engine['steady_ratio']:>10.2f}"
            f"{engine['overhead_per_shard_ms']:>8.0f} ms/shard" + (f"{start_s:>12.1f} s" if start_s else "")
        )
        print(f"{'':8}steady, each round: {', '.join(f'{ratio:.2f}' for ratio in engine['steady_ratios'])}")
    print(f"a task is {result['task_bytes']:,} bytes on its way to a worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1920, help="take so many images of SOURCE")
    parser.add_argument("--json", type=Path, dest="json_path")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        scratch = Path(folder)
        source = arguments.source
        if source is None:
            source = scratch / "sample"
            write_sample(source, num_subjects=24, cells_per_subject=80)
        listing = list_source([source])
        listing = replace(listing, records=listing.records[: arguments.limit])
        result = run(listing, scratch, arguments.size, arguments.workers, arguments.rounds)
    print_table(result)
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
