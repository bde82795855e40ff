"""Random order and random draws as pure functions of seed, epoch and position or sample.

Nothing here keeps a state or a list: the same arguments give the same numbers on every machine, whatever the batch
size, the x
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
    places = _shuffle_pairs(positions_B.astype(np.uint64), rows, columns, keys)
    while (outside := places >= num_samples).any():
        places[outside] = _shuffle_pairs(places[outside], rows, columns, keys)
    return places.astype(np.int64)


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
        Sample numbers.
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
    for number, key in enumerate(keys):
        if number % 2 == 0:
            row_B = _turned(row_B, column_B, num_rows, key)
        else:
            column_B = _turned(column_B, row_B, num_columns, key)
    shuffled: NDArray[np.uint64] = row_B * num_columns + column_B
    return shuffled


def _turned(
    values_B: NDArray[np.uint64], other_B: NDArray[np.uint64], count: np.uint64, key: np.uint64
) -> NDArray[np.uint64]:
    """Add a hash of `other_B`, uniform below `count`, to values below `count`, round and round."""
    hashes_B = _finalize(other_B * np.uint64(_GOLDEN_GAMMA) + key)
    # The upper half of the hash as a fraction of `count`: divisions would take most of the time.
    sums_B = values_B + ((hashes_B >> np.uint64(32)) * count >> np.uint64(32))
    return np.minimum(sums_B, sums_B - count)


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
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST_FACTOR)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND_FACTOR)
    return bits ^ (bits >> np.uint64(31))
