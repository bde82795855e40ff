"""Operations on colour: gray-world balance and grey; and where the cell is on an exactly black background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leukemia_data.libraries import cv2, np
from leukemia_data.operations.operation import OPERATIONS, Image, Operation


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class GrayWorld(Operation):
    """Scale each channel to the mean of the three channels' means, rounded and saturated.

    The means are over the whole image. Black pixels add nothing to any of the three sums, so over the cell alone the
    factors would be the same. An image with an empty channel has no balance and is returned as it is.

    Notes
    -----
    Buchsbaum, "A spatial processor model for object colour perception", J. Franklin Institute 310 (1980).
    """

    op: ClassVar[str] = "gray_world"
    version: ClassVar[int] = 1
    keeps_the_background: ClassVar[bool] = True

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        sums_C = image_HWC.reshape(-1, 3).sum(axis=0, dtype=np.float64)
        if not sums_C.all():
            return image_HWC.copy()
        levels = np.arange(256)[:, None] * (sums_C.mean() / sums_C)
        table = np.rint(levels).clip(0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(image_HWC, table[:, None]), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Gray(Operation):
    """Luma of Rec. 601 (0.299 R + 0.587 G + 0.114 B) in three equal channels."""

    op: ClassVar[str] = "gray"
    version: ClassVar[int] = 1
    keeps_the_background: ClassVar[bool] = True

    @property
    def reach_px(self) -> int:
        """See :attr:`Operation.reach_px`."""
        return 0

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        luma_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
        return np.asarray(cv2.merge([luma_HW] * 3), np.uint8)


def cell_mask(image_HWC: Image) -> Image:
    """255 where any channel is above zero, 0 where a pixel is exactly black: (H, W, 3) -> (H, W), uint8."""
    return np.asarray(cv2.bitwise_not(cv2.inRange(image_HWC, (0, 0, 0), (0, 0, 0))), np.uint8)
