"""The ceiling: nothing but copies from an array in memory into a few reused buffers.

No order is computed, no batch is handed over, nothing waits: each thread copies its share of an epoch's batches in
a loop. Batch-sized blocks are one copy each; single rows are what any shuffled reader has to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stream.peer import Peer, Setting

BUFFERS_BESIDE_THREADS = 2
"""A stream holds one batch that is being used and one that is ready besides those its threads fill."""


@cache
def images_in_memory(path: Path) -> NDArray[np.uint8]:
    """The whole set in private memory; one copy for all ceilings of a process."""
    images: NDArray[np.uint8] = np.load(path)
    return images


class MemcpyCeiling(Peer):
    """Copies as fast as this many threads can.

    Parameters
    ----------
    num_threads
        Threads that copy.
    by_row
        Gather shuffled single images, instead of copying shuffled blocks of a batch.
    """

    def __init__(self, setting: Setting, *, num_threads: int, by_row: bool) -> None:
        super().__init__(setting)
        self._images = images_in_memory(setting.images_path)
        self._num_threads = num_threads
        self._by_row = by_row
        self._pool = ThreadPoolExecutor(num_threads)
        shape = (setting.batch_size, *self._images.shape[1:])
        buffers_a_thread = -(-(num_threads + BUFFERS_BESIDE_THREADS) // num_threads)
        self._buffers = [[np.ones(shape, np.uint8) for _ in range(buffers_a_thread)] for _ in range(num_threads)]

    def batches(self, folder: Path, batch_size: int, epoch: int) -> Iterator[Tensor]:
        """Refuse: a ceiling hands over nothing."""
        raise NotImplementedError("a ceiling has no batches")

    delivers_the_set = False

    def run_epoch(self, folder: Path, batch_size: int, epoch: int) -> int:
        """Copy as many whole batches as the set has."""
        num_batches = len(self._images) // batch_size
        order = np.random.default_rng(epoch)
        if self._by_row:
            batches = order.permutation(len(self._images))[: num_batches * batch_size].reshape(num_batches, batch_size)
            jobs = [self._pool.submit(self._gather_rows, t, batches[t :: self._num_threads]) for t in self._threads()]
        else:
            starts = order.permutation(num_batches) * batch_size
            jobs = [self._pool.submit(self._copy_blocks, t, starts[t :: self._num_threads]) for t in self._threads()]
        for job in jobs:
            job.result()
        return num_batches * batch_size

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _threads(self) -> range:
        return range(self._num_threads)

    def _copy_blocks(self, thread: int, starts: NDArray[np.int64]) -> None:
        buffers = self._buffers[thread]
        for turn, start in enumerate(starts.tolist()):
            buffer = buffers[turn % len(buffers)]
            np.copyto(buffer, self._images[start : start + len(buffer)])

    def _gather_rows(self, thread: int, batches: NDArray[np.int64]) -> None:
        buffers = self._buffers[thread]
        for turn, rows in enumerate(batches):
            # With mode="clip" NumPy writes straight into the buffer, without holding the interpreter.
            np.take(self._images, rows, axis=0, out=buffers[turn % len(buffers)], mode="clip")
