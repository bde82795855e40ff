"""Small image sources and builds for the tests of caches.

Frames are about forty pixels wide, so that a whole build takes milliseconds. Modification times are set
far in the past. Change times cannot be set, so builds get a listing time in the year 2100, and trust both
at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import leukemia_data
from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.build_request import BuildSummary
from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.building.shard_maker import run_task
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.codec import Codec, RawCodec
from leukemia_data.caches.hdf5_file import read_index, write_index
from leukemia_data.caches.manifest import load_manifest, save_manifest, source_state
from leukemia_data.caches.shard import read_table, write_shard
from leukemia_data.files.lock import lock_caches
from leukemia_data.operations.filters import Unsharp
from leukemia_data.operations.framing import Canvas
from leukemia_data.operations.recipe import Recipe
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.records.sample_table import SampleTable, states_array
from leukemia_data.registry import Registry
from leukemia_data.sources.source import SourceListing, list_source

TINY_RECIPE = Recipe("tiny", (Canvas(side_px=40), Unsharp(sigma_px=1.0), CenterCrop(side_px=32), Resize()))
CAPACITY = 8
SIZES = (16, 24)
NAME = "cells"
OLD_NS = 1_600_000_000_000_000_000
LISTED_NS = 4_102_444_800_000_000_000


def python_environment(**variables: str) -> dict[str, str]:
    """Environment in which a fresh interpreter finds the packages under test."""
    root = Path(leukemia_data.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]), **variables}


def forget_zstandard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it as if the library zstandard were not installed, nor had been loaded."""
    codecs: Registry[Codec] = Registry("codec")
    codecs.register(RawCodec())
    codecs.lazy("zstd", "leukemia_data.caches.zstd_codec:ZSTD_CODEC", extra="zstd")
    monkeypatch.delitem(sys.modules, "leukemia_data.caches.zstd_codec", raising=False)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("leukemia_data.caches.codec.CODECS", codecs)


