"""Base classes and registry of a recipe's operations, and the windows that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from leukemia_data.errors import require
from leukemia_data.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Scalar = TypeVar("Scalar", bound="np.generic")
Image: TypeAlias = "NDArray[np.uint8]"
"""RGB pixels of shape (height, width, 3)."""
Draw: TypeAlias = Callable[[int, "Window"], Image]
"""Maps a side in pixels and a window to that part of a frame's square, (H, W, 3) uint8."""

MAX_SIDE_PX = 4096


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open rectangle [top, bottom) x [left, right) in pixels of its frame."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def full(cls, side_px: int) -> Window:
        """Return the window of a whole square frame."""
        return cls(0, 0, side_px, side_px)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def grown(self, margin_px: int, side_px: int) -> Window:
        """Return the window grown by a margin on each side, clipped to a frame of `side_px`."""
        return Window(
            max(self.top - margin_px, 0),
            max(self.left - margin_px, 0),
            min(self.bottom + margin_px, side_px),
            min(self.right + margin_px, side_px),
        )

    def shifted(self, offset_px: int) -> Window:
        """Return the window moved down and right by `offset_px`."""
        return Window(self.top + offset_px, self.left + offset_px, self.bottom + offset_px, self.right + offset_px)

    def union(self, other: Window) -> Window:
        """Return the smallest window that contains both."""
        return Window(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def cut(self, pixels: NDArray[Scalar], held: Window) -> NDArray[Scalar]:
        """Return a view of this window in `pixels`, which are the window `held` of the same frame.

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
    """Sides and windows before and after a step.

    Attributes
    ----------
    side_px, next_side_px
        Sides of the squares before and after it.
    needed, produced
        Input window in the first square, and output window in the second.
    """

    side_px: int
    next_side_px: int
    needed: Window
    produced: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step of a recipe. A subclass is a frozen dataclass and overrides :meth:`change`, or :meth:`apply`.

    A parameter ``side_px`` of None means the cache's size.

    Attributes
    ----------
    op
        Its name in recipes.
    version
        Increased whenever its pixels change, so that earlier caches become misses.
    finds_the_cell
        Whether it changes only the cell, found by its exactly black background.
    keeps_the_background
        Whether the background stays exactly black; pixels of the cell within two levels of black may join it.
    crops_the_centre
        Whether it keeps the central part of a square as it is.
    without_background
        Name of the equivalent operation for images without a black background.
    label
        Short title; may refer to parameters and to ``side_px``, the side of its output. Empty for its name.
    """

    op: ClassVar[str]
    version: ClassVar[int] = 1
    finds_the_cell: ClassVar[bool] = False
    keeps_the_background: ClassVar[bool] = False
    crops_the_centre: ClassVar[bool] = False
    without_background: ClassVar[str | None] = None
    label: ClassVar[str] = ""

    @property
    def depends_on_size(self) -> bool:
        """Whether the result depends on the cache's size."""
        return getattr(self, "side_px", 0) is None

    @property
    def reach_px(self) -> int | None:
        """Largest distance at which a pixel affects another one; None for the whole image."""
        return None

    def title(self, side_px: int) -> str:
        """Return the label with the step's parameters."""
        return (self.label or self.op.replace("_", " ")).format(**{**asdict(self), "side_px": side_px})

    def output_side(self, side_px: int, size_px: int) -> int:
        """Return the side of the square after this operation, for one of `side_px` and a cache of `size_px`.

        Raises
        ------
        UsageError
            If the square is too small for the operation.
        """
        return side_px

    def needed(self, produced: Window, side_px: int, next_side_px: int) -> Window:
        """Return the part of the input that determines the part `produced` of the output; see :class:`Extent`."""
        return Window.full(side_px) if self.reach_px is None else produced.grown(self.reach_px, side_px)

    def change(self, image_HWC: Image) -> Image:
        """Return the changed pixels, (H, W, 3) uint8, without modifying the input.

        The image is the whole square, or a window of it that includes :attr:`reach_px` around the wanted part.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither change nor apply")

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """Return the pixels of the window `extent.produced`; `image_HWC` has those of `extent.needed`."""
        return extent.produced.cut(self.change(image_HWC), extent.needed)

    def to_dict(self) -> dict[str, Any]:
        """Return name, version and parameters, as stored in manifests and checkpoints."""
        return {"op": self.op, "version": self.version, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing(Operation):
    """An operation that makes a square of a frame of any height and width: the first step of a recipe."""

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`: ``side_px`` of the operation if it has one, else the cache's size."""
        own: int | None = getattr(self, "side_px", None)
        return size_px if own is None else own

    def padded_fraction(self, height_px: int, width_px: int, visible_px: int) -> float:
        """Return the fraction of padding in the central `visible_px` of the square of a frame, 0 ... 1."""
        return 0.0

    def cut_fraction(self, height_px: int, width_px: int) -> float:
        """Return the fraction of a frame that is left out of its square as too large for it, 0 ... 1."""
        return 0.0

    def draw(self, frame_HWC: Image) -> Draw:
        """Return a function that draws squares of one frame; work independent of their side is done here, once.

        Parameters
        ----------
        frame_HWC : ndarray of shape (height, width, 3), uint8
        """
        raise NotImplementedError(f"{type(self).__name__} does not override draw")

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """See :meth:`Operation.apply`."""
        return self.draw(image_HWC)(extent.next_side_px, extent.produced)


OPERATIONS: Registry[type[Operation]] = Registry("operation", name_attribute="op")


def require_side(name: str, side_px: int) -> None:
    """Raise UsageError unless 1 <= `side_px` <= 4096."""
    require(1 <= side_px <= MAX_SIDE_PX, f"{name} must lie in 1..{MAX_SIDE_PX}, got {side_px}")
