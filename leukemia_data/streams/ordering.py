"""Random order and random draws as pure functions of seed, epoch and position or sample.

Nothing here keeps a state or a list: the same arguments give the same numbers on every machine, whatever the batch
size, the number of threads or of ranks.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_FACTOR, _SECOND_FACTOR = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK_64 = (1 << 64) - 1

# Few rounds favour some orders of very few samples; with twelve, all 120 orders of five are equally likely.
_NUM_ROUNDS = 12
# Positions that go through all rounds together: few enough for the processor's caches, where that is twice as fast.
_CACHED_POSITIONS = 1 << 15
# Draw numbers of this module, far from those of augmentations, which count from 0.
_ROUND_DRAW = 1 << 40
_SLOT_DRAW = 1 << 41


def permuted(positions_B: NDArray[np.int64], num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where a uniformly random permutation of ``range(num_samples)`` sends some positions.

    Parameters
    ----------
    positions_B : ndarray of shape (B,), int64
        Positions in the epoch, in ``range(num_samples)``.
    seed, epoch
        Non-negative; each pair has a permutation of its own.

    Returns
    -------
    ndarray of shape (B,), int64

    Notes
    -----
    An alternating Feistel network on pairs of numbers below a and b, with a*b little above `num_samples` or equal;
    results outside the range go through it again until they are inside (Black, Rogaway, "Ciphers with arbitrary finite
    domains", CT-RSA 2002).
    """
    if len(positions_B) == 0:
        return np.empty(0, np.int64)
    rows = math.isqrt(max(num_samples - 1, 0)) + 1
    # Even: to turn an odd number of rows round and round is never an odd permutation.
    rows += rows % 2
    columns = -(-num_samples // rows)
    keys = [np.uint64(_stream(seed, epoch, _ROUND_DRAW + number)) for number in range(_NUM_ROUNDS)]
    permuted_B = np.empty(len(positions_B), np.int64)
    for start in range(0, len(positions_B), _CACHED_POSITIONS):
        chunk = slice(start, start + _CACHED_POSITIONS)
        places = _shuffle_pairs(positions_B[chunk].astype(np.uint64), rows, columns, keys)
        while (outside := places >= num_samples).any():
            places[outside] = _shuffle_pairs(places[outside], rows, columns, keys)
        permuted_B[chunk] = places
    return permuted_B


def stratified(
    positions_B: NDArray[np.int64], cumulative_weights_N: NDArray[np.float64], seed: int, epoch: int
) -> NDArray[np.int64]:
    """Draw one sample for each position of an epoch, in proportion to weights.

    The total weight is cut into as many equal slots as there are samples; each slot gives one sample, drawn inside it,
    and the slots come in random order. So a sample of n times the mean weight comes about n times an epoch (never
    two more or less than that), where drawing with plain replacement would leave out a third of all samples by chance.

    Parameters
    ----------
    positions_B : ndarray of shape (B,), int64
        Positions in the epoch, in ``range(N)``.
    cumulative_weights_N : ndarray of shape (N,), float64
        Running sum of the samples' weights, rising, its last value above 0.
    seed, epoch
        As for :func:`permuted`.

    Returns
    -------
    ndarray of shape (B,), int64
        Rows of `cumulative_weights_N`.
    """
    num_samples = len(cumulative_weights_N)
    slots_B = permuted(positions_B, num_samples, seed, epoch)
    inside_B = unit_interval(sample_bits(slots_B, seed, epoch, _SLOT_DRAW))
    weights_B = (slots_B + inside_B) * (cumulative_weights_N[-1] / num_samples)
    rows_B = np.searchsorted(cumulative_weights_N, weights_B, side="right")
    # Rounding may reach the end of the last sample that has any weight.
    last = np.searchsorted(cumulative_weights_N, cumulative_weights_N[-1], side="left")
    return np.asarray(np.minimum(rows_B, last), np.int64)


def unit_interval(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Random bits as numbers in [0, 1), from their upper 53 bits."""
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64)


def sample_bits(samples_B: NDArray[np.int64], seed: int, epoch: int, draw: int) -> NDArray[np.uint64]:
    """64 random bits per sample.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Sample indices.
    seed, epoch
        As for :func:`permuted`.
    draw
        Which random decision the bits are for; different decisions get independent bits.

    Returns
    -------
    ndarray of shape (B,), uint64

    Notes
    -----
    SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) over a
    counter that seed, epoch and draw have offset.
    """
    counters_B = samples_B.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA) + np.uint64(_stream(seed, epoch, draw))
    return _finalize(counters_B)


def _shuffle_pairs(places_B: NDArray[np.uint64], rows: int, columns: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """One way through the network: row and column of each place are turned by a hash of the other, in turns."""
    num_rows, num_columns = np.uint64(rows), np.uint64(columns)
    row_B, column_B = np.divmod(places_B, num_columns)
    scratch_B, hashes_B = np.empty_like(places_B), np.empty_like(places_B)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            _turn(row_B, column_B, num_rows, key, hashes_B, scratch_B)
        else:
            _turn(column_B, row_B, num_columns, key, hashes_B, scratch_B)
    shuffled: NDArray[np.uint64] = row_B * num_columns + column_B
    return shuffled


def _turn(
    values_B: NDArray[np.uint64],
    other_B: NDArray[np.uint64],
    count: np.uint64,
    key: np.uint64,
    hashes_B: NDArray[np.uint64],
    scratch_B: NDArray[np.uint64],
) -> None:
    """Add a hash of `other_B`, uniform below `count`, to values below `count`, round and round, in place."""
    np.multiply(other_B, np.uint64(_GOLDEN_GAMMA), out=hashes_B)
    hashes_B += key
    _finalize_in_place(hashes_B, scratch_B)
    # The upper half of the hash as a fraction of `count`: divisions would take most of the time.
    hashes_B >>= np.uint64(32)
    hashes_B *= count
    hashes_B >>= np.uint64(32)
    values_B += hashes_B
    np.subtract(values_B, count, out=scratch_B)
    np.minimum(values_B, scratch_B, out=values_B)


def _stream(seed: int, epoch: int, draw: int) -> int:
    # NumPy's integers would overflow where Python's do not.
    return _mix(_mix(_mix(int(seed)) ^ int(epoch)) ^ draw)


def _mix(value: int) -> int:
    """:func:`_finalize` of one counter, in whole numbers: arrays of one element take ten times as long."""
    bits = (value + _GOLDEN_GAMMA) & _MASK_64
    bits = ((bits ^ bits >> 30) * _FIRST_FACTOR) & _MASK_64
    bits = ((bits ^ bits >> 27) * _SECOND_FACTOR) & _MASK_64
    return bits ^ bits >> 31


def _finalize(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    finalized = bits.copy()
    _finalize_in_place(finalized, np.empty_like(finalized))
    return finalized


def _finalize_in_place(bits: NDArray[np.uint64], scratch: NDArray[np.uint64]) -> None:
    """SplitMix64's finalizer; `scratch` is of the same shape."""
    for shift, factor in ((30, _FIRST_FACTOR), (27, _SECOND_FACTOR)):
        np.right_shift(bits, np.uint64(shift), out=scratch)
        bits ^= scratch
        bits *= np.uint64(factor)
    np.right_shift(bits, np.uint64(31), out=scratch)
    bits ^= scratch
