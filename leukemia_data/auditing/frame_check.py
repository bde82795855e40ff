"""What a decoded frame looks like as a picture of one cell on black: pixels in, measured facts and faults out.

C-NMC frames hold one segmented cell on exact-zero background, near the centre. A frame that breaks this is not wrong by
itself, but worth a look: a crop may cut its cell, a second piece may be another cell, a grey background changes
every statistic. The thresholds leave room around what 3,581 real frames (fold 1) show; docs/audit.md has the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FOREGROUND_LEVEL = 8
"""A pixel belongs to the cell where its brightest channel is above this; JPEG and CLAHE lift black to less."""
MIN_COVERAGE = 0.01
MIN_BRIGHTEST = 40
MAX_OFFSET = 0.10
MIN_PIECE_SHARE = 0.01
MAX_FAINT_SHARE = 0.01
MAX_BRIGHT_EDGE = 0.5

FAULTS = {
    "unusable": "cannot be used (damaged, of another format)",
    "black": "black or nearly black",
    "other_size": "of another size than most of their source",
    "border": "whose cell touches the border",
    "off_centre": "whose cell is off centre",
    "pieces": "with several cells or pieces",
    "background": "whose background is not zero",
}
"""Kinds of odd frames, and how a table calls them: ``frames ...``."""


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """Measurements of one frame.

    Attributes
    ----------
    height_px, width_px
        Size of the frame.
    brightest
        Largest value of any channel, 0 ... 255.
    coverage
        Share of the frame above :data:`FOREGROUND_LEVEL`, 0 ... 1.
    faint_share
        Share of the frame that is neither zero nor above that level.
    bright_edge
        Share of the outermost pixels above that level: 1 where the background is not black.
    touches_border
        Whether any outermost pixel is above that level.
    offset
        Distance from the frame's centre to the foreground's centre of mass, as a share of the shorter side.
    num_pieces
        Connected pieces of the foreground that have at least 1 % of the largest piece's area.
    """

    height_px: int
    width_px: int
    brightest: int
    coverage: float
    faint_share: float
    bright_edge: float
    touches_border: bool
    offset: float
    num_pieces: int

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px


def brightest_channel(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest of a pixel's three channels, shape (H, W), uint8."""
    red, green, blue = cv2.split(image_HWC)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def foreground_mask(level_HW: NDArray[np.uint8], above: int = FOREGROUND_LEVEL) -> NDArray[np.uint8]:
    """1 where a frame's brightest channel is above a level, else 0; shape (H, W), uint8."""
    return np.asarray(cv2.threshold(level_HW, above, 1, cv2.THRESH_BINARY)[1], np.uint8)


def measure_frame(image_HWC: NDArray[np.uint8]) -> FrameFacts:
    """Measure a frame.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB, as decoded.
    """
    height, width = image_HWC.shape[:2]
    level_HW = brightest_channel(image_HWC)
    mask_HW = foreground_mask(level_HW)
    num_foreground = cv2.countNonZero(mask_HW)
    edge = np.concatenate([mask_HW[0], mask_HW[-1], mask_HW[1:-1, 0], mask_HW[1:-1, -1]])
    return FrameFacts(
        height_px=height,
        width_px=width,
        brightest=int(level_HW.max()),
        coverage=num_foreground / mask_HW.size,
        faint_share=(cv2.countNonZero(level_HW) - num_foreground) / mask_HW.size,
        bright_edge=float(edge.mean()),
        touches_border=bool(edge.any()),
        offset=_offset(mask_HW) if num_foreground else 0.0,
        num_pieces=_num_pieces(mask_HW),
    )


def usual_size(frames: Iterable[FrameFacts]) -> tuple[int, int] | None:
    """Height and width that most frames have, the larger of equally frequent ones; ``None`` of no frames."""
    counts = Counter(frame.size_px for frame in frames)
    return max(counts, key=lambda size: (counts[size], size)) if counts else None


def frame_faults(frame: FrameFacts, usual_size_px: tuple[int, int]) -> list[tuple[str, str]]:
    """What is odd about a frame: keys of :data:`FAULTS`, each with the measured reason.

    A frame without black background, or with next to nothing in it, is not judged by its cell's place: there is none.
    """
    faults = []
    if frame.size_px != usual_size_px:
        size, usual = (f"{height}x{width}" for height, width in (frame.size_px, usual_size_px))
        faults.append(("other_size", f"{size} px, most of its source are {usual}"))
    if frame.coverage < MIN_COVERAGE or frame.brightest < MIN_BRIGHTEST:
        faults.append(("black", f"brightest value {frame.brightest}, {frame.coverage:.2%} of the frame is not dark"))
    elif frame.bright_edge > MAX_BRIGHT_EDGE:
        faults.append(("background", f"{frame.bright_edge:.0%} of the outermost pixels are not black"))
    else:
        faults.extend(_place_faults(frame))
    return faults


def _place_faults(frame: FrameFacts) -> list[tuple[str, str]]:
    faults = []
    if frame.touches_border:
        faults.append(("border", f"{frame.bright_edge:.1%} of the outermost pixels belong to the cell"))
    if frame.offset > MAX_OFFSET:
        faults.append(("off_centre", f"its centre of mass is {frame.offset:.0%} of the side away from the centre"))
    if frame.num_pieces > 1:
        faults.append(("pieces", f"{frame.num_pieces} separate pieces"))
    if frame.faint_share > MAX_FAINT_SHARE:
        faults.append(("background", f"{frame.faint_share:.1%} of the pixels are faint but not zero"))
    return faults


def _offset(mask_HW: NDArray[np.uint8]) -> float:
    height, width = mask_HW.shape
    moments = cv2.moments(mask_HW, binaryImage=True)
    row, column = float(moments["m01"] / moments["m00"]), float(moments["m10"] / moments["m00"])
    distance_px = math.hypot(row - (height - 1) / 2, column - (width - 1) / 2)
    return float(distance_px / min(height, width))


def _num_pieces(mask_HW: NDArray[np.uint8]) -> int:
    # The first component is the background.
    areas = cv2.connectedComponentsWithStats(mask_HW, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    return int((areas >= MIN_PIECE_SHARE * areas.max()).sum()) if len(areas) else 0
