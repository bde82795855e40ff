"""Windows of a square, and the extent of a step: the part of its input that it needs for a part of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound="np.generic")


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open rectangle [top, bottom) x [left, right) in pixels of the frame it lies in."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def full(cls, side_px: int) -> Window:
        """The whole of a square frame."""
        return cls(0, 0, side_px, side_px)

    @classmethod
    def central(cls, side_px: int, crop_px: int) -> Window:
        """The central square of `crop_px` in a frame of `side_px`; an odd remainder goes below and right."""
        offset = (side_px - crop_px) // 2
        return cls(offset, offset, offset + crop_px, offset + crop_px)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def grown(self, margin_px: int, side_px: int) -> Window:
        """Wider by a margin on each side, but not beyond a frame of `side_px`."""
        return Window(
            max(self.top - margin_px, 0),
            max(self.left - margin_px, 0),
            min(self.bottom + margin_px, side_px),
            min(self.right + margin_px, side_px),
        )

    def shifted(self, offset_px: int) -> Window:
        """Moved down and right by the same number of pixels."""
        return Window(self.top + offset_px, self.left + offset_px, self.bottom + offset_px, self.right + offset_px)

    def union(self, other: Window) -> Window:
        """Smallest window that holds both."""
        return Window(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def cut(self, pixels: NDArray[Scalar], held: Window) -> NDArray[Scalar]:
        """View of this window in `pixels`, which hold the window `held` of the same frame.

        Raises
        ------
        ValueError
            If `held` does not contain this window.
        """
        if held.union(self) != held:
            raise ValueError(f"{self} lies outside {held}")
        return pixels[self.top - held.top : self.bottom - held.top, self.left - held.left : self.right - held.left]


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a step works.

    Attributes
    ----------
    side_px, next_side_px
        Sides of the squares before and after it.
    needed, produced
        The window of the first square that it gets, and that of the second square that it makes of it.
    """

    side_px: int
    next_side_px: int
    needed: Window
    produced: Window
