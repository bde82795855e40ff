"""Raw and compressed shards side by side: size, images/s of reading and streaming, images/s of compressing.

Usage: python benchmarks/bench_codec.py CACHE [--repeats N] [--num-images N] [--batch-size B] [--json OUT]

CACHE is a cache (of 224 px images, for the figures in docs/compression.md), of any codec; it is only read. Its first
images are copied into a raw and a zstd cache below the current folder, which both need room there. Every round gives
each reader one turn, alternating; figures are medians over the rounds, ratios are taken within a round. "cold" has the
shards' pages dropped from the system's file cache before the turn (Linux; the disk's own caches stay).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.building.repair import convert
from leukemia_data.caches.cache import Cache, SampleReader, open_cache
from leukemia_data.caches.codec import CODECS, RAW, ZSTD, codec_named
from leukemia_data.caches.hdf5_file import SampleIndex, read_index, write_index
from leukemia_data.caches.manifest import load_manifest, save_manifest
from leukemia_data.caches.opening import choose_folder
from leukemia_data.caches.shard import write_shard
from leukemia_data.streams.loader import BatchStream

THREADS = (1, 2)
TARGET_RATIO, TARGET_IMAGES_PER_S = 2.0, 3000.0
MB = 1e6


@dataclass(frozen=True)
class Turn:
    """One thing that is measured: images/s of a codec, read in some way."""

    codec: str
    way: str
    threads: int
    is_cold: bool

    @property
    def name(self) -> str:
        """What is measured, whatever the codec."""
        return f"{self.way}, {threads_text(self.threads)}, {'cold' if self.is_cold else 'warm'}"


def threads_text(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--size", type=int, default=224, help="side of the images in px, where CACHE holds several")
    parser.add_argument("--num-images", type=int, default=2000, help="copied and measured; whole shards")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in each of which everybody has a turn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, dest="json_path")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    directory = choose_folder(arguments.cache, "a folder is measured", size_px=arguments.size)[0]
    # Below the current folder, not in the system's temporary one: that may be memory.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-codec-") as work:
        directories = make_caches(directory, Path(work), arguments.num_images)
        with open_cache(directories[RAW]) as raw, open_cache(directories[ZSTD]) as zstd:
            result = measure({RAW: raw, ZSTD: zstd}, arguments)
    print(as_text(result))
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def make_caches(directory: Path, work: Path, num_images: int) -> dict[str, Path]:
    """By codec, a cache of the same first images."""
    first, second = (work / codec for codec in CODECS)
    save_first_shards(directory, first, num_images)
    convert(first, ZSTD, out=second, num_threads=os.cpu_count() or 1)
    return {RAW: first, ZSTD: second}


def save_first_shards(directory: Path, work: Path, num_images: int) -> None:
    """A raw cache of the shards that hold the first images."""
    work.mkdir()
    manifest = load_manifest(directory)
    index = read_index(directory, manifest.index)
    ends = np.cumsum([shard.num_samples for shard in manifest.shards]).tolist()
    shards = []
    with open_cache(directory) as cache:
        for end, shard in zip(ends, manifest.shards, strict=True):
            rows = np.arange(end - shard.num_samples, end)
            images, table = cache.reader.gather(rows), index.table.take(rows)
            shards.append(write_shard(work, images, table, manifest.fingerprint))
            if end >= num_images:
                break
    taken = np.arange(end)
    part = SampleIndex(index.table.take(taken), index.source_states[taken])
    changes = {"shards": tuple(shards), "index": write_index(work, part), "codec": RAW, "quarantined": ()}
    save_manifest(work, replace(manifest, source_state=None, **changes))


def measure(caches: dict[str, Cache], arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON values."""
    turns = [
        Turn(codec, way, threads, is_cold)
        for way in ("reader", "stream")
        for threads in THREADS
        for is_cold in ([False, True] if hasattr(os, "posix_fadvise") else [False])
        for codec in CODECS
    ]
    rates: dict[Turn, list[float]] = {turn: [] for turn in turns}
    encode: list[float] = []
    for _ in range(arguments.repeats):
        for turn in turns:
            rates[turn].append(rate_of(turn, caches[turn.codec], arguments.batch_size))
        encode.append(encode_rate(caches[RAW]))
    manifests = {codec: cache.manifest for codec, cache in caches.items()}
    return {
        "cache": {"num_images": len(caches[RAW]), "size_px": caches[RAW].size_px, "cpus": os.cpu_count()},
        "library_versions": dict(manifests[ZSTD].library_versions),
        "ratio": round(manifests[ZSTD].compression_ratio, 3),
        "file_ratio": round(manifests[RAW].num_bytes / manifests[ZSTD].num_bytes, 3),
        "encode_images_per_s_one_thread": round(statistics.median(encode)),
        "rows": [row_of(turn, rates) for turn in turns if turn.codec == RAW],
    }


