"""Measure how fast this machine feeds a network from a cache: images per second of each part, and waiting time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice, open_chosen_cache
from leukemia_data.errors import UsageError
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.stores.url import Location
from leukemia_data.streams.batch import Batch
from leukemia_data.streams.loader import BatchStream
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import AUTO, FP32, choose_device, current, decide_precision
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.draft_runs import train_statistics
from leukemia_models.training.history import EpochRecord
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.train import fit

_COPIED_BYTES = 1 << 29
_MIN_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class StreamBench:
    """Measurements of a stream.

    Attributes
    ----------
    residency
        Where the stream keeps its pixels, and why.
    ceiling_images_per_s
        Of threads that only copy memory of the size of batches.
    stream_images_per_s
        Of shuffled uint8 batches on the device.
    augment_images_per_s
        Of augmentation and normalisation of a batch on the device.
    precision
        That of a training by default on this device.
    train_images_per_s
        Of training in it: stream, augmentation, forward and backward pass.
    images_per_s_by_precision
        The same in ``fp32``, and in ``bf16`` where the device computes in it.
    first_batch_s
        From opening the cache to the first batch.
    epoch_s, epoch_wait_s
        Estimated time of a training epoch over the cache, and the part of it spent waiting for batches.
    traffic
        Downloads of a cache at a URL before the measurements; empty for one on disk.
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
    precision: str
    train_images_per_s: float
    images_per_s_by_precision: dict[str, float]
    first_batch_s: float
    epoch_s: float
    epoch_wait_s: float
    traffic: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def measure_stream(
    location: Location,
    augmentation: Augmentation,
    *,
    size_px: int | None = None,
    copies: LocalCopiesChoice = DEFAULT_COPIES,
    model_name: str = "resnet18",
    batch_size: int = 64,
    num_threads: int | None = None,
    device: str = "auto",
    seconds: float = 3.0,
) -> StreamBench:
    """Measure a cache's stream, the augmentation and training on this machine.

    Parameters
    ----------
    location, size_px, copies
        The cache, as for :func:`~leukemia_data.caches.opening.open_chosen_cache`, whose errors it raises.
    num_threads
        Threads of the stream; None for one per core, at most 4.
    seconds
        Time for each measurement.

    Raises
    ------
    UsageError
        If the cache holds fewer images than a batch or unlabelled ones, or the device is missing.
    """
    where, started_s = choose_device(device), time.perf_counter()
    with current(where), open_chosen_cache(location, copies, size_px=size_px) as cache:
        _check(cache, batch_size)
        indices_N = np.arange(len(cache), dtype=np.int64)
        stream = BatchStream(
            cache, indices_N, batch_size=batch_size, seed=0, drop_last=True, device=where, num_threads=num_threads
        )
        batch = next(stream.epoch(0))
        first_batch_s = time.perf_counter() - started_s
        normalization = train_statistics(cache, indices_N)
        augmenter = Augmenter(augmentation, seed=0, mean=normalization.mean, std=normalization.std, device=where)
        bench = _Bench(cache, stream, augmenter, normalization, batch_size, where, seconds)
        # Once through the cache, so that the rates do not depend on what was in memory before.
        bench.rate(stream.epoch(0), math.inf)
        precision = decide_precision(AUTO, where, size_px=cache.size_px)
        by_precision = {name: bench.train(model_name, name) for name in dict.fromkeys((FP32, precision))}
        trained = by_precision[precision]
        epoch_s = len(cache) / trained.images_per_s
        return StreamBench(
            cache=str(cache.location),
            size_px=cache.size_px,
            num_samples=len(cache),
            device=str(where),
            num_threads=stream.num_threads,
            batch_size=batch_size,
            augmentation=augmentation.name,
            model_name=model_name,
            residency=stream.residency.reason,
            ceiling_images_per_s=bench.copy_ceiling(),
            stream_images_per_s=bench.rate(batch for epoch in count() for batch in stream.epoch(epoch)),
            augment_images_per_s=bench.rate(augmenter(batch.images_BHWC, epoch, batch.indices_B) for epoch in count(1)),
            precision=precision,
            train_images_per_s=trained.images_per_s,
            images_per_s_by_precision={name: record.images_per_s for name, record in by_precision.items()},
            first_batch_s=first_batch_s,
            epoch_s=epoch_s,
            epoch_wait_s=epoch_s * (trained.data_wait_share or 0.0),
            traffic=cache.traffic_text,
        )


def _check(cache: Cache, batch_size: int) -> None:
    if len(cache) < batch_size:
        raise UsageError(f"{cache.location} holds {len(cache)} images, fewer than --batch-size {batch_size}")
    if (cache.table.labels == UNKNOWN_LABEL).any():
        raise UsageError(f"{cache.location} holds unlabelled images, and training cannot be measured with them")


@dataclass(frozen=True)
class _Bench:
    cache: Cache
    stream: BatchStream
    augmenter: Augmenter
    normalization: Normalization
    batch_size: int
    device: torch.device
    seconds: float

    def rate(self, batches: Iterable[object], seconds: float | None = None) -> float:
        """Return images per second of batches, measured for some seconds or to their end."""
        num_images, started_s = 0, time.perf_counter()
        for _ in batches:
            num_images += self.batch_size
            if time.perf_counter() - started_s >= (self.seconds if seconds is None else seconds):
                break
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return num_images / (time.perf_counter() - started_s)

    def train(self, model_name: str, precision: str) -> EpochRecord:
        """Train for some steps to warm up, then for some seconds."""
        num_classes = len(self.cache.manifest.classes)
        model = build_model(model_name, num_classes)
        settings = TrainSettings(epochs=1, num_classes=num_classes, precision=precision)

        def train(num_steps: int) -> EpochRecord:
            steps = _FirstSteps(self.stream, num_steps)
            return fit(model, steps, None, settings, self.normalization, self.augmenter, self.device).records[0]

        num_steps = int(train(_MIN_STEPS).images_per_s * self.seconds / self.batch_size)
        return train(max(num_steps, _MIN_STEPS))

    def copy_ceiling(self) -> float:
        """Return images per second of threads that copy blocks of a large array into buffers of a batch each."""
        num_threads, batch_bytes = self.stream.num_threads, self.cache.pixels_per_image * 3 * self.batch_size
        num_blocks = max(_COPIED_BYTES // batch_bytes, 2)
        blocks = np.ones((num_blocks, batch_bytes), np.uint8)
        order = np.random.default_rng(0).permutation(num_blocks)
        ends_s = time.perf_counter() + self.seconds

        def copy(thread: int) -> int:
            buffers, num_copied = np.zeros((2, batch_bytes), np.uint8), 0
            while time.perf_counter() < ends_s:
                block = order[(num_copied * num_threads + thread) % num_blocks]
                np.copyto(buffers[num_copied % 2], blocks[block])
                num_copied += 1
            return num_copied

        with ThreadPoolExecutor(num_threads) as pool:
            started_s = time.perf_counter()
            num_copied = sum(pool.map(copy, range(num_threads)))
            return num_copied * self.batch_size / (time.perf_counter() - started_s)


class _FirstSteps:
    """The first steps of each epoch of a stream."""

    def __init__(self, stream: BatchStream, num_steps: int) -> None:
        self._stream, self._num_steps = stream, min(num_steps, len(stream))

    def __len__(self) -> int:
        return self._num_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        return islice(self._stream.epoch(epoch, first_step), self._num_steps - first_step)
