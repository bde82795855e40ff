"""Operations of an augmentation: base classes and registry, and their random draws."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeGuard, TypeVar, get_type_hints

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.errors import require
from leukemia_data.files.typed_tables import parse_value
from leukemia_data.registry import Registry
from leukemia_data.streams.ordering import sample_bits, unit_interval

if TYPE_CHECKING:
    from torch import Tensor


Range = Annotated[tuple[float, float], "two numbers [low, high]"]
_Operation = TypeVar("_Operation", bound="Chance")


def require_range(name: str, given: Range, least: float, most: float) -> None:
    """Raise UsageError unless least <= low <= high <= most."""
    low, high = given
    require(least <= low <= high <= most, f"{name} must be [low, high] within {least:g}..{most:g}, got {[low, high]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """An operation that is applied to a sample with probability ``p``; flips have no other parameter."""

    name: ClassVar[str]
    p: float

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            # Values may come from Python as well as from a file; the dataclass is frozen.
            value = parse_value(getattr(self, field.name), hints[field.name], field.name)
            object.__setattr__(self, field.name, value)
        require(0 <= self.p <= 1, f"p must lie in 0..1, got {self.p}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAugmentation(Chance):
    """A custom operation: a frozen dataclass that overrides :meth:`apply`.

    Attributes
    ----------
    name
        Its name in augmentations.
    num_draws
        Random numbers per sample.
    """

    num_draws: ClassVar[int] = 0

    def apply(self, images_BCHW: Tensor, draws_BK: Tensor) -> Tensor:
        """Return the changed images; they are used only for samples that the operation is applied to.

        Parameters
        ----------
        images_BCHW : Tensor of shape (B, 3, S, S), float32
            Grey levels 0..255; not to be changed in place.
        draws_BK : Tensor of shape (B, num_draws), float32
            Random numbers of each sample, uniform in [0, 1).

        Returns
        -------
        Tensor of shape (B, 3, S, S), float32
            Grey levels, clamped to 0..255 afterwards. Each image may depend only on itself and its own draws.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override apply")


def may_happen(operation: _Operation | None) -> TypeGuard[_Operation]:
    """Return whether an operation is not None and has ``p`` above 0."""
    return operation is not None and operation.p > 0


AUGMENTATIONS: Registry[type[Chance]] = Registry("augmentation")

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
