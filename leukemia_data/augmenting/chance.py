"""The operations of an augmentation: base classes and registry.

An operation is a frozen dataclass of validated parameters. Each family has a module with its parameters, draws and
effect on batches of pixels. A custom operation maps random numbers to changed pixels in one method::

    @AUGMENTATIONS.register
    @dataclass(frozen=True, kw_only=True)
    class Gamma(CustomAugmentation):
        name: ClassVar[str] = "gamma"
        num_draws: ClassVar[int] = 1
        exponent: Range = (0.8, 1.25)

        def apply(self, images_BCHW, draws_BK):
            low, high = self.exponent
            exponent_B = low + (high - low) * draws_BK[:, 0]
            return 255 * (images_BCHW / 255) ** exponent_B[:, None, None, None]
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeGuard, TypeVar, get_type_hints

from leukemia_data.errors import require
from leukemia_data.files.typed_tables import parse_value
from leukemia_data.registry import Registry

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
