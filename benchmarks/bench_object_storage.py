"""How fast batches are whose cache lies in an object store, beside the same cache on disk.

Usage: python benchmarks/bench_object_storage.py CACHE [--rounds N] [--images N] [--step-images N] [--json OUT]

CACHE is a local cache, best of 128 px images. A real S3 server (moto's, in a process of its own) is started on
loopback, CACHE is pushed there and pulled again. Every round, each of them has a turn: the local cache, the pulled one,
the one at the URL without local copies (its first epoch: rows by ranges until shards are here), and that with all
shards copied (any later epoch). All are read by the same stream, from memory maps. Then the same with a training step
of a ResNet-18 between the batches: what share of an epoch the network waits.

Server, copying and training share this machine's cores: over a network, the server's part would not be here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.caches.local_copies import LocalCopies
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.remote_cache import RemoteCache, open_remote_cache
from leukemia_data.caches.transfer import pull_cache, push_cache
from leukemia_data.stores.object_store import ObjectStore, open_store
from leukemia_data.streams.loader import BatchStream
from leukemia_models.networks.registry import build_model

LOCAL, PULLED, FIRST, SECOND = "local", "pulled", "URL, first epoch", "URL, second epoch"
BUCKET = "bench"
TARGET_SHARE = 0.95
TURN_S = 1.0
Run = Callable[[Cache, int], tuple[float, int, list[float]]]
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Turns:
    """Images per second of each round; with a training step also the share of the time that it waited."""

    images_per_s: list[float] = field(default_factory=list)
    wait_shares: list[float] = field(default_factory=list)
    traffic: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Images per second."""
        return statistics.median(self.images_per_s)

    @property
    def wait_share(self) -> float:
        """Share of the time."""
        return statistics.median(self.wait_shares)


@dataclass
class Result:
    """All that was measured."""

    num_samples: int
    size_px: int
    num_shards: int
    num_bytes: int
    push_s: float
    pull_s: float
    stream: dict[str, Turns]
    step: dict[str, Turns]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4096, help="of an epoch of the stream alone, at the most")
    parser.add_argument("--step-images", type=int, default=512, help="of an epoch with a training step")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, dest="json_path")
    return parser.parse_args()


