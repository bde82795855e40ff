"""Base classes, registry and random draws of an augmentation's operations."""

from __future__ import annotations

from collections.abc import Mapping
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
FloatArray = NDArray[np.float64]
_Operation = TypeVar("_Operation", bound="Chance")
# The draw of `sample_bits` that is augmentation's, and the number of counters per sample.
_STREAM = 0
# Draw number of the keys of occurrences, beside those of orders and augmentations.
_OCCURRENCE_DRAW = 1 << 42
_COUNTERS_A_SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """An operation that is applied to a sample with probability ``p``; flips have no other parameter.

    Attributes
    ----------
    name
        Its name in augmentations.
    value_limits
        Least and greatest value of numbers and of the ends of ranges, by parameter.
    """

    name: ClassVar[str]
    value_limits: ClassVar[Mapping[str, Range]] = {}
    p: float

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            # Values may come from Python as well as from a file; the dataclass is frozen.
            value = parse_value(getattr(self, field.name), hints[field.name], field.name)
            object.__setattr__(self, field.name, value)
        for key, (least, greatest) in {"p": (0, 1), **self.value_limits}.items():
            value = getattr(self, key)
            if isinstance(value, tuple):
                is_within, wanted, value = least <= value[0] <= value[1] <= greatest, "be [low, high] within", [*value]
            else:
                is_within, wanted = least <= value <= greatest, "lie in"
            require(is_within, f"{key} must {wanted} {least:g}..{greatest:g}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAugmentation(Chance):
    """A custom operation: a frozen dataclass that overrides :meth:`apply`; `num_draws` is per sample."""

    num_draws: ClassVar[int] = 0

    def apply(self, images_BCHW: Tensor, draws_BK: Tensor) -> Tensor:
        """Return the changed images; they are used only for samples that the operation is applied to.

        Parameters
        ----------
        images_BCHW : Tensor of shape (B, 3, S, S), float32
            Grey levels 0..255; not to be changed in place.
        draws_BK : Tensor of shape (B, num_draws), float32
            Uniform in [0, 1).

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

# Ids of the random decisions. Append only: changed ids change the results of old seeds.
Draw = IntEnum(
    "Draw",
    "FLIP_HORIZONTAL FLIP_VERTICAL TRANSPOSE QUARTER_TURNS NUM_QUARTERS ROTATE ANGLE SCALE FACTOR TRANSLATE SHIFT_X "
    "SHIFT_Y COLOR BRIGHTNESS CONTRAST SATURATION HUE BLUR SIGMA NOISE NOISE_START NOISE_SIGN CUTOUT CUTOUT_TOP "
    "CUTOUT_LEFT",
    start=0,
)


class Draws:
    """All random numbers of a batch: functions of the samples' indices in the cache, their occurrences, seed and epoch.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
    seed, epoch
        Non-negative.
    occurrences_B : ndarray of shape (B,), int64, optional
        Numbers that differ between the draws of a sample in an epoch; None for 0.
    """

    def __init__(
        self, samples_B: NDArray[np.int64], seed: int, epoch: int, occurrences_B: NDArray[np.int64] | None = None
    ) -> None:
        # What would be drawn for samples without occurrences at random distant indices.
        keys_B = samples_B.astype(np.int64)
        if occurrences_B is not None:
            keys_B += _offsets(occurrences_B, seed, epoch)
        self._keys_B, self._seed, self._epoch = keys_B, seed, epoch
        counters_BD = keys_B[:, None] * _COUNTERS_A_SAMPLE + np.arange(len(Draw))
        self._uniform_DB: FloatArray = unit_interval(sample_bits(counters_BD, seed, epoch, _STREAM).T)

    def __len__(self) -> int:
        return len(self._keys_B)

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
        """Return 1 or 0 for whether a custom operation is applied, and its draws: (B, 1 + num_draws)."""
        # By its name, so that it changes no draw of another operation.
        first = xxhash.xxh3_64_intdigest(f"augmentation {operation.name}".encode())
        uniform_KB = [
            unit_interval(sample_bits(self._keys_B, self._seed, self._epoch, first + number))
            for number in range(1 + operation.num_draws)
        ]
        return np.stack([uniform_KB[0] < operation.p, *uniform_KB[1:]], axis=1)


def _offsets(occurrences_B: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return 0 for occurrence 0, else random numbers."""
    bits_B = sample_bits(occurrences_B, seed, epoch, _OCCURRENCE_DRAW).astype(np.int64)
    return np.where(occurrences_B == 0, 0, bits_B)
