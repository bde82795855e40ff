"""The batch stream: shuffled or ordered batches of a cache, prefetched by threads.

Each thread copies whole batches from memory maps of the shards into buffers, which are reused once their batch is no
longer referenced. A batch is a function of batch plan, epoch and step, so that a stream can resume at any step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from threading import current_thread
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.files.limits import free_ram_bytes
from leukemia_data.records.arguments import Indices, as_whole, own_indices
from leukemia_data.records.sample_table import Samples, require_samples
from leukemia_data.streams.batch import Batch, BatchPlan, BatchRows, BufferPool, as_device, move_batches, to_device
from leukemia_data.streams.residency import (
    AUTO,
    DEVICE,
    RAM,
    DeviceStore,
    PixelStore,
    RamStore,
    choose_residency,
    free_bytes,
    max_bytes,
)

_MAX_THREADS = 4
_THREAD_NAME = "batch-stream"
_CPU = torch.device("cpu")


@dataclass
class _Place:
    """Where an iterator is: `step` batches of `epoch` were yielded, fewer than it has."""

    epoch: int
    step: int


class BatchStream:
    """Batches of chosen samples, on the device that the network runs on.

    Each iterator of the stream gives a whole epoch, from its first batch: without a seed the samples in their order;
    with a seed the epoch after the one that was begun last, however far that one was used (an epoch is begun when its
    first batch is asked for). Only the first iterator after :meth:`load_state_dict` goes on inside an epoch.
    :meth:`epoch` gives any epoch by number and does not count as an iterator. Where a rank has several micro-batches of
    each batch, each comes as a batch of its own, and a step counts when all of them were yielded. A batch's memory
    belongs to its holder for as long as any tensor of it is alive.

    Parameters
    ----------
    cache
        An opened cache.
    indices_N : ndarray of shape (N,), int64
        Sample indices to serve; or a list, a range, a mask or a column of a table, see
        :func:`leukemia_data.records.arguments.as_indices`. They are copied.
    batch_size, seed, weights_N, drop_last, rank, world_size, micro_batches_per_rank
        See :class:`~leukemia_data.streams.batch.BatchPlan`.
    device
        Where images and labels go.
    num_threads
        Batches gathered at a time; by default one a core, at most 4: more do not make memory faster.
    prefetch
        Batches prepared while the network works on one, at least 1; by default one less than threads. More of them take
        more room in the processor's caches, and help only where the time of a step varies much.
    residency
        Where the pixels are kept, see :mod:`leukemia_data.streams.residency`.
    num_processes
        How many processes of this machine keep the split, each for itself; by default all ranks.

    Attributes
    ----------
    plan : BatchPlan
    num_threads : int
    residency : Residency
        What was chosen, and why.

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
        batch_size: int,
        seed: int | None = None,
        weights_N: NDArray[np.float64] | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        micro_batches_per_rank: int = 1,
        device: torch.device | str = _CPU,
        num_threads: int | None = None,
        prefetch: int | None = None,
        residency: str = AUTO,
        num_processes: int | None = None,
    ) -> None:
        require_samples(cache)
        indices_N = own_indices(indices_N, len(cache), "indices_N")
        self.plan = BatchPlan(
            indices_N,
            batch_size=batch_size,
            seed=seed,
            weights_N=weights_N,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            micro_batches_per_rank=micro_batches_per_rank,
        )
        self.num_threads = _or_default(num_threads, "num_threads", min(cpu_count(), _MAX_THREADS))
        self._prefetch = _or_default(prefetch, "prefetch", max(self.num_threads - 1, 1))
        self._device = device = as_device(device)
        self._labels = cache.table.labels
        self._size_px = cache.size_px
        self.residency = choose_residency(
            residency,
            len(indices_N) * cache.pixels_per_image * 3,
            device_free_bytes=free_bytes(device),
            device_max_bytes=max_bytes(device),
            ram_free_bytes=free_ram_bytes(),
            num_processes=_or_default(num_processes, "num_processes", self.plan.num_ranks),
        )
        self._store: PixelStore | DeviceStore | None = self._open_store(cache, indices_N)
        if cache.reader.num_unmapped:
            self.residency = self.residency.with_unmapped(cache.reader.num_unmapped)
        # All micro-batches of a step are held at once.
        self._buffers = BufferPool(3 + self.plan.micro_batches_per_rank)
        # Where the next iterator begins, and where the last one is.
        self._following = self._place = _Place(0, 0)

    def __len__(self) -> int:
        """Steps an epoch, the same on every rank."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Return a whole epoch, or after :meth:`load_state_dict` the rest of one."""
        return self._next_epoch()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, from a step on.

        The iterator that was begun last, this one or one of the stream's own, is the one whose progress
        :meth:`state_dict` tells. Which epoch the stream's next own iterator gives does not change.

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
        """Let the next iterator give this epoch, as distributed samplers do and some frameworks ask for.

        Where a state inside this epoch was loaded, that iterator gives the rest of it.

        Raises
        ------
        UsageError
            If it is no number of an epoch, from 0 on.
        """
        epoch = as_whole(epoch, "epoch", at_least=0)
        if epoch != self._following.epoch:
            self._following = _Place(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iterator begun last is: batches that were yielded count, those prepared ahead do not.

        After the last batch of an epoch that is the beginning of the next one. The state holds for every number of
        ranks, threads and devices.
        """
        return {"epoch": self._place.epoch, "step": self._place.step, "plan": self.plan.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iterator go on where another stream of the same plan was; those after it give whole epochs.

        Raises
        ------
        UsageError
            If the state is none, or belongs to other samples, another order or batch size.
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
        # States of earlier versions, at the end of an epoch.
        self._place = _Place(epoch + 1, 0) if step == len(self) > 0 else place
        self._following = replace(self._place)

    def close(self) -> None:
        """Give back the pixels' memory; the cache keeps its own maps until it is closed."""
        self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_store(self, cache: Samples, indices_N: NDArray[np.int64]) -> PixelStore | DeviceStore:
        if self.residency.kind == DEVICE:
            return DeviceStore(cache.reader, indices_N, self._device)
        if self.residency.kind == RAM:
            return RamStore(cache.reader, indices_N)
        return cache.reader

    def _next_epoch(self) -> Iterator[Batch]:
        """Decide which epoch it is when the first batch is asked for: an unused iterator skips none."""
        self._place, self._following = self._following, _Place(self._following.epoch + 1, 0)
        yield from self._count(self._place)

    def _count(self, place: _Place) -> Iterator[Batch]:
        """Keep the iterator's place while its batches are yielded."""
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
                # Before the batch is yielded: a caller that counts steps does not come back after the last one.
                place.epoch, place.step = self._place_after(
                    epoch, first_step + number // self.plan.micro_batches_per_rank
                )
                yield batch
        place.epoch, place.step = epoch + 1, 0

    def _place_after(self, epoch: int, steps_done: int) -> tuple[int, int]:
        return (epoch, steps_done) if steps_done < len(self) else (epoch + 1, 0)

    def _gathered(self, store: PixelStore, epoch: int, first_step: int) -> Generator[Batch]:
        """Let threads prepare batches ahead; whatever ends the iteration ends the threads."""
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
            # The garbage collector may end this in one of these threads, which cannot wait for itself.
            is_own = current_thread().name.startswith(_THREAD_NAME)
            threads.shutdown(wait=not is_own, cancel_futures=True)

    def _gather(self, store: PixelStore, rows: BatchRows) -> Batch:
        """Copy one batch, in a thread."""
        images_BHWC = self._buffer(len(rows.indices_B))
        store.gather(rows.indices_B, images_BHWC.numpy())
        return self._batch(images_BHWC, rows)

    def _taken(self, store: DeviceStore, epoch: int, first_step: int) -> Generator[Batch]:
        """Take batches out of the device's own memory."""
        for rows in self.plan.batches(epoch, first_step):
            batch = self._batch(store.take(rows.indices_B), rows)
            yield batch._replace(labels_B=to_device(batch.labels_B, self._device))

    def _batch(self, images_BHWC: Tensor, rows: BatchRows) -> Batch:
        labels_B = torch.from_numpy(self._labels[rows.indices_B].astype(np.int64))
        labels_B = labels_B.pin_memory() if self._device.type == "cuda" else labels_B
        return Batch(images_BHWC, labels_B, torch.from_numpy(rows.indices_B.copy()), torch.from_numpy(rows.mask_B))

    def _buffer(self, num_samples: int) -> Tensor:
        shape = (num_samples, self._size_px, self._size_px, 3)
        if self._device.type == "cuda":
            # torch itself gives pinned memory out again, once its copies are done.
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._buffers.take(shape, torch.uint8)


def _or_default(value: int | None, name: str, default: int) -> int:
    return default if value is None else as_whole(value, name, at_least=1)