@contextmanager
def object_server() -> Iterator[None]:
    """An S3 server with an empty bucket, which this process's libraries find."""
    command = [sys.executable, "-c", _SERVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
        os.environ.update({"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **keys})
        urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()
        yield
    finally:
        process.kill()
        process.wait()


def run_epoch(
    cache: Cache,
    arguments: argparse.Namespace,
    epoch: int,
    num_images: int,
    step: Callable[[torch.Tensor, torch.Tensor], object],
) -> tuple[float, int, list[float]]:
    """Seconds, images and waits of an epoch with a step behind each batch."""
    numbers = np.arange(len(cache), dtype=np.int64)
    options = {"batch_size": arguments.batch_size, "seed": 0, "drop_last": True, "residency": "mapped"}
    with BatchStream(cache, numbers, **options) as stream:
        batches = itertools.islice(stream.epoch(epoch), max(num_images // arguments.batch_size, 1))
        waits, count = [], 0
        started_s = asked_s = time.perf_counter()
        for batch in batches:
            waits.append(time.perf_counter() - asked_s)
            step(batch.images_BHWC, batch.labels_B)
            count += len(batch.labels_B)
            asked_s = time.perf_counter()
        return time.perf_counter() - started_s, count, waits


def training_step(num_classes: int) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """Forward, backward and update of a ResNet-18."""
    model = build_model("resnet18", num_classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)

    def step(images_BHWC: torch.Tensor, labels_B: torch.Tensor) -> None:
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images_BCHW), labels_B.clamp(min=0)).backward()
        optimizer.step()

    return step


def measure_rounds(
    caches: Mapping[str, Cache], store: ObjectStore, work: Path, num_rounds: int, least_s: float, run: Run
) -> dict[str, Turns]:
    """Every round, a turn for each of the caches on disk and for the URL; the order within a round turns, too."""
    found = {name: Turns() for name in (*caches, FIRST, SECOND)}
    for number in range(num_rounds):
        copies = LocalCopies(work / f"copies-{number}")
        with open_remote_cache(store, copies) as remote:
            take_turn(found[FIRST], remote, 0.0, run)
            copy_the_rest(remote)
            turns = [*caches.items(), (SECOND, remote)]
            for position in range(len(turns)):
                name, cache = turns[(position + number) % len(turns)]
                take_turn(found[name], cache, least_s, run)
        shutil.rmtree(copies.directory)
    return found


def take_turn(turns: Turns, cache: Cache, least_s: float, run: Run) -> None:
    """One epoch; or as many as `least_s` takes, after one that touches all pages."""
    if least_s:
        run(cache, 0)
    seconds, count, waited_s = 0.0, 0, 0.0
    for epoch in itertools.count():
        took_s, num_images, waits = run(cache, epoch)
        seconds, count, waited_s = seconds + took_s, count + num_images, waited_s + sum(waits)
        if seconds >= least_s:
            break
    turns.images_per_s.append(count / seconds)
    turns.wait_shares.append(waited_s / seconds)
    turns.traffic.append(cache.traffic_text)


def copy_the_rest(cache: RemoteCache) -> None:
    """Copy and map what a short epoch did not touch; whoever wants all rows of a shard waits until it is here."""
    for first, last in itertools.pairwise(cache.first_rows.tolist()):
        cache.reader.gather(np.arange(first, last, dtype=np.int64))


def measure(arguments: argparse.Namespace, work: Path) -> Result:
    local = open_cache(arguments.cache)
    store = open_store(f"s3://{BUCKET}/caches/{arguments.cache.name}")
    started_s = time.perf_counter()
    push_cache(arguments.cache, store, num_threads=4, is_verify=False, progress=lambda _: None)
    pushed_s = time.perf_counter()
    pull_cache(store, store.read(MANIFEST_NAME), work / "pulled", num_threads=4, progress=lambda _: None)
    pulled_s = time.perf_counter()
    pulled = open_cache(work / "pulled")
    step = training_step(len(local.manifest.classes))

    def alone(cache: Cache, epoch: int) -> tuple[float, int, list[float]]:
        return run_epoch(cache, arguments, epoch, arguments.images, lambda images, labels: None)

    def with_step(cache: Cache, epoch: int) -> tuple[float, int, list[float]]:
        return run_epoch(cache, arguments, epoch, arguments.step_images, step)

    return Result(
        num_samples=len(local),
        size_px=local.size_px,
        num_shards=len(local.manifest.shards),
        num_bytes=local.manifest.num_bytes,
        push_s=pushed_s - started_s,
        pull_s=pulled_s - pushed_s,
        stream=measure_rounds({LOCAL: local, PULLED: pulled}, store, work, arguments.rounds, TURN_S, alone),
        step=measure_rounds({LOCAL: local}, store, work, 1, 0.0, with_step),
    )


def print_result(result: Result) -> None:
    megabytes = result.num_bytes / 1e6
    print(f"{result.num_samples:,} images of {result.size_px} px, {result.num_shards} shards, {megabytes:,.0f} MB")
    print(f"push {megabytes / result.push_s:,.0f} MB/s, pull {megabytes / result.pull_s:,.0f} MB/s\n")
    print(f"{'stream alone':24}{'images/s':>12}{'of local':>10}")
    for name, turns in result.stream.items():
        print(f"{name:24}{turns.median:>12,.0f}{turns.median / result.stream[LOCAL].median:>10.3f}")
    print(f"\n{'with a training step':24}{'images/s':>12}{'of local':>10}{'waiting':>10}")
    for name, turns in result.step.items():
        of_local = turns.median / result.step[LOCAL].median
        print(f"{name:24}{turns.median:>12,.0f}{of_local:>10.3f}{100 * turns.wait_share:>9.1f}%")
    for name, turns in (("stream alone", result.stream[FIRST]), ("with a training step", result.step[FIRST])):
        print(f"\nfirst epoch, {name}: {turns.traffic[-1]}")
    reached = result.stream[SECOND].median / result.stream[LOCAL].median
    print(
        f"\nsecond epoch from a URL: {reached:.3f} of local, target {TARGET_SHARE}: {verdict(reached >= TARGET_SHARE)}"
    )


def verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-object-storage-") as work, object_server():
        result = measure(arguments, Path(work))
    print_result(result)
    if arguments.json_path is not None:
        arguments.json_path.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
