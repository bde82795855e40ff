"""What is measured, each by name; every function prepares itself and returns what its block took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.garbage import collect_garbage
from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import find_current, load_manifest, source_state
from leukemia_data.caches.statistics import channel_statistics
from leukemia_data.files.atomic import FileState
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable, bytes_per_row, states_array
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split, split_indices
from scale.made_cache import NAME, RECIPE, cache_directory, sparse_shard
from scale.made_samples import CLASSES, FILE_BYTES, made_records
from scale.meter import Meter

SIZE_PX = 224
_BATCH_SIZE = 64
_LISTED_NS = 2_000_000_000_000_000_000


def _plan(work: Path, records: Sequence[Record], name: str = NAME) -> BuildPlan:
    inputs = PlanInputs(
        name=name,
        cache_root=work,
        recipe=load_recipe(RECIPE),
        sizes_px=(SIZE_PX,),
        classes=CLASSES,
        opencv_version=cv2.__version__,
    )
    return plan_build(inputs, records)


def _one_changed(num_samples: int) -> list[Record]:
    records = made_records(num_samples)
    records[num_samples // 2] = replace(records[num_samples // 2], state=FileState(FILE_BYTES, 1))
    return records


def list_files(work: Path, num_samples: int) -> Meter:
    """List a folder of so many empty files."""
    with Meter() as meter:
        listing = list_source([work / "files"])
    assert len(listing.records) == num_samples
    return meter


def plan_new(work: Path, num_samples: int) -> Meter:
    """Plan a build of a source that has no cache yet, and make every task once, as an engine does."""
    records = made_records(num_samples)
    with Meter() as meter:
        plan = _plan(work, records, "new")
        num_planned = sum(len(task.records) for task in plan.tasks)
    assert num_planned == num_samples
    return meter


def plan_one_changed(work: Path, num_samples: int) -> Meter:
    """Plan a build in which one image has changed."""
    records = _one_changed(num_samples)
    with Meter() as meter:
        plan = _plan(work, records)
        num_tasks = len(plan.tasks)
    assert num_tasks == 1
    return meter


def no_op(work: Path, num_samples: int) -> Meter:
    """Find out that nothing has changed, once the source is listed."""
    records = made_records(num_samples)
    directory = cache_directory(work, SIZE_PX, load_recipe(RECIPE))
    with Meter() as meter:
        found = find_current(directory, source_state(CLASSES, records))
    assert found is not None
    return meter


def commit(work: Path, num_samples: int) -> Meter:
    """Commit a cache of which one shard is new: index, manifest, flush; no pixels."""
    plan = _plan(work, _one_changed(num_samples))

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        for position in range(len(tasks)):
            yield position, _made(tasks[position])

    manifest_path = plan.targets[0].target.directory / "manifest.json"
    before = manifest_path.read_bytes()
    with Meter() as meter:
        run_locked_build(
            plan,
            run_tasks=run,
            policy=FailurePolicy(),
            listed_at_ns=_LISTED_NS,
            progress=lambda _: None,
        )
    manifest_path.write_bytes(before)
    return meter


def _made(task: ShardTask) -> ShardResult:
    """What a worker would return, with a hole for a shard."""
    num_samples, target = len(task.records), task.targets[0]
    table = SampleTable.from_records(task.records)
    entry = sparse_shard(target.directory, 1 << 60, num_samples, SIZE_PX, bytes_per_row(table))
    states = states_array((record.state for record in task.records), num_samples)
    return ShardResult({SIZE_PX: entry}, {SIZE_PX: table}, states, (), num_samples, 0, num_samples)


def open_it(work: Path, num_samples: int) -> Meter:
    """Open the cache: manifest, files, index."""
    directory = cache_directory(work, SIZE_PX, load_recipe(RECIPE))
    with Meter() as meter:
        cache = open_cache(directory)
    assert len(cache) == num_samples
    return meter


def map_shards(work: Path, num_samples: int) -> Meter:
    """Map all shards of the opened cache, and check the bytes around their pixels."""
    cache = open_cache(cache_directory(work, SIZE_PX, load_recipe(RECIPE)))
    with Meter() as meter:
        reader = cache.reader
    assert reader.num_unmapped == 0
    return meter


def first_batch(work: Path, num_samples: int) -> Meter:
    """The first shuffled batch of 64, once the shards are mapped."""
    # torch is slow to load, and the other measurements do without it.
    from leukemia_data.streams.loader import BatchStream

    cache = open_cache(cache_directory(work, SIZE_PX, load_recipe(RECIPE)))
    cache.reader  # noqa: B018 - maps the shards
    with Meter() as meter:
        numbers = np.arange(num_samples, dtype=np.int64)
        stream = BatchStream(cache, numbers, batch_size=_BATCH_SIZE, seed=1, residency="mapped")
        next(iter(stream))
    return meter


def draw_split(work: Path, num_samples: int) -> Meter:
    """Draw the default split by subjects, tied by identical pixels, and look for leaks."""
    table = open_cache(cache_directory(work, SIZE_PX, load_recipe(RECIPE))).table
    with Meter() as meter:
        codes = assign_split(parse_split("subject"), table, 0, CLASSES)
        leaks = check_leaks(codes, table)
    assert leaks.is_disjoint
    return meter


def fold_statistics(work: Path, num_samples: int) -> Meter:
    """Mean and standard deviation of one fold's training part, drawing the fold included."""
    cache = open_cache(cache_directory(work, SIZE_PX, load_recipe(RECIPE)))
    with Meter() as meter:
        codes = assign_split(parse_split("fold:1/5"), cache.table, 0, CLASSES)
        numbers = split_indices(codes, "train")
        table = cache.table
        channel_statistics(table.channel_sums[numbers], table.channel_square_sums[numbers], cache.pixels_per_image)
    return meter


def epoch_order(work: Path, num_samples: int) -> Meter:
    """The order of one whole epoch."""
    from leukemia_data.streams.ordering import permuted

    positions = np.arange(num_samples, dtype=np.int64)
    with Meter() as meter:
        permuted(positions, num_samples, 1, 0)
    return meter


def gc(work: Path, num_samples: int) -> Meter:
    """Look for what no manifest names."""
    with Meter() as meter:
        collect_garbage(work / NAME, remove=False)
    return meter


def verify_quick(work: Path, num_samples: int) -> Meter:
    """Check everything but the pixels."""
    from leukemia_data.caches.verify import check_quickly

    directory = cache_directory(work, SIZE_PX, load_recipe(RECIPE))
    with Meter() as meter:
        report = check_quickly(directory, num_threads=2, progress=lambda _: None)
    assert report.num_shards == len(load_manifest(directory).shards)
    assert not report.damages
    return meter


MEASUREMENTS: dict[str, tuple[str, Callable[[Path, int], Meter]]] = {
    "list": ("list the source's folders", list_files),
    "plan_new": ("plan a new build, make all tasks", plan_new),
    "plan_one_changed": ("plan, one image changed", plan_one_changed),
    "no_op": ("nothing to do, beyond listing", no_op),
    "commit": ("commit, without pixels", commit),
    "open": ("open the cache", open_it),
    "map": ("map all shards", map_shards),
    "first_batch": ("first batch, shards mapped", first_batch),
    "split": ("draw the subject split", draw_split),
    "statistics": ("statistics of a fold", fold_statistics),
    "order": ("order of an epoch", epoch_order),
    "gc": ("gc --dry-run", gc),
    "verify_quick": ("verify --quick", verify_quick),
}
"""By name: words for people, and the measurement."""
