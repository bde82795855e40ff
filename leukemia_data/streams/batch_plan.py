"""Which samples each batch of an epoch holds: the split's numbers, put in order and cut into equal shares of ranks.

The order of an epoch is a function of (seed, epoch) over the whole split. It is cut into global batches first, and each
global batch into one contiguous share a rank, or into several, which the rank works through one after the other. So
every number of ranks and of shares takes the same steps over the same samples, and a position in an epoch is a number
of steps that holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.samples.arguments import as_flag, as_whole
from leukemia_data.samples.fingerprint import bytes_digest
from leukemia_data.samples.indices import Indices, own_indices
from leukemia_data.samples.number_arrays import as_numbers
from leukemia_data.streams.ordering import permuted, stratified

# Positions put in order at a time: enough to cost little each, few enough to be ready before a batch is copied.
_BLOCK_POSITIONS = 4096


class BatchRows(NamedTuple):
    """One share of one batch.

    Attributes
    ----------
    numbers_B : ndarray of shape (B,), int64
        Sample numbers in the cache.
    mask_B : ndarray of shape (B,), bool
        False where a row only fills up the share: it repeats a sample that another row stands for.
    """

    numbers_B: NDArray[np.int64]
    mask_B: NDArray[np.bool_]


class BatchPlan:
    """The batches of a split, as one rank sees them.

    Parameters
    ----------
    numbers_N : ndarray of shape (N,), int64
        Sample numbers to serve, or a list or range of them, see :func:`leukemia_data.samples.indices.as_indices`. They
        are copied.
    batch_size
        Samples a step over all ranks together.
    seed
        Shuffles each epoch anew; ``None`` keeps the order of `numbers_N`, for evaluation.
    weights_N : ndarray of shape (N,), float64, optional
        Each sample comes in proportion to its weight instead of once, see
        :func:`leukemia_data.streams.ordering.stratified`; an epoch still has N samples. Needs a seed.
    drop_last
        Leave out a last batch that is not full, unless it is the only one.
    rank, world_size
        Which shares of each batch, of how many ranks.
    shares_per_rank
        How many shares of each batch a rank has: they come one after the other.

    Raises
    ------
    UsageError
        If an argument is of another kind or out of range, or the weights are not N finite numbers from 0 with a sum
        above 0.
    """

    def __init__(
        self,
        numbers_N: Indices,
        *,
        batch_size: int,
        seed: int | None = None,
        weights_N: NDArray[np.float64] | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        shares_per_rank: int = 1,
    ) -> None:
        self.numbers_N = own_indices(numbers_N, None, "numbers_N")
        self.batch_size = as_whole(batch_size, "batch_size", at_least=1)
        self._seed = None if seed is None else as_whole(seed, "seed", at_least=0)
        self._cumulative = None if weights_N is None else _cumulative(weights_N, len(self.numbers_N), self._seed)
        self._drop_last = as_flag(drop_last, "drop_last") and len(self.numbers_N) >= self.batch_size
        self.shares_per_rank = as_whole(shares_per_rank, "shares_per_rank", at_least=1)
        self.num_ranks = as_whole(world_size, "world_size", at_least=1)
        self._rank = as_whole(rank, "rank", at_least=0, below=self.num_ranks)
        self._num_shares = self.num_ranks * self.shares_per_rank

    def __len__(self) -> int:
        """Steps an epoch, the same on every rank."""
        full, rest = divmod(len(self.numbers_N), self.batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def identity(self) -> dict[str, int | str | None]:
        """What decides the order of all epochs, apart from the rank: equal plans have equal identities."""
        weights = b"" if self._cumulative is None else self._cumulative.tobytes()
        return {
            "num_samples": len(self.numbers_N),
            "samples_digest": bytes_digest(np.ascontiguousarray(self.numbers_N).tobytes() + weights).hex(),
            "batch_size": self.batch_size,
            "seed": self._seed,
            "drop_last": int(self._drop_last),
        }

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[BatchRows]:
        """Return this rank's shares of an epoch's batches, from a step on: `shares_per_rank` for each step."""
        # The first batch shall not wait for others to be put in order.
        start, stop = first_step, first_step + 1
        while start < len(self):
            first = start * self.batch_size
            stop = min(stop, len(self))
            numbers = self._numbers(epoch, first, min(stop * self.batch_size, len(self.numbers_N)))
            for begin in range(0, (stop - start) * self.batch_size, self.batch_size):
                yield from self._own_shares(numbers[begin : begin + self.batch_size])
            start, stop = stop, stop + max(_BLOCK_POSITIONS // self.batch_size, 1)

    def _numbers(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Sample numbers at the positions from `first` to before `last`."""
        if self._seed is None:
            return self.numbers_N[first:last]
        positions = np.arange(first, last, dtype=np.int64)
        if self._cumulative is not None:
            return self.numbers_N[stratified(positions, self._cumulative, self._seed, epoch)]
        return self.numbers_N[permuted(positions, len(self.numbers_N), self._seed, epoch)]

    def _own_shares(self, numbers_G: NDArray[np.int64]) -> Iterator[BatchRows]:
        """Cut a global batch into equal shares; rows beyond its end repeat its last sample, masked."""
        if self._num_shares == 1:
            yield BatchRows(numbers_G, np.ones(len(numbers_G), np.bool_))
            return
        size = share_size(len(numbers_G), self._num_shares)
        for share in range(self._rank * self.shares_per_rank, (self._rank + 1) * self.shares_per_rank):
            rows_B = np.arange(share * size, (share + 1) * size)
            yield BatchRows(numbers_G[np.minimum(rows_B, len(numbers_G) - 1)], rows_B < len(numbers_G))


def share_size(num_samples: int, num_shares: int) -> int:
    """Rows of each share of a batch; the last ones may hold fewer samples, or none."""
    return -(-num_samples // num_shares)


def balanced_weights(groups_N: NDArray[np.generic]) -> NDArray[np.float64]:
    """Weights under which every group of samples comes equally often.

    Parameters
    ----------
    groups_N : ndarray of shape (N,)
        What each sample belongs to, such as its label or its subject.

    Returns
    -------
    ndarray of shape (N,), float64
        One over the size of the sample's group.

    Raises
    ------
    UsageError
        If the groups have several dimensions, or cannot be told apart.
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
