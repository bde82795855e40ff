"""Runs the measurements of ``fresh`` on caches of growing size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from stream.made_cache import write_index_only_cache, write_repeated_cache

FULL_SET = 10_661
"""Images in the training set of C-NMC 2019."""
LARGE_INDEX = 1_000_000
TIMES_LARGER = 3


def measure_scale(images_path: Path, work: Path, *, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """First batch, opening and memory; each value of each fresh process.

    Parameters
    ----------
    images_path
        Images (.npy) that the caches repeat.
    work
        Folder for the caches: about 6.5 GB at 224 px.
    repeats
        Fresh processes per measurement, those of different measurements in turn.
    say
        Takes one line for people.
    """
    images = np.load(images_path, mmap_mode="r")
    full, larger, index_only = (work / name for name in ("full", "larger", "index-only"))
    for directory, count in ((full, FULL_SET), (larger, FULL_SET * TIMES_LARGER)):
        if not (directory / MANIFEST_NAME).exists():
            say(f"writing a cache of {count:,} images")
            write_repeated_cache(directory, images, count)
    if not (index_only / MANIFEST_NAME).exists():
        say(f"writing the index of a cache of {LARGE_INDEX:,} images")
        write_index_only_cache(index_only, open_cache(full), LARGE_INDEX)
    tasks = {
        "first_batch": ("first-batch", full),
        "open_large": ("open", index_only),
        "memory_full": ("memory", full),
        "memory_larger": ("memory", larger),
    }
    results: dict[str, list[Any]] = {name: [] for name in tasks}
    for number in range(1, repeats + 1):
        say(f"fresh processes, {number} of {repeats}")
        for name, (task, directory) in tasks.items():
            results[name].append(run_fresh(task, directory))
    return results


def run_fresh(task: str, directory: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    here = Path(__file__).parent.parent
    search = os.pathsep.join([os.fspath(here), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "stream.fresh", task, os.fspath(directory.resolve())],
        env={**os.environ, "PYTHONPATH": search},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
