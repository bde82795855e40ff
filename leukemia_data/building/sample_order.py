"""In which order a cache holds its samples, and where that order is cut into shards.

Samples are ordered by the hash of their ids and cut into shards by a binary trie over that hash: a shard that would
hold too many is split by the next bit. The shards are thus a function of the set of ids alone, not of the order of
builds, and adding or removing an image changes one shard. docs/scale.md tells why a shard holds as many as it does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SMALL_CAPACITY = 128
"""Samples a shard of a cache of up to :data:`MOST_IN_SMALL_SHARDS` images holds at the most."""
MOST_IN_SMALL_SHARDS = 1 << 20
LARGEST_CAPACITY = 4096
_HASH_BITS = 64


def default_capacity(num_samples: int) -> int:
    """Samples a shard holds at the most, where nobody decided it: a function of their number alone.

    >>> default_capacity(10_661), default_capacity(1 << 20), default_capacity(10_000_000), default_capacity(10**9)
    (128, 128, 2048, 4096)
    """
    capacity, room = SMALL_CAPACITY, MOST_IN_SMALL_SHARDS
    while room < num_samples and capacity < LARGEST_CAPACITY:
        capacity, room = 2 * capacity, 2 * room
    return capacity


def sample_order(hashes_N: NDArray[np.uint64], id_of: Callable[[int], str]) -> NDArray[np.int64]:
    """Positions of ids in sample order: by hash, and by text where hashes are equal.

    Parameters
    ----------
    hashes_N : ndarray of shape (N,), uint64
        :func:`~leukemia_data.samples.fingerprint.id_hash` of each id.
    id_of
        The id at a position; asked for where hashes are equal only.

    Returns
    -------
    ndarray of shape (N,), int64
    """
    order_N = np.argsort(hashes_N).astype(np.int64, copy=False)
    sorted_N = hashes_N[order_N]
    # Every run of equal hashes, of which there is hardly ever one, as [start, end).
    edges = np.flatnonzero(np.diff(np.concatenate(([False], sorted_N[1:] == sorted_N[:-1], [False])).astype(np.int8)))
    for start, last in edges.reshape(-1, 2).tolist():
        run = slice(start, last + 1)
        order_N[run] = sorted(order_N[run].tolist(), key=id_of)
    return order_N


def shard_bounds(sorted_hashes_N: NDArray[np.uint64], capacity: int) -> NDArray[np.int64]:
    """Where sorted hashes are cut: shard k holds samples bounds[k] to before bounds[k + 1], at most `capacity`.

    Ids with equal hashes stay in one shard, however many they are.

    Parameters
    ----------
    sorted_hashes_N : ndarray of shape (N,), uint64
    capacity
        At least 1.

    Returns
    -------
    ndarray of shape (number of shards + 1,), int64
        Rising from 0 to N; just 0 where there is no sample.
    """
    bounds = np.unique(np.array([0, len(sorted_hashes_N)], np.int64))
    for bit in range(_HASH_BITS - 1, -1, -1):
        too_large = np.flatnonzero(np.diff(bounds) > capacity)
        if len(too_large) == 0:
            break
        firsts = sorted_hashes_N[bounds[too_large]]
        # The upper bits are equal within each; its second half begins where this bit is set.
        below, own = np.uint64((1 << bit) - 1), np.uint64(1 << bit)
        middles = np.searchsorted(sorted_hashes_N, (firsts & ~below) | own)
        bounds = np.unique(np.concatenate((bounds, middles)))
    return bounds
