"""How many images a shard should hold: the same source built and read with shards of several sizes.

In every round each capacity has one turn: a build with 2 processes, a build after one image has changed, opening,
mapping, the first batch and shuffled epochs. Figures are medians over the rounds; ratios are taken within a round,
against a capacity of 128.

Usage: python benchmarks/bench_shard_size.py SOURCE [--images N] [--capacities N ...] [--rounds N] [--many N] [--json F]
SOURCE is a C-NMC folder; its images are read through links in a scratch folder below the current one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from scale.made_cache import write_pixel_cache

from leukemia_data.caches.cache import find_cache_dirs, open_cache
from leukemia_data.sources.source import list_source

CAPACITIES = (32, 128, 512, 2048, 4096)
REFERENCE = 128
SIZE_PX = 224
BATCH_SIZE = 64
EPOCHS = 9
MANY_SIZE_PX = 8
FIELDS = ("shards", "build", "one_changed", "open_ms", "map_ms", "first_batch_ms", "epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--capacities", type=int, nargs="+", default=list(CAPACITIES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--many", type=int, default=100_000, help="made images of 8 px, to see many shards")
    parser.add_argument("--json", type=Path, dest="json_path")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read_cache(arguments.read)))
        return
    if arguments.source is None:
        parser.error("name a SOURCE")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        result = run(Path(scratch), arguments)
    print_tables(result)
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def run(scratch: Path, arguments: argparse.Namespace) -> dict:
    """All rounds over the source's images, and reading made caches of many small ones once."""
    linked = link_images(arguments.source, scratch / "source", arguments.images)
    built: dict[int, list[dict]] = {capacity: [] for capacity in arguments.capacities}
    for _ in range(arguments.rounds):
        for capacity in arguments.capacities:
            built[capacity].append(one_turn(scratch, linked, capacity))
    many = {}
    for capacity in arguments.capacities:
        directory = write_pixel_cache(scratch / "many", arguments.many, MANY_SIZE_PX, capacity)
        many[capacity] = in_own_process(directory)
        shutil.rmtree(scratch / "many")
    return {"num_images": arguments.images, "num_many": arguments.many, "built": built, "many": many}


def link_images(source: Path, linked: Path, num_images: int) -> Path:
    """A tree of links to some images of a source, spread over it evenly."""
    records = list_source([source]).records
    for record in records[:: max(len(records) // num_images, 1)][:num_images]:
        link = linked / record.record_id
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(record.path.resolve())
    return linked


def one_turn(scratch: Path, source: Path, capacity: int) -> dict:
    """Build, change one image, build again, read; the cache and the change are gone afterwards."""
    cache_root = scratch / "cache"
    command = ("build", source, "--cache", cache_root, "--size", SIZE_PX, "--n-jobs", 2, "--shard-size", capacity)
    seconds, answer = time_command(*command)
    images_per_s = answer["num_images"] / seconds
    changed = min(path for path in source.rglob("*") if path.is_symlink())
    original = changed.readlink()
    frame = cv2.imread(str(changed))
    changed.unlink()
    cv2.imwrite(str(changed), np.roll(frame, 3, axis=0))
    one_changed_s, answer = time_command(*command)
    assert answer["num_processed"] == 1
    changed.unlink()
    changed.symlink_to(original)
    [directory] = find_cache_dirs(cache_root)
    measured = {"build": images_per_s, "one_changed": one_changed_s, **in_own_process(directory)}
    shutil.rmtree(cache_root)
    return measured


def time_command(*arguments: object) -> tuple[float, dict]:
    """Seconds of a whole ldata command and its JSON answer."""
    line = [sys.executable, "-c", "from cli.ldata import main; main()", *map(str, arguments), "--json"]
    started = time.perf_counter()
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, json.loads(done.stdout)


def in_own_process(directory: Path) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--read", str(directory)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def read_cache(directory: Path) -> dict:
    """Open, map, first batch in milliseconds, and images per second of the fastest of some shuffled epochs."""
    from leukemia_data.streams.loader import BatchStream

    times = [time.perf_counter()]
    cache = open_cache(directory)
    times.append(time.perf_counter())
    cache.reader  # noqa: B018 - maps the shards
    times.append(time.perf_counter())
    stream = BatchStream(cache, np.arange(len(cache)), batch_size=BATCH_SIZE, seed=1, residency="mapped")
    next(stream.epoch(0))
    times.append(time.perf_counter())
    rates = []
    for epoch in range(1, EPOCHS + 1):
        started = time.perf_counter()
        num_images = sum(len(batch.labels_B) for batch in stream.epoch(epoch))
        rates.append(num_images / (time.perf_counter() - started))
    open_s, map_s, first_s = np.diff(times)
    return {
        "shards": len(cache.manifest.shards),
        "open_ms": open_s * 1e3,
        "map_ms": map_s * 1e3,
        "first_batch_ms": first_s * 1e3,
        # The best: whatever else the machine does only ever slows an epoch down.
        "epoch": max(rates),
    }


def print_tables(result: dict) -> None:
    """Medians, and the build's and the epochs' rates beside those of the reference."""
    print(f"{result['num_images']} images built at {SIZE_PX} px")
    titles = "capacity | shards | build images/s | ratio | one changed s | open ms | map ms | first batch ms"
    print(f"| {titles} | epoch images/s | ratio |")
    print("|---" * 10 + "|")
    for capacity, turns in result["built"].items():
        value = {name: statistics.median(turn[name] for turn in turns) for name in FIELDS}
        ratios = {name: _ratio(result["built"], capacity, name) for name in ("build", "epoch")}
        print(
            f"| {capacity} | {value['shards']:.0f} | {value['build']:.0f} | {ratios['build']} | "
            f"{value['one_changed']:.2f} | {value['open_ms']:.1f} | {value['map_ms']:.1f} | "
            f"{value['first_batch_ms']:.1f} | {value['epoch']:,.0f} | {ratios['epoch']} |"
        )
    print(f"\n{result['num_many']:,} images of {MANY_SIZE_PX} px")
    print("| capacity | shards | open ms | map ms | first batch ms | epoch images/s |")
    print("|---" * 6 + "|")
    for capacity, value in result["many"].items():
        print(
            f"| {capacity} | {value['shards']} | {value['open_ms']:.0f} | {value['map_ms']:.0f} | "
            f"{value['first_batch_ms']:.0f} | {value['epoch']:,.0f} |"
        )


def _ratio(built: dict[int, list[dict]], capacity: int, name: str) -> str:
    if REFERENCE not in built:
        return ""
    pairs = zip(built[capacity], built[REFERENCE], strict=True)
    return f"{statistics.median(turn[name] / reference[name] for turn, reference in pairs):.2f}"


if __name__ == "__main__":
    main()