def row_of(turn: Turn, rates: dict[Turn, list[float]]) -> dict[str, Any]:
    raw, zstd = rates[turn], rates[replace(turn, codec=ZSTD)]
    return {
        "what": turn.name,
        "raw_images_per_s": round(statistics.median(raw)),
        "zstd_images_per_s": round(statistics.median(zstd)),
        "zstd_of_raw": round(statistics.median(z / r for r, z in zip(raw, zstd, strict=True)), 3),
    }


def rate_of(turn: Turn, cache: Cache, batch_size: int) -> float:
    """Images/s of one pass over all images in random order."""
    order = np.random.default_rng(0).permutation(len(cache))
    batches = np.array_split(order, max(len(order) // batch_size, 1))
    if turn.is_cold:
        cache.close()
        drop_pages(cache)
    with readers(turn, cache, batch_size) as read:
        if not turn.is_cold:
            read(batches)
        started_s = time.perf_counter()
        read(batches)
        return len(order) / (time.perf_counter() - started_s)


@contextmanager
def readers(turn: Turn, cache: Cache, batch_size: int) -> Iterator[Callable[[list[np.ndarray]], None]]:
    """What reads all batches once, in the way that is measured."""
    if turn.way == "stream":
        numbers = np.arange(len(cache))
        stream = BatchStream(
            cache, numbers, batch_size=batch_size, seed=0, num_threads=turn.threads, residency="mapped"
        )
        yield lambda batches: [None for _ in stream.epoch(0)] and None
        return
    reader, size_px = SampleReader(cache), cache.size_px
    buffers = [np.zeros((batch_size * 2, size_px, size_px, 3), np.uint8) for _ in range(turn.threads)]

    def work(part: int, batches: list[np.ndarray]) -> None:
        for numbers in batches[part :: turn.threads]:
            reader.gather(numbers, buffers[part][: len(numbers)])

    with ThreadPoolExecutor(turn.threads) as pool:
        yield lambda batches: [None for _ in pool.map(lambda part: work(part, batches), range(turn.threads))] and None


def drop_pages(cache: Cache) -> None:
    """Ask the system to forget the shards; nobody may have them mapped."""
    for shard in cache.manifest.shards:
        descriptor = os.open(cache.directory / shard.name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def encode_rate(cache: Cache) -> float:
    """Images/s of compressing, one thread."""
    codec, images = codec_named(ZSTD), cache.reader.gather(np.arange(min(len(cache), 256)))
    started_s = time.perf_counter()
    for image in images:
        codec.encode(image)
    return len(images) / (time.perf_counter() - started_s)


def worth_it(result: dict[str, Any], threads: int) -> str:
    """Between which rates of a disk or network compressed images arrive sooner, if reading and decoding overlap.

    Raw images arrive at rate / image_bytes a second, compressed ones at the smaller of ratio times that and what is
    decoded. So up to decoded * image_bytes / ratio they gain all of the ratio, and up to ratio times that anything.
    """
    [decoded] = [row["zstd_images_per_s"] for row in result["rows"] if row["what"] == warm_stream(threads)]
    limit_mb_per_s = decoded * result["cache"]["size_px"] ** 2 * 3 / MB
    ratio = result["ratio"]
    return (
        f"{threads_text(threads)}: {ratio:.2f} times sooner than raw up to {limit_mb_per_s / ratio:,.0f} MB/s of disk "
        f"or network, sooner up to {limit_mb_per_s:,.0f} MB/s"
    )


def warm_stream(threads: int) -> str:
    return Turn(ZSTD, "stream", threads, is_cold=False).name


def as_text(result: dict[str, Any]) -> str:
    told = result["cache"]
    lines = [
        f"{told['num_images']:,} images of {told['size_px']} px, {told['cpus']} CPUs; "
        f"zstandard {result['library_versions']['zstandard']}",
        f"images {result['ratio']:.2f} times smaller, files {result['file_ratio']:.2f} times; "
        f"compressing {result['encode_images_per_s_one_thread']:,} images/s on one thread",
        "",
        "| images/s | raw | zstd | zstd / raw |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['what']} | {row['raw_images_per_s']:,} | {row['zstd_images_per_s']:,} | {row['zstd_of_raw']:.2f} |"
        for row in result["rows"]
    ]
    [stream] = [row["zstd_images_per_s"] for row in result["rows"] if row["what"] == warm_stream(2)]
    lines += ["", *(worth_it(result, threads) for threads in THREADS)]
    lines.append(
        f"goals: {result['ratio']:.2f} of {TARGET_RATIO:.0f} times smaller, "
        f"{stream:,} of {TARGET_IMAGES_PER_S:,.0f} images/s decoded through the stream on 2 threads"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
