"""How fast this machine feeds a network from a cache: images per second of each part, and what an epoch waits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice, open_chosen_cache
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

_COPIED_BYTES = 1 << 29
_MIN_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class StreamBench:
    """What was measured.

    Attributes
    ----------
    cache, size_px, num_samples
        Where the cache lies, the side of its images, and their number.
    device, num_threads, batch_size, augmentation, model_name
        What it was measured with.
    residency
        Where the stream keeps its pixels, and why.
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
    augmentation
        Random changes of the images.
    model_name
        The network that is trained.
    batch_size
        Images of a batch.
    num_threads
        Threads of the stream; None for one per core, at most 4.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    seconds
        Time for each measurement.

    Raises
    ------
    UsageError
        If the cache holds less images than a batch or unlabelled ones, or the device is not there.
    """
    where, started_s = choose_device(device), time.perf_counter()
    with open_chosen_cache(location, copies, size_px=size_px) as cache:
        _check(cache, batch_size)
        normalization = _normalization(cache)
        stream = BatchStream(
            cache,
            np.arange(len(cache), dtype=np.int64),
            batch_size=batch_size,
            seed=0,
            drop_last=True,
            device=where,
            num_threads=num_threads,
        )
        batch = next(stream.epoch(0))
        first_batch_s = time.perf_counter() - started_s
        augmenter = Augmenter(augmentation, seed=0, mean=normalization.mean, std=normalization.std, device=where)
        _drain(stream.epoch(0), where)
        num_classes = len(cache.manifest.classes)
        model, settings = build_model(model_name, num_classes), TrainSettings(epochs=1, num_classes=num_classes)

        def train(num_steps: int) -> tuple[float, float]:
            steps = _FirstSteps(stream, num_steps)
            record = fit(model, steps, None, settings, normalization, augmenter, where).records[0]
            return record.images_per_s, record.data_wait_share or 0.0

        images_per_s, _ = train(_MIN_STEPS)
        train_images_per_s, wait_share = train(max(int(images_per_s * seconds / batch_size), _MIN_STEPS))
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
            ceiling_images_per_s=_copy_ceiling(cache.size_px, batch_size, stream.num_threads, seconds),
            stream_images_per_s=_rate(_endless(stream), batch_size, seconds, where),
            augment_images_per_s=_rate(_augmented(batch, augmenter), batch_size, seconds, where),
            train_images_per_s=train_images_per_s,
            first_batch_s=first_batch_s,
            epoch_s=len(cache) / train_images_per_s,
            epoch_wait_s=len(cache) / train_images_per_s * wait_share,
            traffic=cache.traffic_text,
        )


def _check(cache: Cache, batch_size: int) -> None:
    if len(cache) < batch_size:
        raise UsageError(f"{cache.location} holds {len(cache)} images, less than --batch-size {batch_size}")
    if (cache.table.labels == UNKNOWN_LABEL).any():
        raise UsageError(f"{cache.location} holds unlabelled images, and training cannot be measured with them")


def _normalization(cache: Cache) -> Normalization:
    table = cache.table
    statistics = channel_statistics(table.channel_sums, table.channel_square_sums, cache.pixels_per_image)
    if statistics is None or min(statistics.std) == 0:
        raise UsageError(f"{cache.location} holds no images to normalise by")
    return Normalization(statistics.mean, statistics.std)


def _rate(batches: Iterable[object], batch_size: int, seconds: float, device: torch.device) -> float:
    """Images per second of an endless iterable of batches."""
    count, started_s = 0, time.perf_counter()
    for _ in batches:
        count += batch_size
        if time.perf_counter() - started_s >= seconds:
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
    num_blocks = max(_COPIED_BYTES // (image_bytes * batch_size), 2)
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
