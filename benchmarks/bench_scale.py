"""How time and memory grow with the number of samples: planning, committing, opening, splitting, ordering.

Each measurement runs in a process of its own, over made caches in the real format whose shards are holes of the right
size. A line is fitted through what was measured, cost a sample and cost at the start; the last column says by which
power of the number of samples the time grows between the two largest sizes: 1 is linear.

Usage: python benchmarks/bench_scale.py [--samples N ...] [--only NAME ...] [--work FOLDER] [--json OUT] [--figure PNG]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scale.growth import Growth, print_table
from scale.measurements import MEASUREMENTS, SIZE_PX
from scale.prepared import prepare

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MOST_LISTED = 1_000_000
"""Files that the listing is measured with at the most; the line goes on from there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=[*MEASUREMENTS], default=list(MEASUREMENTS))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--json", type=Path, dest="json_path")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, num_samples = arguments.measure[0], int(arguments.measure[1])
        print(json.dumps(_measure_here(arguments.work, name, num_samples)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work or Path.cwd()) as scratch:
        growths = measure_all(arguments.samples, arguments.only, Path(scratch))
    print_table(growths)
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps([growth.as_dict() for growth in growths], indent=1) + "\n")
    if arguments.figure:
        # Only who wants a figure waits for matplotlib.
        from scale.figure import draw

        draw(growths, arguments.figure)


def measure_all(sizes: list[int], names: list[str], scratch: Path) -> list[Growth]:
    """Every measurement at every size; what is made for a size is removed before the next is made."""
    growths = [Growth(name, MEASUREMENTS[name][0]) for name in names]
    for num_samples in sorted(sizes):
        work = scratch / str(num_samples)
        work.mkdir()
        _in_own_process(work, "prepare", num_samples)
        for growth in growths:
            if growth.name == "list" and num_samples > MOST_LISTED:
                continue
            growth.add(num_samples, _in_own_process(work, growth.name, num_samples))
            print(f"{growth.title}, {num_samples:,}: {growth.points[-1]}", file=sys.stderr)
        shutil.rmtree(work)
    return growths


def _in_own_process(work: Path, name: str, num_samples: int) -> dict:
    command = [sys.executable, __file__, "--work", str(work), "--measure", name, str(num_samples)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _measure_here(work: Path, name: str, num_samples: int) -> dict:
    if name == "prepare":
        prepare(work, num_samples, SIZE_PX, with_files=num_samples <= MOST_LISTED)
        return {}
    meter = MEASUREMENTS[name][1](work, num_samples)
    return {
        "seconds": meter.seconds,
        "cpu_seconds": meter.cpu_seconds,
        "peak_bytes": meter.peak_bytes,
        "kept_bytes": meter.kept_bytes,
    }


if __name__ == "__main__":
    main()
