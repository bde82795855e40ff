"""Pairs of cells that look alike: prints in, confirmed pairs out.

Every hash is compared with every view of every other one (vectorised population counts, in blocks). What lies within
:data:`MAX_DISTANCE` bits is a candidate, and is confirmed where the two thumbnails, in the orientation that fits best,
correlate. On real cells both steps are needed: among 3,581 of them (fold 1) the hash alone finds 638 pairs, 302 of
them of two people's cells; 250 pairs are confirmed, all of cells of one person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.auditing.perceptual_hash import VIEWS, CellPrint, oriented

MAX_DISTANCE = 10
MIN_CORRELATION = 0.85
MOST_CELLS = 100_000
"""Comparing takes time with the square of the number of cells: beyond this it is not done."""
_BLOCK_ENTRIES = 1 << 20
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two cells that look alike.

    Attributes
    ----------
    first, second
        Positions in the sequence of prints, ``first < second``.
    distance
        Bits of 64 in which their hashes differ, in the best orientation.
    correlation
        Pearson's, of the two thumbnails in that orientation.
    view
        Which of :data:`~leukemia_data.auditing.perceptual_hash.VIEWS` of `second` looks like `first`.
    """

    first: int
    second: int
    distance: int
    correlation: float
    view: int


def find_near_pairs(
    prints: Sequence[CellPrint],
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] | None = None,
) -> list[NearPair]:
    """Find the pairs of cells that look alike, identical ones included.

    Parameters
    ----------
    prints
        Of n cells. Memory beyond them stays below about 100 MB; time grows with n squared (10,000 cells take seconds,
        :data:`MOST_CELLS` minutes).
    max_distance
        Most bits that may differ.
    progress
        Called with the number of cells compared since the last call.

    Returns
    -------
    list of NearPair
        In ascending order of (first, second).
    """
    if len(prints) < 2:
        return []
    hashes_N8 = np.stack([one.hashes for one in prints])
    thumbnails_NPP = np.stack([one.thumbnail for one in prints])
    found: list[NearPair] = []
    rows = max(_BLOCK_ENTRIES // len(prints), 1)
    for start in range(0, len(prints), rows):
        block = slice(start, min(start + rows, len(prints)))
        found.extend(_confirmed(*_candidates(hashes_N8, block, max_distance), thumbnails_NPP))
        if progress is not None:
            progress(block.stop - start)
    return found


def _candidates(
    hashes_N8: NDArray[np.uint64], block: slice, max_distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Pairs (first in the block, second after it) within the distance: first, second, distance and view."""
    firsts_B1 = hashes_N8[block, :1]
    later_M8 = np.ascontiguousarray(hashes_N8[block.start :].T)
    best_BM = np.full((len(firsts_B1), later_M8.shape[1]), 255, np.uint8)
    view_BM = np.zeros(best_BM.shape, np.uint8)
    for view, seconds_M in enumerate(later_M8):
        distance_BM = np.bitwise_count(firsts_B1 ^ seconds_M)
        is_better = distance_BM < best_BM
        if is_better.any():
            view_BM[is_better] = view
            np.minimum(best_BM, distance_BM, out=best_BM)
    first, second = np.nonzero(np.triu(best_BM <= max_distance, k=1))
    return first + block.start, second + block.start, best_BM[first, second], view_BM[first, second].astype(np.int64)


def _confirmed(
    firsts: NDArray[np.int64],
    seconds: NDArray[np.int64],
    distances: NDArray[np.uint8],
    views: NDArray[np.int64],
    thumbnails_NPP: NDArray[np.int8],
) -> list[NearPair]:
    correlations = np.zeros(len(firsts))
    for view in range(len(VIEWS)):
        members = np.flatnonzero(views == view)
        for start in range(0, len(members), _PAIRS_AT_ONCE):
            some = members[start : start + _PAIRS_AT_ONCE]
            turned = oriented(thumbnails_NPP[seconds[some]], view)
            correlations[some] = _correlations(thumbnails_NPP[firsts[some]], turned)
    return [
        NearPair(int(firsts[k]), int(seconds[k]), int(distances[k]), float(correlations[k]), int(views[k]))
        for k in np.flatnonzero(correlations >= MIN_CORRELATION)
    ]


def _correlations(first_NPP: NDArray[np.generic], second_NPP: NDArray[np.generic]) -> NDArray[np.float64]:
    """Pearson's correlation of each image with its partner, shape (N,)."""
    a = first_NPP.reshape(len(first_NPP), -1).astype(np.float32)
    b = second_NPP.reshape(len(second_NPP), -1).astype(np.float32)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nk,nk->n", a, b, dtype=np.float64)
    correlations: NDArray[np.float64] = products / np.maximum(norms, np.finfo(np.float32).tiny)
    return correlations
