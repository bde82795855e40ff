"""Which samples each batch holds, and their transfer to the network's device through reused buffers."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from typing import NamedTuple, Required, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import Indices, as_flag, as_numbers, as_whole, own_indices
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.streams.ordering import permuted, stratified, stratified_occurrences


class _Rows(NamedTuple):
    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    mask_B: Tensor


class Batch(_Rows):
    """The samples of one step, as a tuple of the first four: ``for images, labels, indices, mask in stream``.

    Attributes
    ----------
    images_BHWC : Tensor of shape (B, S, S, 3), uint8, RGB, on the stream's device
    labels_B : Tensor of shape (B,), int64, -1 if unknown, on the stream's device
    indices_B : Tensor of shape (B,), int64, on the CPU
        Sample indices in the cache.
    mask_B : Tensor of shape (B,), bool, on the CPU
        False for rows that pad a rank's micro-batch, which must not be counted.
    occurrences_B : Tensor of shape (B,), int64, on the CPU
        Differ between the draws of a sample in an epoch; 0 for samples that are drawn once.
    host_labels_B : Tensor of shape (B,), int64, on the CPU
        The labels again: to read them from a GPU would wait for all its work.
    """

    occurrences_B: Tensor
    host_labels_B: Tensor

    def __new__(
        cls,
        images_BHWC: Tensor,
        labels_B: Tensor,
        indices_B: Tensor,
        mask_B: Tensor,
        occurrences_B: Tensor | None = None,
        host_labels_B: Tensor | None = None,
    ) -> Self:
        """Make a batch; without the last two, as of frameworks that rebuild tuples, from labels and indices."""
        batch = super().__new__(cls, images_BHWC, labels_B, indices_B, mask_B)
        batch.occurrences_B = torch.zeros_like(indices_B) if occurrences_B is None else occurrences_B
        batch.host_labels_B = labels_B.cpu() if host_labels_B is None else host_labels_B
        return batch

    def moved(self, images_BHWC: Tensor, labels_B: Tensor) -> Batch:
        """Return the batch with images and labels elsewhere."""
        return Batch(images_BHWC, labels_B, self.indices_B, self.mask_B, self.occurrences_B, self.host_labels_B)


def as_device(device: torch.device | str) -> torch.device:
    """Return a device by its name, such as ``cuda:1``, or unchanged.

    Raises
    ------
    UsageError
        If there is no such kind of device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"device must be a torch.device or its name, got {device!r}") from error


