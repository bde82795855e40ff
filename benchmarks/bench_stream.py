"""How fast batches are, beside other ways to get them: one command, a table, JSON and a picture.

Usage: python benchmarks/bench_stream.py [CACHE] [--source IMAGES] [--repeats N] [--json OUT] [--figure OUT.png]
       [--only NAME ...] [--work FOLDER]

CACHE is a cache of 224 px images or a folder that holds one; without it, images are generated. --source names original
450 px images for the on-the-fly pipelines; without it, a sample is generated. All peers get the same images. What is
not installed is left out, with a line that says how to install it. benchmarks/README.md tells how it is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stream.figure import draw_bars
from stream.inputs import make_setting
from stream.peer import Setting
from stream.registry import PEERS, PeerEntry
from stream.report import machine, target_table, throughput_table
from stream.rounds import Throughput, measure
from stream.scale import measure_scale
from stream.targets import Target, scale_targets, throughput_targets

SCALE = "scale"
"""Name, for --only, of the measurements in fresh processes."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(entry.name for entry in PEERS), SCALE]
    parser.add_argument("cache", nargs="?", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--repeats", type=int, default=7, help="rounds, in each of which everybody has a turn")
    parser.add_argument("--min-seconds", type=float, default=1.0, help="a turn is as many epochs as this takes")
    parser.add_argument("--size", type=int, default=224, help="side of the images in px")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, dest="json_path")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--work", type=Path, help="keep the peers' formats here, for another run on the same cache")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
        run(arguments, arguments.work)
        return
    # Below the current folder, not in the system's temporary one: that may be memory, and this is gigabytes.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-stream-") as work:
        run(arguments, Path(work))


def run(arguments: argparse.Namespace, work: Path) -> None:
    """Measure, print, write."""
    setting = make_setting(
        arguments.cache,
        arguments.source,
        work,
        size_px=arguments.size,
        batch_size=arguments.batch_size,
        num_workers=2,
    )
    entries = [entry for entry in PEERS if entry.name in arguments.only]
    results, scale = measure_all(entries, setting, work, arguments)
    targets = throughput_targets(results) + (scale_targets(scale) if scale else [])
    what = describe(setting, arguments)
    print(f"\n{what}\n\n{throughput_table(results)}\n\n{target_table(targets)}")
    if arguments.json_path:
        content = as_json(setting, arguments, results, scale, targets)
        arguments.json_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.figure:
        draw_bars(results, what, arguments.figure)


def measure_all(
    entries: Sequence[PeerEntry], setting: Setting, work: Path, arguments: argparse.Namespace
) -> tuple[list[Throughput], dict[str, Any]]:
    repeats, min_seconds = arguments.repeats, arguments.min_seconds
    results = measure(entries, setting, work / "peers", repeats=repeats, min_seconds=min_seconds, say=say)
    if SCALE not in arguments.only:
        return results, {}
    return results, measure_scale(setting.images_path, work / "scale", repeats=repeats, say=say)


def describe(setting: Setting, arguments: argparse.Namespace) -> str:
    facts = machine()
    return (
        f"{setting.num_images:,} images of {arguments.size} px, shuffled batches of {setting.batch_size}, "
        f"{setting.num_workers} workers or threads\n{facts['processor']}, {facts['cores']} cores, {facts['system']}"
    )


def as_json(
    setting: Setting,
    arguments: argparse.Namespace,
    results: Sequence[Throughput],
    scale: dict[str, Any],
    targets: Sequence[Target],
) -> dict[str, Any]:
    return {
        "command": f"python benchmarks/bench_stream.py --repeats {arguments.repeats}",
        "machine": machine(),
        "num_images": setting.num_images,
        "is_generated": arguments.cache is None,
        "size_px": arguments.size,
        "batch_size": setting.batch_size,
        "num_workers": setting.num_workers,
        "throughput": {result.entry.name: result.as_json() for result in results},
        "fresh_processes": scale,
        "targets": [target.as_json() for target in targets],
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
