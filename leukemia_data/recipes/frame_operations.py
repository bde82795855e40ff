"""Operations that change a square's side: centre crop and resize, as validated parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from leukemia_data.recipes.operation_checks import require, require_side


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
