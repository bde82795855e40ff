"""Random numbers of a batch of samples.

Every random decision has an id (:class:`Draw`), and its outcome is a pure function of (seed, epoch, sample, id):
independent of batch size, order, threads, ranks, device and the other operations.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.augmenting.chance import Chance, CustomAugmentation, Range
from leukemia_data.streams.ordering import sample_bits, unit_interval

FloatArray = NDArray[np.float64]

# Augmentation's draw of `sample_bits`; its decisions use this many counters per sample.
_STREAM = 0
_COUNTERS_A_SAMPLE = 64


class Draw(IntEnum):
    """Ids of the random decisions. Append only: changed ids change the results of old seeds."""

    FLIP_HORIZONTAL = 0
    FLIP_VERTICAL = 1
    TRANSPOSE = 2
    QUARTER_TURNS = 3
    NUM_QUARTERS = 4
    ROTATE = 5
    ANGLE = 6
    SCALE = 7
    FACTOR = 8
    TRANSLATE = 9
    SHIFT_X = 10
    SHIFT_Y = 11
    COLOR = 12
    BRIGHTNESS = 13
    CONTRAST = 14
    SATURATION = 15
    HUE = 16
    BLUR = 17
    SIGMA = 18
    NOISE = 19
    NOISE_START = 20
    NOISE_SIGN = 21
    CUTOUT = 22
    CUTOUT_TOP = 23
    CUTOUT_LEFT = 24


class Draws:
    """All random numbers of a batch of samples, uniform in [0, 1), float64.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Indices of the samples in the cache.
    seed, epoch
        As for ``ordering.sample_bits``.
    """

    def __init__(self, samples_B: NDArray[np.int64], seed: int, epoch: int) -> None:
        self._samples_B, self._seed, self._epoch = samples_B, seed, epoch
        counters_BD = samples_B[:, None] * _COUNTERS_A_SAMPLE + np.arange(len(Draw))
        self._uniform_DB: FloatArray = unit_interval(sample_bits(counters_BD, seed, epoch, _STREAM).T)

    def __len__(self) -> int:
        return len(self._samples_B)

    def happens(self, operation: Chance | None, draw: Draw) -> NDArray[np.bool_]:
        """Return which samples an operation is applied to."""
        chance = 0.0 if operation is None else operation.p
        return np.asarray(self._uniform_DB[draw] < chance)

    def within(self, limits: Range, draw: Draw) -> FloatArray:
        """Return numbers uniform in [low, high)."""
        low, high = limits
        return np.asarray(low + (high - low) * self._uniform_DB[draw])

    def below(self, count: int, draw: Draw) -> FloatArray:
        """Return integers uniform in 0..count-1."""
        return np.asarray(np.floor(self._uniform_DB[draw] * count))

    def of_custom(self, operation: CustomAugmentation) -> FloatArray:
        """Return 1 or 0 for whether a custom operation is applied, and its draws: (B, 1 + num_draws).

        They depend on the operation's name, and not on other operations.
        """
        first = xxhash.xxh3_64_intdigest(f"augmentation {operation.name}".encode())
        uniform_KB = [
            unit_interval(sample_bits(self._samples_B, self._seed, self._epoch, first + number))
            for number in range(1 + operation.num_draws)
        ]
        return np.stack([uniform_KB[0] < operation.p, *uniform_KB[1:]], axis=1)
