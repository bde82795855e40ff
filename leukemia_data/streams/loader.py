"""The batch stream: shuffled or ordered batches of a cache, prefetched by threads.

Each thread copies whole batches from memory maps of the shards into buffers, which are reused when their batch is no
longer referenced. A batch is a function of batch plan, epoch and step, so that a stream can resume at any step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from threading import current_thread
from typing import Any, Self, Unpack

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import Indices, as_whole, own_indices
from leukemia_data.records.sample_table import Samples, require_samples
from leukemia_data.streams.batch import (
    Batch,
    BatchPlan,
    BatchRows,
    BufferPool,
    PlanOptions,
    as_device,
    move_batches,
    to_device,
)
from leukemia_data.streams.residency import AUTO, DeviceStore, PixelStore, open_store, residency_on

_MAX_THREADS = 4
_THREAD_NAME = "batch-stream"


@dataclass
class _Place:
    """Position of an iterator: `step` batches of `epoch` were yielded, fewer than it has."""

    epoch: int
    step: int


class BatchStream:
    """Batches of chosen samples, on the network's device.

    Each iterator of the stream yields a whole epoch: without a seed the samples in order; with a seed the epoch after
    the one begun last, however far that one was used (an epoch begins when its first batch is requested). Only the
    first iterator after :meth:`load_state_dict` continues inside an epoch. :meth:`epoch` yields any epoch by number
    and does not count as an iterator. If a rank has several micro-batches of each batch, each is yielded separately,
    and a step counts after all of them. A batch's memory is not reused while any tensor of it exists.

    Parameters
    ----------
    cache
        An opened cache.
    indices_N : ndarray of shape (N,), int64
        Sample indices to serve, in any form of :func:`leukemia_data.records.arguments.as_indices`. They are copied.
    device
        Receives images and labels.
    num_threads
        Batches gathered at a time; by default one per core, at most 4: more do not make memory faster.
    prefetch
        Batches prepared ahead of the network, at least 1; by default one less than threads. More take more room in
        the processor's caches, and help only if the time of a step varies much.
    residency
        Where the pixels are stored, see :mod:`leukemia_data.streams.residency`.
    num_processes
        Number of processes of this machine with their own copy of the split; by default all ranks.
    **plan
        As for :class:`~leukemia_data.streams.batch.BatchPlan`; `batch_size` is required.

    Raises
    ------
    UsageError
        If an argument is of another kind or out of range, or the split does not fit where it is wanted.
    CacheError
        If a shard cannot be mapped.
    """

    def __init__(
        self,
        cache: Samples,
        indices_N: Indices,
        *,
        device: torch.device | str = "cpu",
        num_threads: int | None = None,
        prefetch: int | None = None,
        residency: str = AUTO,
        num_processes: int | None = None,
        **plan: Unpack[PlanOptions],
    ) -> None:
        require_samples(cache)
        indices_N = own_indices(indices_N, len(cache), "indices_N")
        self.plan = BatchPlan(indices_N, **plan)
        self.num_threads = _or_default(num_threads, "num_threads", min(cpu_count(), _MAX_THREADS))
        self._prefetch = _or_default(prefetch, "prefetch", max(self.num_threads - 1, 1))
        self._device = as_device(device)
        self._labels, self._size_px = cache.table.labels, cache.size_px
        num_processes = _or_default(num_processes, "num_processes", self.plan.num_ranks)
        num_bytes = 3 * len(indices_N) * cache.size_px**2
        self.residency = residency_on(self._device, residency, num_bytes, num_processes)
        self._store: PixelStore | DeviceStore | None = open_store(
            self.residency.kind, cache.reader, indices_N, self._device
        )
        if cache.reader.num_unmapped:
            self.residency = self.residency.with_unmapped(cache.reader.num_unmapped)
        # All micro-batches of a step are held at once.
        self._buffers = BufferPool(3 + self.plan.micro_batches_per_rank)
        # The start of the next iterator, and the position of the last one.
        self._following = self._place = _Place(0, 0)

    def __len__(self) -> int:
        """Steps per epoch, the same on every rank."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield a whole epoch, or after :meth:`load_state_dict` the rest of one."""
        # Chosen when the first batch is requested: an unused iterator skips no epoch.
        self._place, self._following = self._following, _Place(self._following.epoch + 1, 0)
        yield from self._count(self._place)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from a step on.

        :meth:`state_dict` describes the iterator begun last, of this method or of the stream. The epoch of the
        stream's next iterator does not change.

        Raises
        ------
        UsageError
            If the epoch has no such step.
        """
        self._place = self._checked_place(epoch, first_step)
        return self._count(self._place)

    def _checked_place(self, epoch: int, first_step: int) -> _Place:
        place = _Place(as_whole(epoch, "epoch"), as_whole(first_step, "first_step"))
        if place.epoch < 0 or not 0 <= place.step <= len(self):
            raise UsageError(f"there is no step {place.step} in epoch {place.epoch}: an epoch has {len(self)} steps")
        return place

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iterator, as for distributed samplers.

        If a state inside this epoch was loaded, that iterator yields the rest of it.

        Raises
        ------
        UsageError
            If it is not a whole number from 0.
        """
        epoch = as_whole(epoch, "epoch", at_least=0)
        if epoch != self._following.epoch:
            self._following = _Place(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the iterator begun last: yielded batches count, prepared ones do not.

        After the last batch of an epoch it is the start of the next one. The state is valid for any number of ranks,
        threads and devices.
        """
        return {"epoch": self._place.epoch, "step": self._place.step, "plan": self.plan.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the next iterator where another stream of the same plan was; later ones yield whole epochs.

        Raises
        ------
        UsageError
            If it is no state, or belongs to other samples, another order or batch size.
        """
        try:
            epoch, step = as_whole(state["epoch"], "epoch"), as_whole(state["step"], "step")
            plan = dict(state["plan"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is no state of a stream: {error!r}") from error
        own = self.plan.identity()
        if plan != own:
            differing = ", ".join(name for name in own if plan.get(name) != own[name])
            raise UsageError(f"the state belongs to a stream of another {differing}: it cannot be continued here")
        place = self._checked_place(epoch, step)
        # States of earlier versions may be at the end of an epoch.
        self._place = _Place(epoch + 1, 0) if step == len(self) > 0 else place
        self._following = replace(self._place)

    def close(self) -> None:
        """Release the pixels' memory; the cache keeps its own maps until it is closed."""
        self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _count(self, place: _Place) -> Iterator[Batch]:
        """Update the iterator's place while its batches are yielded."""
        store = self._store
        if store is None:
            raise UsageError("the stream is closed")
        epoch, first_step = place.epoch, place.step
        if isinstance(store, DeviceStore):
            batches = self._taken(store, epoch, first_step)
        else:
            batches = move_batches(self._gathered(store, epoch, first_step), self._device)
        with closing(batches):
            for number, batch in enumerate(batches, 1):
                num_steps = first_step + number // self.plan.micro_batches_per_rank
                # Before the batch is yielded: a caller may stop after the last step.
                place.epoch, place.step = (epoch, num_steps) if num_steps < len(self) else (epoch + 1, 0)
                yield batch
        place.epoch, place.step = epoch + 1, 0

    def _gathered(self, store: PixelStore, epoch: int, first_step: int) -> Generator[Batch]:
        """Prepare batches ahead in threads, which end with the iteration."""
        ready: deque[Future[Batch]] = deque()
        threads = ThreadPoolExecutor(self.num_threads, _THREAD_NAME)
        try:
            for rows in self.plan.batches(epoch, first_step):
                ready.append(threads.submit(self._gather, store, rows))
                if len(ready) > self._prefetch:
                    yield ready.popleft().result()
            while ready:
                yield ready.popleft().result()
        finally:
            # The garbage collector may run this in one of these threads, which cannot wait for itself.
            is_own = current_thread().name.startswith(_THREAD_NAME)
            threads.shutdown(wait=not is_own, cancel_futures=True)

    def _gather(self, store: PixelStore, rows: BatchRows) -> Batch:
        shape = (len(rows.indices_B), self._size_px, self._size_px, 3)
        if self._device.type == "cuda":
            # torch itself reuses pinned memory after its copies.
            images_BHWC = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        else:
            images_BHWC = self._buffers.take(shape, torch.uint8)
        store.gather(rows.indices_B, images_BHWC.numpy())
        return self._batch(images_BHWC, rows)

    def _taken(self, store: DeviceStore, epoch: int, first_step: int) -> Generator[Batch]:
        """Take batches from the device's memory."""
        for rows in self.plan.batches(epoch, first_step):
            batch = self._batch(store.take(rows.indices_B), rows)
            yield batch.moved(batch.images_BHWC, to_device(batch.labels_B, self._device))

    def _batch(self, images_BHWC: Tensor, rows: BatchRows) -> Batch:
        labels_B = torch.from_numpy(self._labels[rows.indices_B].astype(np.int64))
        labels_B = labels_B.pin_memory() if self._device.type == "cuda" else labels_B
        indices_B, occurrences_B = (torch.from_numpy(each.copy()) for each in (rows.indices_B, rows.occurrences_B))
        return Batch(images_BHWC, labels_B, indices_B, torch.from_numpy(rows.mask_B), occurrences_B, labels_B)


def _or_default(value: int | None, name: str, default: int) -> int:
    return default if value is None else as_whole(value, name, at_least=1)
