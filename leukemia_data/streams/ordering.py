"""Random order and random draws as pure functions of seed, epoch and position or sample.

There is no state: equal arguments give equal values on every machine, for any batch size and number of threads or
ranks.
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
# Positions per block: few enough for the processor's caches, which doubles the speed.
_CACHED_POSITIONS = 1 << 15
# Draw numbers of this module; those of augmentations count from 0.
_ROUND_DRAW = 1 << 40
_SLOT_DRAW = 1 << 41


def permuted(positions_B: NDArray[np.int64], num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the images of positions under a uniformly random permutation of ``range(num_samples)``, shape (B,), int64.

    Parameters
    ----------
    positions_B : ndarray of shape (B,), int64
        Positions in the epoch, in ``range(num_samples)``.
    seed, epoch
        Non-negative; each pair has its own permutation.

    Notes
    -----
    An alternating Feistel network on pairs of numbers below a and b, with a*b slightly above `num_samples` or equal;
    results outside the range are permuted again until they are inside (Black, Rogaway, "Ciphers with arbitrary finite
    domains", CT-RSA 2002).
    """
    rows = math.isqrt(max(num_samples - 1, 0)) + 1
    # Even: rotations of an odd number of rows are even permutations.
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
    """Draw one sample for each position of an epoch, in proportion to weights; return their rows, shape (B,), int64.

    The total weight is divided into as many equal slots as there are samples; each slot gives one sample, drawn
    inside it, in random order. A sample of n times the mean weight occurs about n times per epoch (never two more or
    less), whereas drawing with plain replacement omits a third of all samples by chance.

    Parameters
    ----------
    positions_B : ndarray of shape (B,), int64
        Positions in the epoch, in ``range(N)``.
    cumulative_weights_N : ndarray of shape (N,), float64
        Cumulative sum of the samples' weights, its last value above 0.
    seed, epoch
        As for :func:`permuted`.
    """
    num_samples = len(cumulative_weights_N)
    slots_B = permuted(positions_B, num_samples, seed, epoch)
    inside_B = unit_interval(sample_bits(slots_B, seed, epoch, _SLOT_DRAW))
    weights_B = (slots_B + inside_B) * (cumulative_weights_N[-1] / num_samples)
    rows_B = np.searchsorted(cumulative_weights_N, weights_B, side="right")
    # Rounding may exceed the last sample with any weight.
    last = np.searchsorted(cumulative_weights_N, cumulative_weights_N[-1], side="left")
    return np.asarray(np.minimum(rows_B, last), np.int64)


def stratified_occurrences(
    positions_B: NDArray[np.int64],
    rows_B: NDArray[np.int64],
    cumulative_weights_N: NDArray[np.float64],
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """Number the draws of each sample within an epoch, from 0; return the numbers of some positions, shape (B,), int64.

    A draw's number is that of its slot, counted from the first slot that holds a part of the sample's weight. It is a
    function of its own position; a slot of which a neighbour is drawn leaves a gap.

    Parameters
    ----------
    positions_B, cumulative_weights_N, seed, epoch
        As for :func:`stratified`.
    rows_B : ndarray of shape (B,), int64
        What :func:`stratified` has drawn for the positions.
    """
    num_samples = len(cumulative_weights_N)
    slots_B = permuted(positions_B, num_samples, seed, epoch)
    weights_before_B = np.where(rows_B > 0, cumulative_weights_N[rows_B - 1], 0)
    first_slots_B = np.floor(weights_before_B / (cumulative_weights_N[-1] / num_samples)).astype(np.int64)
    # Rounding may draw a sample from the slot before its first, which then counts as the last of all.
    return np.asarray((slots_B - first_slots_B) % num_samples, np.int64)


def unit_interval(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return random bits as numbers in [0, 1), from their upper 53 bits."""
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64)


def sample_bits(samples_B: NDArray[np.int64], seed: int, epoch: int, draw: int) -> NDArray[np.uint64]:
    """Return 64 random bits per sample, shape (B,), uint64.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Sample indices.
    seed, epoch
        As for :func:`permuted`.
    draw
        The random decision; different decisions get independent bits.

    Notes
    -----
    SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) of a
    counter offset by seed, epoch and draw.
    """
    bits_B = samples_B.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA) + np.uint64(_stream(seed, epoch, draw))
    _finalize(bits_B, np.empty_like(bits_B))
    return bits_B


def _shuffle_pairs(places_B: NDArray[np.uint64], rows: int, columns: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """One pass of the network: row and column of each place are alternately rotated by a hash of the other."""
    num_rows, num_columns = np.uint64(rows), np.uint64(columns)
    row_B, column_B = np.divmod(places_B, num_columns)
    scratch_B, hashes_B = np.empty_like(places_B), np.empty_like(places_B)
    for number, key in enumerate(keys):
        is_even = number % 2 == 0
        values_B, other_B, count = (row_B, column_B, num_rows) if is_even else (column_B, row_B, num_columns)
        np.multiply(other_B, np.uint64(_GOLDEN_GAMMA), out=hashes_B)
        hashes_B += key
        _finalize(hashes_B, scratch_B)
        # The upper half of the hash as a fraction of `count`, since divisions are slow.
        hashes_B >>= np.uint64(32)
        hashes_B *= count
        hashes_B >>= np.uint64(32)
        # Added modulo `count`: the unsigned difference overflows for values below it.
        values_B += hashes_B
        np.subtract(values_B, count, out=scratch_B)
        np.minimum(values_B, scratch_B, out=values_B)
    return np.asarray(row_B * num_columns + column_B, np.uint64)


def _stream(seed: int, epoch: int, draw: int) -> int:
    # As Python integers: NumPy's would overflow.
    return _mix(_mix(_mix(int(seed)) ^ int(epoch)) ^ draw)


def _mix(value: int) -> int:
    """:func:`_finalize` of one counter as a Python int, ten times as fast as an array of one element."""
    bits = (value + _GOLDEN_GAMMA) & _MASK_64
    bits = ((bits ^ bits >> 30) * _FIRST_FACTOR) & _MASK_64
    bits = ((bits ^ bits >> 27) * _SECOND_FACTOR) & _MASK_64
    return bits ^ bits >> 31


def _finalize(bits: NDArray[np.uint64], scratch: NDArray[np.uint64]) -> None:
    """SplitMix64's finalizer, in place; `scratch` has the same shape."""
    for shift, factor in ((30, _FIRST_FACTOR), (27, _SECOND_FACTOR)):
        np.right_shift(bits, np.uint64(shift), out=scratch)
        bits ^= scratch
        bits *= np.uint64(factor)
    np.right_shift(bits, np.uint64(31), out=scratch)
    bits ^= scratch
