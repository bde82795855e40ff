"""Disks that are really full: a limit on the size of files, and where mounting is allowed, a small disk of its own.

The small disk fills up while a build is running. Each run ends with one line that names the file or the disk; no cache
that opens is wrong; with room again the next build completes with the bytes of an undisturbed one.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .build_bench import ServedBench, tallied
from .fork_server import Ended, fork_server
from .tally import Report, Tally

_DISK_BYTES = 16 << 20
_SMALLEST_LIMIT_BYTES = 600
_LARGEST_LIMIT_BYTES = 200_000
_MAX_FREE_BYTES = 400_000


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` full disks; where mounting is allowed every second one is a disk, otherwise all are limits."""
    with fork_server(work_dir) as server, _small_disk(work_dir / "disk") as disk:
        limited = ServedBench(work_dir / "limited", server)
        filled = None if disk is None else ServedBench(work_dir / "filled", server, cache=disk / "cache")

        def results() -> Iterator[tuple[int, str, list[str]]]:
            for number in range(seed, seed + count):
                if filled is None or disk is None or number % 2:
                    yield (number, *_try_limit(limited, random.Random(number)))
                else:
                    yield (number, *_try_filling(filled, disk, random.Random(number)))

        return tallied(results(), report)


def _try_limit(bench: ServedBench, draw: random.Random) -> tuple[str, list[str]]:
    work, n_jobs = draw.choice(["first build", "rebuild"]), draw.choice([1, 1, 1, 2])
    share = draw.random()
    limit = int(_SMALLEST_LIMIT_BYTES * (_LARGEST_LIMIT_BYTES / _SMALLEST_LIMIT_BYTES) ** share)
    ended = bench.server.run(bench.prepare(work, n_jobs), file_limit_bytes=limit)
    fault = f"no file above {limit:,} bytes, {work}, {n_jobs} jobs"
    return fault, [*_badly_told(ended), *bench.wrong_afterwards(work)]


def _try_filling(bench: ServedBench, disk: Path, draw: random.Random) -> tuple[str, list[str]]:
    work, moment = draw.choice(["first build", "rebuild"]), draw.random()
    left_bytes = int(_MAX_FREE_BYTES * draw.random() ** 2)
    seconds = bench.length_s(work, 1)
    running = bench.server.start(bench.prepare(work))
    time.sleep(moment * seconds)
    filler = disk / "filler"
    _fill(filler, left_bytes)
    ended = running.wait()
    filler.unlink()
    fault = f"disk filled up to {left_bytes:,} bytes, {work}, {moment:.3f} of the way"
    return fault, [*_badly_told(ended), *bench.wrong_afterwards(work)]


def _fill(filler: Path, left_bytes: int) -> None:
    """Write until nothing goes in any more, then give back what shall be left."""
    block = bytes(1 << 16)
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(block):
                pass
        except OSError:
            pass
        file.truncate(max(file.tell() - left_bytes, 0))


def _badly_told(ended: Ended) -> list[str]:
    said = ended.error_lines
    is_told = ended.code == 1 and len(said) == 1 and said[0].startswith("Error: ")
    return [] if is_told or (ended.code == 0 and not said) else [f"ended with {ended.code}: {said[-3:]}"]


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk in memory for the block; None where this user may not mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
