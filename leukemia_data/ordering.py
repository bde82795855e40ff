"""Random order and random draws as pure functions of seed, epoch and sample.

Nothing here keeps a state: the same arguments give the same numbers on every machine, whatever the batch size, the
number of threads or the step at which a run was resumed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK_64 = (1 << 64) - 1


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Uniformly random permutation of ``range(num_samples)`` for one epoch.

    Parameters
    ----------
    seed, epoch
        Non-negative; each pair has an order of its own.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([_mix(seed), epoch], np.uint64)))
    return generator.permutation(num_samples)


def sample_bits(samples_B: NDArray[np.int64], seed: int, epoch: int, draw: int) -> NDArray[np.uint64]:
    """64 random bits per sample.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Sample numbers.
    seed, epoch
        As for :func:`epoch_order`.
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
    stream = _mix(_mix(_mix(seed) ^ epoch) ^ draw)
    counters_B = samples_B.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA) + np.uint64(stream)
    return _finalize(counters_B)


def _mix(value: int) -> int:
    return int(_finalize(np.array([(value + _GOLDEN_GAMMA) & _MASK_64], np.uint64))[0])


def _finalize(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
