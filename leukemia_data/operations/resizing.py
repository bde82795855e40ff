"""Centre crop and resize of a square, and resampling to any height and width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from leukemia_data.errors import require
from leukemia_data.lazy_imports import cv2, np
from leukemia_data.operations.operation import OPERATIONS, Extent, Image, Operation, Window, require_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

Resampling = Literal["area", "antialias"]


def require_method(op: str, method: str) -> None:
    """Raise UsageError unless `method` is one of :data:`Resampling`."""
    require(method in get_args(Resampling), f"{op}: method must be area or antialias, got {method!r}")


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop(Operation):
    """Crop the central square; an odd remainder goes below and right."""

    op: ClassVar[str] = "center_crop"
    label: ClassVar[str] = "crop {side_px} px"
    keeps_the_background: ClassVar[bool] = True
    crops_the_centre: ClassVar[bool] = True
    side_px: int | None = None

    def __post_init__(self) -> None:
        if self.side_px is not None:
            require_side("center_crop: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        side = size_px if self.side_px is None else self.side_px
        require(side <= side_px, f"center_crop: cannot cut {side} px out of {side_px} px")
        return side

    def needed(self, produced: Window, side_px: int, next_side_px: int) -> Window:
        """See :meth:`Operation.needed`."""
        return produced.shifted((side_px - next_side_px) // 2)

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """See :meth:`Operation.apply`."""
        cropped = extent.produced.shifted((extent.side_px - extent.next_side_px) // 2)
        return cropped.cut(image_HWC, extent.needed)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(Operation):
    """Resize to the cache's size.

    See :func:`resize_area` and :func:`resize_antialiased`.
    """

    op: ClassVar[str] = "resize"
    label: ClassVar[str] = "resize {side_px} px ({method})"
    method: Resampling = "area"

    def __post_init__(self) -> None:
        require_method(self.op, self.method)

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        return size_px

    @property
    def depends_on_size(self) -> bool:
        """See :attr:`Operation.depends_on_size`."""
        return True

    def apply(self, image_HWC: Image, extent: Extent) -> Image:
        """See :meth:`Operation.apply`."""
        resize = resize_area if self.method == "area" else resize_antialiased
        return extent.produced.cut(resize(image_HWC, extent.next_side_px), Window.full(extent.next_side_px))


def resize_area(image_HWC: Image, size_px: int) -> Image:
    """Resize by the mean of the source pixels under each target pixel: (H, W, 3) -> (size_px, size_px, 3)."""
    return np.asarray(cv2.resize(image_HWC, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def resize_antialiased(image_HWC: Image, size_px: int) -> Image:
    """Resize bilinearly with the triangle filter widened by the scale: (H, W, 3) -> (size_px, size_px, 3).

    Within one grey level of Pillow's BILINEAR and torchvision's ``antialias=True``.
    """
    return _weighted_by_triangles(image_HWC, size_px, size_px)


def resample(image_HWC: Image, height_px: int, width_px: int, method: Resampling) -> Image:
    """Scale an image to any height and width: (H, W, 3) -> (height_px, width_px, 3).

    Parameters
    ----------
    method
        ``area``: as :func:`resize_area`, but bilinear if a side grows, where INTER_AREA would repeat pixels.
        ``antialias``: as :func:`resize_antialiased`.
    """
    if image_HWC.shape[:2] == (height_px, width_px):
        return image_HWC
    if method == "antialias":
        return _weighted_by_triangles(image_HWC, height_px, width_px)
    is_smaller = height_px <= image_HWC.shape[0] and width_px <= image_HWC.shape[1]
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(image_HWC, (width_px, height_px), interpolation=interpolation), np.uint8)


def _weighted_by_triangles(image_HWC: Image, height_px: int, width_px: int) -> Image:
    height, width = image_HWC.shape[:2]
    rows = _triangle_weights(height, height_px)
    columns = _triangle_weights(width, width_px)
    planes_CHW = np.ascontiguousarray(image_HWC.transpose(2, 0, 1), np.float32)
    resized_CSS = rows @ planes_CHW @ columns.T
    return np.ascontiguousarray(np.rint(resized_CSS).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=16)
def _triangle_weights(source_px: int, target_px: int) -> NDArray[np.float32]:
    """Matrix (target_px, source_px) of the source pixels' weights for each target pixel; rows sum to one."""
    scale = source_px / target_px
    support = max(scale, 1.0)
    centres = (np.arange(target_px) + 0.5) * scale
    distances = np.arange(source_px) + 0.5 - centres[:, None]
    weights = np.clip(1 - np.abs(distances) / support, 0, None)
    normalized: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized
