"""Group near-identical images by their looks.

Two images are *near-identical* if the correlation of their looks (:mod:`leukemia_data.decoding.look`) is at least
:data:`NEAR_CORRELATION` in the best of the eight flips and quarter turns: copies that were rotated, mirrored,
resized, cropped, recompressed, or differ in single pixels. An all-zero look is near to no other.

Up to :data:`MAX_COMPARED` looks, every pair is compared. *Folding* avoids comparing all eight views: it takes sums
and differences of each coefficient and its transpose, without the signs that flips or transposition may change. All
views fold to the same values, norms are kept, and distances never grow; so pairs whose folded values correlate less
are not near, and the others are confirmed view by view. Above that number, only looks whose folded values lie on the
same sides of 20 to 25 planes in one of 16 random draws are compared (Charikar, M. S., 2002, "Similarity estimation
techniques from rounding algorithms"); docs/audit.md has the recall.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NUM_FREQUENCIES = 8
LOOK_VALUES = NUM_FREQUENCIES**2
LOOK_LENGTH = 127.0
NEAR_CORRELATION = 0.99
MAX_COMPARED = 20_000
"""Maximal number of distinct looks of which every pair is compared."""

_NUM_DRAWS, _MORE_PLANES = 16, 5
_LARGE_RUN = 64
_BLOCK_ENTRIES = 1 << 23
_PAIRS_AT_ONCE = 1 << 16
_ODD = np.arange(1, NUM_FREQUENCIES + 1) % 2 == 1
_SIGNS = np.where(_ODD, -1, 1).astype(np.float32)
_ABOVE, _BESIDE = np.triu_indices(NUM_FREQUENCIES, k=1)
# No flip changes the sign if both frequencies are even.
_IS_EVEN = ~_ODD[_ABOVE] & ~_ODD[_BESIDE]
# Above the rounding error of float32 sums of 64 products.
_SLACK = 1e-5

_Unit = NDArray[np.float32]
_Rows = NDArray[np.int64]


def near_groups(looks_N64: NDArray[np.int8]) -> NDArray[np.int64]:
    """Find the transitive groups of near-identical images, given their looks (N, 64), int8.

    Returns
    -------
    ndarray of shape (N,), int64
        For each image the row of the first image of its group.
    """
    rows, distinct_M64, distinct_of = _distinct(looks_N64)
    groups_M = np.arange(len(distinct_M64), dtype=np.int64)
    for first, second in _candidates(distinct_M64):
        is_open = groups_M[first] != groups_M[second]
        first, second = first[is_open], second[is_open]
        is_near = _are_near(distinct_M64, first, second)
        groups_M = joined(groups_M, first[is_near], second[is_near])
    groups_N = np.arange(len(looks_N64), dtype=np.int64)
    _, first_of, number = np.unique(groups_M[distinct_of], return_index=True, return_inverse=True)
    groups_N[rows] = rows[first_of[number]]
    return groups_N


def comparison_note(num_images: int) -> str:
    """Return a note if not every pair of `num_images` images is compared; empty otherwise."""
    if num_images <= MAX_COMPARED:
        return ""
    return (
        f"near-identical images: of {num_images:,} not every pair is compared (beyond {MAX_COMPARED:,}); exact copies "
        "are found, and about 95 of 100 that only just count as near-identical"
    )


def near_rows(looks_A64: NDArray[np.int8], looks_B64: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return which images of B are near-identical to any of A, shape (B,), given looks of shape (A, 64) and (B, 64)."""
    rows, distinct_M64, distinct_of = _distinct(np.concatenate([looks_A64, looks_B64]))
    in_A = np.zeros(len(distinct_M64), np.bool_)
    in_A[distinct_of[rows < len(looks_A64)]] = True
    is_near_M = in_A.copy()
    for first, second in _candidates(distinct_M64):
        for one, other in ((first, second), (second, first)):
            is_open = in_A[one] & ~is_near_M[other]
            one, other = one[is_open], other[is_open]
            is_near_M[other[_are_near(distinct_M64, one, other)]] = True
    is_near_B = np.zeros(len(looks_B64), np.bool_)
    is_B = rows >= len(looks_A64)
    is_near_B[rows[is_B] - len(looks_A64)] = is_near_M[distinct_of[is_B]]
    return is_near_B


def look_correlations(looks_P64: NDArray[np.int8], others_P64: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return each pair's correlation in the best of the eight views, shape (P,); 0 for all-zero looks."""
    return _best_views(_unit(looks_P64), _unit(others_P64)).astype(np.float64)


def joined(groups_N: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge groups by pairs of their members; a merged group's representative is the smallest one.

    Parameters
    ----------
    groups_N
        Of shape (n,): for each member the index of its group's representative, itself for a single one.
    first, second
        Of shape (P,): the pairs of members to merge.
    """
    while True:
        one, other = groups_N[first], groups_N[second]
        lower = np.minimum(one, other)
        if np.array_equal(one, other):
            return groups_N
        groups_N = groups_N.copy()
        np.minimum.at(groups_N, one, lower)
        np.minimum.at(groups_N, other, lower)
        while not np.array_equal(groups_N, shorter := groups_N[groups_N]):
            groups_N = shorter


def _look_views(looks_N64: _Unit) -> Iterator[_Unit]:
    """Yield the looks of the eight flips and quarter turns, shape (N, 64) each; the first is unchanged."""
    square = looks_N64.reshape(-1, NUM_FREQUENCIES, NUM_FREQUENCIES)
    for turned in (square, square.swapaxes(1, 2)):
        for mirrored in (turned, turned * _SIGNS[:, None]):
            yield mirrored.reshape(len(looks_N64), LOOK_VALUES)
            yield (mirrored * _SIGNS).reshape(len(looks_N64), LOOK_VALUES)


def _distinct(looks_N64: NDArray[np.int8]) -> tuple[_Rows, _Unit, _Rows]:
    """Rows with a look, the distinct looks as unit vectors, and each row's index among these."""
    rows = np.flatnonzero(looks_N64.any(axis=1))
    packed = np.ascontiguousarray(looks_N64[rows]).view(f"V{LOOK_VALUES}").ravel()
    _, firsts, distinct_of = np.unique(packed, return_index=True, return_inverse=True)
    return rows, _unit(looks_N64[rows[firsts]]), distinct_of.astype(np.int64)


def _unit(looks_N64: NDArray[np.int8]) -> _Unit:
    values = looks_N64.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1), np.float32)


