"""Operations that decide the square: canvas, fit, crop to the cell, centre crop, resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from leukemia_data.operations.checks import require, require_side

Pad = Literal["border", "black", "white"]
"""Colour beyond the frame; ``border`` is the median colour of the frame's outermost pixels."""
Resampling = Literal["area", "antialias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """Put a frame of any shape onto a black square by centre crop or zero padding."""

    op: ClassVar[str] = "canvas"
    version: ClassVar[int] = 1
    side_px: int = 450

    def __post_init__(self) -> None:
        require_side("canvas: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return self.side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Scale the whole frame until its longest side fills the square, aspect kept, and pad the rest.

    Parameters
    ----------
    side_px
        Side of the square; None for the cache's own size, so that a photograph is resampled once.
    pad
        Colour of the rest: ``black``, ``white`` or ``border``.
    method
        ``area`` averages the source pixels under each target pixel where the frame shrinks, and is bilinear where it
        grows; ``antialias`` is bilinear, with the triangle widened by the scale where the frame shrinks.
    """

    op: ClassVar[str] = "fit"
    version: ClassVar[int] = 1
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        _require_drawing(self)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return size_px if self.side_px is None else self.side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class CropToCell:
    """Find the cell, cut a square around it and scale that; where no cell is found, do as :class:`Fit`.

    Parameters
    ----------
    margin
        Room on each side of the cell, as a share of the longer side of its bounding box.
    side_px, pad, method
        As in :class:`Fit`; the padding shows where the square reaches beyond the frame.
    """

    op: ClassVar[str] = "crop_to_cell"
    version: ClassVar[int] = 1
    margin: float = 0.1
    side_px: int | None = None
    pad: Pad = "border"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        require(0 <= self.margin <= 2, f"crop_to_cell: margin must lie in [0, 2], got {self.margin}")
        _require_drawing(self)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return size_px if self.side_px is None else self.side_px


Framing = Canvas | Fit | CropToCell
"""What a recipe may begin with."""


def _require_drawing(step: Fit | CropToCell) -> None:
    if step.side_px is not None:
        require_side(f"{step.op}: side_px", step.side_px)
    require(
        step.pad in ("border", "black", "white"), f"{step.op}: pad must be border, black or white, got {step.pad!r}"
    )
    require(step.method in ("area", "antialias"), f"{step.op}: method must be area or antialias, got {step.method!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """Cut the central square; without ``side_px`` the cache's own size."""

    op: ClassVar[str] = "center_crop"
    version: ClassVar[int] = 1
    side_px: int | None = None

    def __post_init__(self) -> None:
        if self.side_px is not None:
            require_side("center_crop: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        side = size_px if self.side_px is None else self.side_px
        require(side <= side_px, f"center_crop: cannot cut {side} px out of {side_px} px")
        return side


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Resize to the cache's own size.

    ``area`` averages the source pixels under each target pixel (OpenCV INTER_AREA); ``antialias`` is bilinear with
    the triangle widened by the scale, as Pillow and torchvision do it.
    """

    op: ClassVar[str] = "resize"
    version: ClassVar[int] = 1
    method: Literal["area", "antialias"] = "area"

    def __post_init__(self) -> None:
        require(
            self.method in ("area", "antialias"),
            f"resize: method must be area or antialias, got {self.method!r}",
        )

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return size_px
