"""The part of ``ldata bench`` that measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch

from cli.output import format_table, print_json, print_text
from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.opening import LocalCopiesChoice, open_chosen_cache
from leukemia_data.caches.statistics import channel_statistics
from leukemia_data.errors import UsageError
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.stores.url import Location
from leukemia_data.streams.batch import Batch
from leukemia_data.streams.loader import BatchStream
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import choose_device
from leukemia_models.networks.registry import build_model
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.train import fit

_CEILING_BYTES = 1 << 29
_FEWEST_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The command line."""

    location: Location
    stage: LocalCopiesChoice
    size_px: int | None
    augment: str
    model_name: str
    batch_size: int
    num_threads: int | None
    device: str
    seconds: float
    as_json: bool


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What was measured.

    Attributes
    ----------
    ceiling_images_per_s
        Threads that only copy memory of the size of batches.
    stream_images_per_s
        Shuffled uint8 batches on the device.
    augment_images_per_s
        Augmentation and normalisation of batches that are there already.
    train_images_per_s
        All of it with the network's forward and backward pass.
    first_batch_s
        From opening the cache to the first batch.
    epoch_s, epoch_wait_s
        Estimated for all images of the cache: an epoch of training, and what of it is waiting for batches.
    traffic
        What was fetched of a cache at a URL, before the rates were measured; empty for one on disk.
    """

    cache: str
    size_px: int
    num_samples: int
    device: str
    num_threads: int
    batch_size: int
    augmentation: str
    model_name: str
    residency: str
    ceiling_images_per_s: float
    stream_images_per_s: float
    augment_images_per_s: float
    train_images_per_s: float
    first_batch_s: float
    epoch_s: float
    epoch_wait_s: float
    traffic: str


def bench(request: BenchRequest) -> None:
    """Measure and print."""
    result = _measure(request)
    if request.as_json:
        print_json(asdict(result))
    else:
        print_text(_as_text(result))


def _measure(request: BenchRequest) -> BenchResult:
    device, augmentation = choose_device(request.device), load_augmentation(request.augment)
    started_s = time.perf_counter()
    with open_chosen_cache(request.location, request.stage, size_px=request.size_px) as cache:
        if len(cache) < request.batch_size:
            raise UsageError(f"{cache.location} holds {len(cache)} images, less than --batch-size {request.batch_size}")
        normalization = _normalization(cache)
        stream = BatchStream(
            cache,
            np.arange(len(cache), dtype=np.int64),
            batch_size=request.batch_size,
            seed=0,
            drop_last=True,
            device=device,
            num_threads=request.num_threads,
        )
        batch = next(stream.epoch(0))
        first_batch_s = time.perf_counter() - started_s
        augmenter = Augmenter(augmentation, seed=0, mean=normalization.mean, std=normalization.std, device=device)
        _drain(stream.epoch(0), device)
        train_images_per_s, wait_share = _train(request, cache, stream, augmenter, normalization, device)
        return BenchResult(
            cache=str(cache.location),
            size_px=cache.size_px,
            num_samples=len(cache),
            device=str(device),
            num_threads=stream.num_threads,
            batch_size=request.batch_size,
            augmentation=augmentation.name,
            model_name=request.model_name,
            residency=stream.residency.reason,
            ceiling_images_per_s=_copy_ceiling(cache.size_px, request.batch_size, stream.num_threads, request.seconds),
            stream_images_per_s=_rate(_endless(stream), request, device),
            augment_images_per_s=_rate(_augmented(batch, augmenter), request, device),
            train_images_per_s=train_images_per_s,
            first_batch_s=first_batch_s,
            epoch_s=len(cache) / train_images_per_s,
            epoch_wait_s=len(cache) / train_images_per_s * wait_share,
            traffic=cache.traffic_text,
        )


def _normalization(cache: Cache) -> Normalization:
    table = cache.table
    statistics = channel_statistics(table.channel_sums, table.channel_square_sums, cache.pixels_per_image)
    if statistics is None or min(statistics.std) == 0:
        raise UsageError(f"{cache.location} holds no images to normalise by")
    return Normalization(statistics.mean, statistics.std)


def _rate(batches: Iterable[object], request: BenchRequest, device: torch.device) -> float:
    """Images per second of an endless iterable of batches."""
    count, started_s = 0, time.perf_counter()
    for _ in batches:
        count += request.batch_size
        if time.perf_counter() - started_s >= request.seconds:
            break
    _wait_for(device)
    return count / (time.perf_counter() - started_s)


def _endless(stream: BatchStream) -> Iterator[Batch]:
    while True:
        yield from stream


def _augmented(batch: Batch, augmenter: Augmenter) -> Iterator[torch.Tensor]:
    epoch = 0
    while True:
        epoch += 1
        yield augmenter(batch.images_BHWC, epoch, batch.indices_B)


def _drain(batches: Iterable[object], device: torch.device) -> None:
    for _ in batches:
        pass
    _wait_for(device)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _copy_ceiling(size_px: int, batch_size: int, num_threads: int, seconds: float) -> float:
    """Images per second of threads that copy blocks of a large array into buffers of a batch each."""
    image_bytes = size_px * size_px * 3
    num_blocks = max(_CEILING_BYTES // (image_bytes * batch_size), 2)
    blocks = np.ones((num_blocks, batch_size * image_bytes), np.uint8)
    order = np.random.default_rng(0).permutation(num_blocks)
    ends_s = time.perf_counter() + seconds

    def copy(thread: int) -> int:
        buffers, count = np.zeros((2, batch_size * image_bytes), np.uint8), 0
        while time.perf_counter() < ends_s:
            np.copyto(buffers[count % 2], blocks[order[(count * num_threads + thread) % num_blocks]])
            count += 1
        return count

    with ThreadPoolExecutor(num_threads) as pool:
        started_s = time.perf_counter()
        count = sum(pool.map(copy, range(num_threads)))
        return count * batch_size / (time.perf_counter() - started_s)


class _FirstSteps:
    """The first steps of each epoch of a stream; the rest of the samples is not asked for."""

    def __init__(self, stream: BatchStream, num_steps: int) -> None:
        self._stream, self._num_steps = stream, min(num_steps, len(stream))

    def __len__(self) -> int:
        return self._num_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        return islice(self._stream.epoch(epoch, first_step), self._num_steps - first_step)


def _train(
    request: BenchRequest,
    cache: Cache,
    stream: BatchStream,
    augmenter: Augmenter,
    normalization: Normalization,
    device: torch.device,
) -> tuple[float, float]:
    """Images per second of training, and the share of the time that it waits for batches."""
    if (cache.table.labels == UNKNOWN_LABEL).any():
        raise UsageError(f"{cache.location} holds unlabelled images, and training cannot be measured with them")
    model = build_model(request.model_name, len(cache.manifest.classes))

    def run(num_steps: int) -> tuple[float, float]:
        settings = TrainSettings(epochs=1, num_classes=len(cache.manifest.classes))
        history = fit(model, _FirstSteps(stream, num_steps), None, settings, normalization, augmenter, device)
        record = history.records[0]
        return record.images_per_s, record.data_wait_share or 0.0

    images_per_s, _ = run(_FEWEST_STEPS)
    return run(max(int(images_per_s * request.seconds / request.batch_size), _FEWEST_STEPS))


def _as_text(result: BenchResult) -> str:
    ceiling = result.ceiling_images_per_s
    measured: list[tuple[str, float, Callable[[float], str]]] = [
        (f"memory copies, {result.num_threads} threads", ceiling, lambda rate: "the ceiling"),
        (f"stream of uint8 batches, {result.num_threads} threads", result.stream_images_per_s, _share_of(ceiling)),
        (f"augmentation {result.augmentation}", result.augment_images_per_s, lambda rate: ""),
        (f"training {result.model_name}", result.train_images_per_s, lambda rate: ""),
    ]
    rows = [[name, f"{rate:,.0f}", note(rate)] for name, rate, note in measured]
    headroom = result.stream_images_per_s / result.train_images_per_s
    return "\n".join(
        [
            f"{result.cache}: {result.num_samples:,} images of {result.size_px} px, batches of {result.batch_size}, "
            f"on {result.device}; {result.residency}",
            "",
            format_table(["", "images/s", ""], rows),
            "",
            f"First batch {result.first_batch_s:.2f} s after opening the cache.",
            f"An epoch of {result.num_samples:,} images takes {result.epoch_s:,.1f} s, of which it waits "
            f"{result.epoch_wait_s:.2f} s for data ({100 * result.epoch_wait_s / result.epoch_s:.2f} %).",
            f"The stream could feed {headroom:,.0f} times as fast a network.",
            *([f"From the URL: {result.traffic}."] if result.traffic else []),
        ]
    )


def _share_of(ceiling: float) -> Callable[[float], str]:
    return lambda rate: f"{rate / ceiling:.2f} of it"