def move_batches(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """Move images and labels to a device.

    On CUDA the next batch is copied during the computation on this one: from pinned memory, on a separate stream, for
    which the consumer's stream waits. On the CPU nothing is copied.

    Parameters
    ----------
    batches
        On the CPU; in pinned memory for CUDA. Closed when this iterator is.
    device
        Where the network runs.
    """
    if device.type == "cpu":
        return batches
    if device.type == "cuda":
        return _copy_ahead(batches, device)
    return _move_each(batches, device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; `values` may be dropped or overwritten afterwards as far as torch allows it.

    On CUDA the host does not wait: torch has read unpinned memory by then, and keeps pinned memory until it has. On
    MPS an asynchronous copy would read the memory after its reuse.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def _move_each(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            yield _moved(batch, device)


def _moved(batch: Batch, device: torch.device) -> Batch:
    images_BHWC, labels_B = (to_device(values, device) for values in (batch.images_BHWC, batch.labels_B))
    return batch.moved(images_BHWC, labels_B)


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all copies to a device: torch's allocator keeps the memory of each stream apart."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _copy_ahead(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    # A device without a number is the current one now, which may be another in the next epoch.
    device = device if device.index is not None else torch.device("cuda", torch.cuda.current_device())
    copying = _copying_stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(copying):
                # torch keeps the pinned memory until the copy is done, even if the batch is dropped.
                moved = _moved(batch, device)
            following = (moved, copying.record_event())
            if ahead is not None:
                yield _copied_batch(*ahead, device)
            ahead = following
    if ahead is not None:
        yield _copied_batch(*ahead, device)


def _copied_batch(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Make the consumer's stream wait for the copy, and the allocator for the consumer's stream."""
    consuming = torch.cuda.current_stream(device)
    consuming.wait_event(copied)
    batch.images_BHWC.record_stream(consuming)
    batch.labels_B.record_stream(consuming)
    return batch


_ALIGNMENT_BYTES = 64


class BufferPool:
    """Provides uninitialised CPU tensors, and reuses their memory.

    A tensor's memory is reused after the tensor and everything that shares its storage is released: views, NumPy
    arrays made of it, and what autograd keeps for a backward pass. All methods are thread-safe.

    Parameters
    ----------
    max_idle
        Maximal number of unused buffers; the oldest is dropped first.
    """

    def __init__(self, max_idle: int = 4) -> None:
        # Finalizers return buffers at any moment, even during `take` in the same thread, where a lock would deadlock;
        # single operations of a deque are atomic.
        self._idle: deque[NDArray[np.uint8]] = deque(maxlen=max_idle)

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a contiguous tensor on the CPU with arbitrary values."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        memory = self._take_idle(num_bytes)
        if memory is None:
            # Aligned for vector instructions and cache lines.
            unaligned = np.empty(num_bytes + _ALIGNMENT_BYTES, np.uint8)
            memory = unaligned[-unaligned.ctypes.data % _ALIGNMENT_BYTES :]
        # Only the tensor's storage holds this view, until nothing shares the storage.
        view = memory[:num_bytes]
        weakref.finalize(view, self._idle.append, memory).atexit = False
        return torch.from_numpy(view).view(dtype).view(tuple(shape))

    @property
    def num_idle(self) -> int:
        """Number of buffers available for reuse."""
        return len(self._idle)

    def _take_idle(self, num_bytes: int) -> NDArray[np.uint8] | None:
        """The first idle buffer that is large enough."""
        for _ in range(len(self._idle)):
            # Another thread may have taken the last one.
            with suppress(IndexError):
                memory = self._idle.pop()
                if memory.nbytes >= num_bytes:
                    return memory
                self._idle.appendleft(memory)
        return None


# Positions ordered at a time: many enough for a small overhead, few enough to be ready before a batch is copied.
_BLOCK_POSITIONS = 4096


class BatchRows(NamedTuple):
    """One micro-batch: sample indices in the cache, a mask that is False for rows that only pad it, and occurrences.

    The occurrences differ between the draws of a sample in an epoch, and are 0 without weights.
    """

    indices_B: NDArray[np.int64]
    mask_B: NDArray[np.bool_]
    occurrences_B: NDArray[np.int64]


class _Draws(NamedTuple):
    """Samples at successive positions of an epoch, and the occurrences of each."""

    indices_G: NDArray[np.int64]
    occurrences_G: NDArray[np.int64]

    def rows(self, rows: slice | NDArray[np.int64]) -> _Draws:
        return _Draws(self.indices_G[rows], self.occurrences_G[rows])


class PlanOptions(TypedDict, total=False):
    """Keyword arguments of :class:`BatchPlan`."""

    batch_size: Required[int]
    seed: int | None
    weights_N: NDArray[np.float64] | None
    drop_last: bool
    rank: int
    world_size: int
    micro_batches_per_rank: int


class BatchPlan:
    """One rank's batches of a split.

    Parameters
    ----------
    indices_N : ndarray of shape (N,), int64
        Indices of the samples to serve, in any form of :func:`leukemia_data.records.arguments.as_indices`. They are
        copied.
    batch_size
        Samples per step over all ranks together.
    seed
        Shuffles each epoch anew; ``None`` keeps the order of `indices_N`, for evaluation.
    weights_N : ndarray of shape (N,), float64, optional
        Each sample occurs in proportion to its weight instead of once, see
        :func:`leukemia_data.streams.ordering.stratified`; an epoch still has N samples. Needs a seed.
    drop_last
        Omit a last batch that is not full, unless it is the only one.
    rank, world_size
        This rank, and the number of ranks.
    micro_batches_per_rank
        Number of successive micro-batches of each batch on each rank.

    Raises
    ------
    UsageError
        If an argument is of another kind or out of range, or the weights are not N finite numbers from 0 with a sum
        above 0.
    """

    def __init__(
        self,
        indices_N: Indices,
        *,
        batch_size: int,
        seed: int | None = None,
        weights_N: NDArray[np.float64] | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        micro_batches_per_rank: int = 1,
    ) -> None:
        self.indices_N = own_indices(indices_N, None, "indices_N")
        self.batch_size = as_whole(batch_size, "batch_size", at_least=1)
        self._seed = None if seed is None else as_whole(seed, "seed", at_least=0)
        self._cumulative = None if weights_N is None else _cumulative(weights_N, len(self.indices_N), self._seed)
        self._drop_last = as_flag(drop_last, "drop_last") and len(self.indices_N) >= self.batch_size
        self.micro_batches_per_rank = as_whole(micro_batches_per_rank, "micro_batches_per_rank", at_least=1)
        self.num_ranks = as_whole(world_size, "world_size", at_least=1)
        self._rank = as_whole(rank, "rank", at_least=0, below=self.num_ranks)
        self._num_micro_batches = self.num_ranks * self.micro_batches_per_rank

    def __len__(self) -> int:
        """Steps per epoch, the same on every rank."""
        full, rest = divmod(len(self.indices_N), self.batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def identity(self) -> dict[str, int | str | None]:
        """Return what determines the order of all epochs, apart from the rank: equal for equal plans."""
        weights = b"" if self._cumulative is None else self._cumulative.tobytes()
        return {
            "num_samples": len(self.indices_N),
            "samples_digest": bytes_digest(np.ascontiguousarray(self.indices_N).tobytes() + weights).hex(),
            "batch_size": self.batch_size,
            "seed": self._seed,
            "drop_last": int(self._drop_last),
        }

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[BatchRows]:
        """Yield this rank's micro-batches of an epoch, from a step on: `micro_batches_per_rank` for each step."""
        # The first batch does not wait for the order of others.
        start, stop = first_step, first_step + 1
        while start < len(self):
            first = start * self.batch_size
            stop = min(stop, len(self))
            draws = self._draws(epoch, first, min(stop * self.batch_size, len(self.indices_N)))
            for begin in range(0, (stop - start) * self.batch_size, self.batch_size):
                yield from self._micro_batches(draws.rows(slice(begin, begin + self.batch_size)))
            start, stop = stop, stop + max(_BLOCK_POSITIONS // self.batch_size, 1)

    def _draws(self, epoch: int, first: int, last: int) -> _Draws:
        """Samples at positions `first` to before `last`."""
        positions = np.arange(first, last, dtype=np.int64)
        occurrences = np.zeros_like(positions)
        if self._seed is None:
            return _Draws(self.indices_N[first:last], occurrences)
        if self._cumulative is None:
            return _Draws(self.indices_N[permuted(positions, len(self.indices_N), self._seed, epoch)], occurrences)
        rows = stratified(positions, self._cumulative, self._seed, epoch)
        occurrences = stratified_occurrences(positions, rows, self._cumulative, self._seed, epoch)
        return _Draws(self.indices_N[rows], occurrences)

    def _micro_batches(self, draws: _Draws) -> Iterator[BatchRows]:
        """Cut a global batch into equal micro-batches; rows beyond its end repeat its last sample, masked."""
        num_samples = len(draws.indices_G)
        if self._num_micro_batches == 1:
            yield BatchRows(draws.indices_G, np.ones(num_samples, np.bool_), draws.occurrences_G)
            return
        size = micro_batch_size(num_samples, self._num_micro_batches)
        first = self._rank * self.micro_batches_per_rank
        for micro_batch in range(first, first + self.micro_batches_per_rank):
            rows_B = np.arange(micro_batch * size, (micro_batch + 1) * size)
            own = draws.rows(np.minimum(rows_B, num_samples - 1))
            yield BatchRows(own.indices_G, rows_B < num_samples, own.occurrences_G)


def micro_batch_size(num_samples: int, num_micro_batches: int) -> int:
    """Return the rows of each micro-batch; the last ones may hold fewer samples, or none."""
    return -(-num_samples // num_micro_batches)


def balanced_weights(groups_N: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return weights, shape (N,), float64, with which every group of samples occurs equally often.

    Parameters
    ----------
    groups_N : ndarray of shape (N,)
        Group of each sample, such as its label or its subject; its weight is one over the size of the group.

    Raises
    ------
    UsageError
        If the groups have several dimensions, or values of several types.
    """
    groups_N = np.asarray(groups_N)
    is_mixed = groups_N.dtype == np.object_ and len({type(group) for group in groups_N.tolist()}) > 1
    if groups_N.ndim != 1 or is_mixed:
        raise UsageError(f"groups_N must be one label or text for each sample, got {groups_N.dtype} {groups_N.shape}")
    _, group_N, counts = np.unique(groups_N, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[group_N], np.float64)


def _cumulative(weights_N: NDArray[np.float64], num_samples: int, seed: int | None) -> NDArray[np.float64]:
    if seed is None:
        raise UsageError("weights choose samples at random: give a seed, or no weights")
    weights = as_numbers(weights_N, "weights_N")
    if weights.shape != (num_samples,):
        raise UsageError(f"there must be one weight for each of the {num_samples} samples, got shape {weights.shape}")
    if num_samples and not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise UsageError("weights must be finite, not negative, and not all 0")
    return np.cumsum(weights)