def _folded(unit_N64: _Unit) -> _Unit:
    """Values shared by all eight views of a look, shape (N, 64); see the module's docstring."""
    square = unit_N64.reshape(-1, NUM_FREQUENCIES, NUM_FREQUENCIES)
    upper, lower = square[:, _ABOVE, _BESIDE], square[:, _BESIDE, _ABOVE]
    diagonal = np.einsum("nii->ni", square)
    is_mixed = _ODD[_ABOVE] != _ODD[_BESIDE]
    # For one even and one odd frequency, both signs change independently.
    upper, lower = np.where(is_mixed, np.abs(upper), upper), np.where(is_mixed, np.abs(lower), lower)
    sums, differences = (upper + lower) / np.sqrt(np.float32(2)), np.abs(upper - lower) / np.sqrt(np.float32(2))
    sums = np.where(_IS_EVEN, sums, np.abs(sums))
    return np.concatenate([np.where(_ODD, np.abs(diagonal), diagonal), sums, differences], axis=1)


def _candidates(unit_M64: _Unit) -> Iterator[tuple[_Rows, _Rows]]:
    """Yield blocks of candidate pairs; a pair may repeat, but never consists of one look."""
    folded_M64 = _folded(unit_M64)
    if len(unit_M64) <= MAX_COMPARED:
        yield from _compared(folded_M64, np.arange(len(folded_M64)))
        return
    centre = folded_M64.mean(axis=0, dtype=np.float64).round(4).astype(np.float32)
    num_planes = len(unit_M64).bit_length() + _MORE_PLANES
    for draw in range(_NUM_DRAWS):
        planes = np.random.Generator(np.random.Philox(draw)).standard_normal((LOOK_VALUES, num_planes))
        sides = (folded_M64 - centre) @ planes.astype(np.float32) > 0
        # As floats, which represent these keys exactly and multiply much faster.
        keys_M = (sides.astype(np.float64) @ 2.0 ** np.arange(num_planes)).astype(np.int64)
        yield from _gathered(_of_equal_keys(folded_M64, keys_M))


def _gathered(blocks: Iterator[tuple[_Rows, _Rows]]) -> Iterator[tuple[_Rows, _Rows]]:
    """Join short arrays of pairs to reduce the overhead per array."""
    waiting: list[tuple[_Rows, _Rows]] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block[0])
        if count >= _BLOCK_ENTRIES:
            yield _end_to_end(waiting)
            waiting, count = [], 0
    if count:
        yield _end_to_end(waiting)


def _end_to_end(blocks: list[tuple[_Rows, _Rows]]) -> tuple[_Rows, _Rows]:
    return np.concatenate([first for first, _ in blocks]), np.concatenate([second for _, second in blocks])


def _compared(folded_M64: _Unit, members: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
    """Yield pairs of looks whose folded values correlate, in blocks of rows."""
    values = folded_M64[members]
    rows = max(_BLOCK_ENTRIES // max(len(members), 1), 1)
    for start in range(0, len(members), rows):
        block = values[start : start + rows] @ values[start:].T
        first, second = np.nonzero(block >= NEAR_CORRELATION - _SLACK)
        is_pair = first < second
        yield members[first[is_pair] + start], members[second[is_pair] + start]


def _of_equal_keys(folded_M64: _Unit, keys_M: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
    """Yield pairs of looks with equal keys whose folded values correlate."""
    order = np.argsort(keys_M, kind="stable")
    ordered = keys_M[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(starts, len(ordered)))
    for start, length in zip(starts[lengths > _LARGE_RUN], lengths[lengths > _LARGE_RUN], strict=True):
        yield from _compared(folded_M64, order[start : start + length])
    length_of = np.repeat(np.where(lengths > _LARGE_RUN, 0, lengths), lengths)
    left_of = length_of - (np.arange(len(ordered)) - np.repeat(starts, lengths))
    places = np.flatnonzero(length_of)
    for distance in range(1, int(length_of.max(initial=0))):
        places = places[left_of[places] > distance]
        for some in np.array_split(places, -(-len(places) // _PAIRS_AT_ONCE)):
            first, second = order[some], order[some + distance]
            is_alike = np.einsum("nk,nk->n", folded_M64[first], folded_M64[second]) >= NEAR_CORRELATION - _SLACK
            yield first[is_alike], second[is_alike]


def _are_near(unit_M64: _Unit, first: _Rows, second: _Rows) -> NDArray[np.bool_]:
    is_near = np.zeros(len(first), np.bool_)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        is_near[some] = _best_views(unit_M64[first[some]], unit_M64[second[some]]) >= NEAR_CORRELATION - _SLACK
    return is_near


def _best_views(unit_P64: _Unit, others_P64: _Unit) -> NDArray[np.float32]:
    products = [np.einsum("pk,pk->p", unit_P64, view) for view in _look_views(others_P64)]
    return np.asarray(np.maximum.reduce(products), np.float32)
