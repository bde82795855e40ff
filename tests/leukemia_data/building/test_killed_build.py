"""Real builds in processes of their own that are killed: what is left, and what the next build makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.recipes.operations import Canvas, Clahe, Resize, Unsharp
from leukemia_data.recipes.recipe import Recipe

from ..helpers import (
    CAPACITY,
    OLD_NS,
    SIZES,
    all_shards,
    build,
    cache_dir,
    image_paths,
    make_source,
    python_environment,
    work_done,
    write_cell,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")

NUM = 48
SLOW_RECIPE = Recipe("slow", (Canvas(side_px=720), Clahe(tiles=8), Unsharp(sigma_px=4.0), Resize()))

BUILD = """
import sys, time
from pathlib import Path
import cv2
from leukemia_data.building.build import FailurePolicy, run_build
from leukemia_data.building.process_engine import run_in_processes
from leukemia_data.errors import BuildError
from leukemia_data.building.plan import plan_build
from leukemia_data.recipes.operations import Canvas, Clahe, Resize, Unsharp
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.sources.source import list_source
listing = list_source([Path(sys.argv[1])])
recipe = Recipe("slow", (Canvas(side_px=720), Clahe(tiles=8), Unsharp(sigma_px=4.0), Resize()))
plan = plan_build(name="cells", cache_root=Path(sys.argv[2]), recipe=recipe, sizes_px=(16, 24), classes=listing.classes,
                  records=listing.records, opencv_version=cv2.__version__, shard_capacity=int(sys.argv[3]))
try:
    run_build(plan, run_tasks=run_in_processes(2), policy=FailurePolicy(), listed_at_ns=time.time_ns(),
              package_version="0.0.test", progress=lambda _: None)
except BuildError as error:
    sys.exit(f"BuildError: {error}")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("killed") / "source", NUM)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("undisturbed")
    build(source, root, recipe=SLOW_RECIPE)
    return all_shards(root)


def start(source: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(source), str(cache), str(CAPACITY)]
    return subprocess.Popen(
        command, env=python_environment(), start_new_session=True, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def wait_for_receipts(process: subprocess.Popen[str], cache: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(cache.rglob("receipts/*.json"))) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)


@pytest.mark.parametrize("num_receipts", [1, 5, 9])
def test_killed_first_build_leaves_no_cache_and_goes_on_to_the_same_bytes(source, undisturbed, tmp_path, num_receipts):
    process = start(source, tmp_path)
    wait_for_receipts(process, tmp_path, num_receipts)
    kill_all(process)
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.rglob("manifest.json"))
    processed, copied, kept = work_done(build(source, tmp_path, recipe=SLOW_RECIPE))
    assert (processed + copied, kept) == (NUM, 0)
    assert copied > 0 or num_receipts == 1
    assert all_shards(tmp_path) == undisturbed


def test_killed_rebuild_leaves_the_earlier_cache_as_it_was(source, tmp_path):
    own = tmp_path / "source"
    for path in image_paths(source):
        target = own / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        os.utime(target, ns=(OLD_NS, OLD_NS))
    cache = tmp_path / "cache"
    build(own, cache, recipe=SLOW_RECIPE)
    earlier = all_shards(cache)
    manifests = {path: path.read_bytes() for path in cache.rglob("manifest.json")}
    for number, path in enumerate(image_paths(own)):
        write_cell(path, 1000 + number, mtime_ns=OLD_NS + 5)
    process = start(own, cache)
    wait_for_receipts(process, cache, 4)
    kill_all(process)
    assert {path: path.read_bytes() for path in manifests} == manifests
    assert all_shards(cache) == earlier
    for size in SIZES:
        SampleReader(open_cache(cache_dir(cache, size)))
    assert build(own, cache, recipe=SLOW_RECIPE).num_copied > 0
    build(own, tmp_path / "fresh", recipe=SLOW_RECIPE)
    assert all_shards(cache) == all_shards(tmp_path / "fresh") != earlier


def test_killed_worker_ends_the_build_soon_and_the_next_one_completes_it(source, undisturbed, tmp_path):
    process = start(source, tmp_path)
    wait_for_receipts(process, tmp_path, 2)
    workers = [child for child in psutil.Process(process.pid).children() if "LokyProcess" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "BuildError: a worker process died" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("manifest.json"))
    assert build(source, tmp_path, recipe=SLOW_RECIPE).num_copied > 0
    assert all_shards(tmp_path) == undisturbed
