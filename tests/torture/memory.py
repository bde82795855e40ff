"""Memory that runs out: allocations for single images and whole shards fail.

Each run ends with one line that says so; no cache that opens is wrong; the next build completes with the bytes of an
undisturbed one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2

from leukemia_data.building import shard_maker

from .build_bench import BuildBench, tallied
from .io_faults import badly_told, run_ldata
from .tally import Report, Tally

_NUM_IMAGES = 24
_WORKS = ("first build", "rebuild")


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` shortages in this process; what happens to workers that are killed, `build_kills` tries."""
    bench = BuildBench(work_dir, run_ldata, num_images=_NUM_IMAGES)

    def results() -> Iterator[tuple[int, str, list[str]]]:
        for number in range(seed, seed + count):
            yield (number, *_try_shortage(bench, random.Random(number)))

    return tallied(results(), report)


def _try_shortage(bench: BuildBench, draw: random.Random) -> tuple[str, list[str]]:
    """One image, or one allocation for a whole shard, finds no memory."""
    work = draw.choice(_WORKS)
    name = draw.choice(("decode_rgb", "channel_moments", "bytes_digest", "read_file", "write_shard", "read_table"))
    error = draw.choice((MemoryError(), _opencv_error()))
    number = draw.randint(1, 3 if name in ("write_shard", "read_table") else 10)
    arguments = bench.prepare(work)
    with patch.object(shard_maker, name, _failing(getattr(shard_maker, name), number, error)):
        code, errors = run_ldata(arguments)
    problems = badly_told(code, errors)
    if code != 0 and "memory" not in errors:
        problems.append(f"the message does not name the cause: {errors[-300:]}")
    return f"{type(error).__name__} at {name} {number} of {work}", [*problems, *bench.wrong_afterwards(work)]


def _failing(function: Callable[..., Any], number: int, error: Exception) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return function(*args, **kwargs)

    return counted


def _opencv_error() -> Exception:
    """OpenCV's own word for it."""
    error = cv2.error("OpenCV: Insufficient memory")
    error.code = cv2.Error.StsNoMem
    return error
