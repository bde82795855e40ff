"""Measurements that need a fresh process: the first batch, opening a large cache, and memory while streaming.

``python -m stream.fresh TASK CACHE_DIRECTORY`` prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from leukemia_data.caches.cache import open_cache
from leukemia_data.streams.loader import BatchStream

BATCH_SIZE = 64
NUM_THREADS = 2
MEMORY_EVERY = 16
"""Steps between two looks at the memory."""


def private_bytes() -> dict[str, int]:
    """Memory of this process alone.

    ``uss`` counts every page that no other process has mapped, also pages of files that were only read: those belong to
    the system's file cache and cost nothing. ``anonymous`` is what was allocated; only Linux tells.
    """
    found = {"uss": psutil.Process().memory_full_info().uss}
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        lines = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:])
        found["anonymous"] = int(lines["Anonymous"].split()[0]) * 1024
    return found


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Difference of two looks at the memory."""
    return {name: after[name] - before[name] for name in before}


def first_batch(directory: Path) -> dict[str, Any]:
    """Seconds from opening a cache to the first shuffled batch; everything is imported already."""
    started = time.perf_counter()
    cache = open_cache(directory)
    opened = time.perf_counter()
    stream = BatchStream(cache, np.arange(len(cache)), batch_size=BATCH_SIZE, seed=0, num_threads=NUM_THREADS)
    batches = stream.epoch(0)
    images = next(batches).images_BHWC
    seconds = time.perf_counter() - started
    return {
        "num_samples": len(cache),
        "shape": list(images.shape),
        "open_s": opened - started,
        "first_batch_s": seconds,
    }


def open_only(directory: Path) -> dict[str, Any]:
    """Seconds and private bytes of opening a cache, and of reading all labels besides."""
    before = private_bytes()
    started = time.perf_counter()
    cache = open_cache(directory)
    seconds = time.perf_counter() - started
    opened = private_bytes()
    num_positive = int((np.asarray(cache.table.labels) == 1).sum())
    return {
        "num_samples": len(cache),
        "num_positive": num_positive,
        "open_s": seconds,
        "private_bytes": growth(before, opened),
        "private_bytes_with_labels": growth(before, private_bytes()),
    }


def streaming_memory(directory: Path) -> dict[str, Any]:
    """Most private memory during one shuffled epoch of mapped files, over what the process had before."""
    warm_up()
    before = private_bytes()
    cache = open_cache(directory)
    most = dict.fromkeys(before, 0)
    image_bytes = cache.pixels_per_image * 3
    options = {"batch_size": BATCH_SIZE, "seed": 0, "num_threads": NUM_THREADS, "residency": "mapped"}
    with BatchStream(cache, np.arange(len(cache)), **options) as stream:
        for step, _ in enumerate(stream.epoch(0)):
            if step % MEMORY_EVERY == MEMORY_EVERY - 1:
                now = growth(before, private_bytes())
                most = {name: max(most[name], now[name]) for name in most}
    return {"num_samples": len(cache), "batch_bytes": BATCH_SIZE * image_bytes, "private_bytes": most}


def warm_up() -> None:
    """Let PyTorch load what it loads at its first operation."""
    torch.from_numpy(np.zeros(8, np.uint8)).sum()


TASKS = {"first-batch": first_batch, "open": open_only, "memory": streaming_memory}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))))