def run_here(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
    """Engine of these tests: this process, one task after the other."""
    for position, task in enumerate(tasks):
        yield position, run_task(task)


def write_cell(path: Path, seed: int, *, mtime_ns: int = OLD_NS) -> None:
    """Write a PNG of random pixels that the seed chooses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    os.utime(path, ns=(mtime_ns, mtime_ns))


def make_source(root: Path, num_images: int = 40) -> Path:
    """Folder-per-class source: two classes, four folders of people in each, of the same names: subjects are unknown."""
    for number in range(num_images):
        label, subject = number % 2, number // 2 % 4
        write_cell(root / ("blast", "normal")[label] / f"p{subject}" / f"{number:03}.png", number)
    return root


def image_paths(root: Path) -> list[Path]:
    """All PNG files of a source, in a fixed order."""
    return sorted(root.rglob("*.png"))


def make_plan(
    source: Path | SourceListing,
    cache_root: Path,
    *,
    sizes_px: Sequence[int] = SIZES,
    recipe: Recipe = TINY_RECIPE,
    name: str = NAME,
    capacity: int = CAPACITY,
    codec: str | None = None,
    recheck_ns: int | None = None,
) -> BuildPlan:
    """Plan a build of a folder."""
    listing = list_source([source]) if isinstance(source, Path) else source
    inputs = PlanInputs(
        name=name,
        cache_root=cache_root,
        recipe=recipe,
        sizes_px=tuple(sizes_px),
        classes=listing.classes,
        opencv_version=cv2.__version__,
        shard_capacity=capacity,
        codec=codec,
        recheck_ns=recheck_ns,
    )
    return plan_build(inputs, listing.records)


def run_plan(
    plan: BuildPlan, *, engine: TaskRunner = run_here, max_bad: int | None = None, listed_at_ns: int = LISTED_NS
) -> BuildSummary:
    """Run a plan."""
    with lock_caches(target.target.directory for target in plan.targets):
        return run_locked_build(
            plan,
            run_tasks=engine,
            policy=FailurePolicy(max_bad),
            listed_at_ns=listed_at_ns,
            progress=lambda _: None,
        )


def build(
    source: Path | SourceListing,
    cache_root: Path,
    *,
    sizes_px: Sequence[int] = SIZES,
    recipe: Recipe = TINY_RECIPE,
    name: str = NAME,
    capacity: int = CAPACITY,
    engine: TaskRunner = run_here,
    max_bad: int | None = None,
    listed_at_ns: int = LISTED_NS,
    codec: str | None = None,
    recheck_ns: int | None = None,
) -> BuildSummary:
    """Plan and run a build of a folder."""
    plan = make_plan(
        source,
        cache_root,
        sizes_px=sizes_px,
        recipe=recipe,
        name=name,
        capacity=capacity,
        codec=codec,
        recheck_ns=recheck_ns,
    )
    return run_plan(plan, engine=engine, max_bad=max_bad, listed_at_ns=listed_at_ns)


def work_done(summary: BuildSummary) -> tuple[int, int, int]:
    """Images processed, copied and kept."""
    return summary.num_processed, summary.num_copied, summary.num_kept


def cache_dir(cache_root: Path, size_px: int = SIZES[0], name: str = NAME) -> Path:
    """The only cache directory of a size below a root."""
    [directory] = (cache_root / name).glob(f"{size_px}-*")
    return directory


def named_shards(directory: Path) -> dict[str, bytes]:
    """Name and bytes of each shard that the manifest names, in its order."""
    return {shard.name: (directory / shard.name).read_bytes() for shard in load_manifest(directory).shards}


def all_shards(cache_root: Path) -> dict[str, dict[str, bytes]]:
    """:func:`named_shards` of each cache directory below a root."""
    return {
        path.parent.relative_to(cache_root).as_posix(): named_shards(path.parent)
        for path in sorted(cache_root.rglob("manifest.json"))
    }


def file_states(root: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and modification time of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fresh_shards(source: Path, scratch: Path, *, max_bad: int = 0) -> dict[str, dict[str, bytes]]:
    """Shards of a fresh build of the source's present state."""
    shutil.rmtree(scratch, ignore_errors=True)
    build(source, scratch, max_bad=max_bad)
    return all_shards(scratch)


def adopt_states(source: Path, cache_root: Path) -> None:
    """Tell caches that their source's files are in the states in which they are now, whatever these files hold.

    A copied source has other inodes and change times than the one that the caches were built from.
    """
    listing = list_source([source])
    state_of_id = {record.record_id: record.state for record in listing.records}
    for path in cache_root.rglob("manifest.json"):
        manifest = load_manifest(path.parent)
        index = read_index(path.parent, manifest.index)
        (path.parent / manifest.index.name).unlink()
        states = states_array((state_of_id[record_id] for record_id in index.table.id_texts), len(index.table))
        entry = write_index(path.parent, replace(index, source_states=states))
        state = source_state(listing.classes, listing.records)
        save_manifest(path.parent, replace(manifest, index=entry, source_state=state))


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file in place; its size and modification time stay."""
    status = path.stat()
    with path.open("rb+") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 1 << bit]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def relabelled(listing: SourceListing, record_id: str, label: int) -> SourceListing:
    """Listing in which one record has another label."""
    records = tuple(replace(r, label=label) if r.record_id == record_id else r for r in listing.records)
    return replace(listing, records=records)


def _without_looks(table: SampleTable) -> SampleTable:
    return replace(table, looks=np.zeros_like(table.looks))


def as_earlier_release(directory: Path) -> None:
    """Rewrite a cache as a release did that kept no looks."""
    manifest, cache = load_manifest(directory), open_cache(directory)
    pixels = cache.reader.gather(np.arange(len(cache)))
    shards = []
    for entry, first in zip(manifest.shards, cache.first_rows.tolist(), strict=False):
        table = _without_looks(read_table(directory / entry.name))
        images = pixels[first : first + len(table)]
        shards.append(write_shard(directory, images, table, manifest.fingerprint, manifest.codec))
    index = read_index(directory, manifest.index)
    index_entry = write_index(directory, replace(index, table=_without_looks(index.table)))
    save_manifest(directory, replace(manifest, shards=tuple(shards), index=index_entry, looks_version=0))
