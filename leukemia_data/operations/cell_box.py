"""Where the cell of a frame lies: on black ground whatever is not ground, in a photograph what is stained blue.

Distances are computed on a frame of at most 512 px, so that large photographs cost no more than small ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from leukemia_data.libraries import cv2, np
from leukemia_data.operations.operation import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SEARCHED_PX = 512
BLACK_LEVEL = 10
"""Highest level of a pixel of black ground: exact zeros, and what JPEG leaves of them."""
MIN_CONTRAST = 24
"""Least difference, in grey levels, between the means of cell and ground."""
MIN_PART = 0.1
MAX_GAP = 0.15
MIN_SHARE = 0.002
_RED = 0


class Box(NamedTuple):
    """Half-open rectangle in pixels of a frame; it may reach beyond the frame."""

    top: int
    left: int
    bottom: int
    right: int

    def square(self, margin: float) -> Box:
        """The square around it, with a margin on each side as a share of its longer side.

        The side is rounded up; odd remainders fall below and right.
        """
        height, width = self.bottom - self.top, self.right - self.left
        side = int(np.ceil(max(height, width) * (1 + 2 * margin)))
        top, left = self.top - (side - height) // 2, self.left - (side - width) // 2
        return Box(top, left, top + side, left + side)


def border_colour(frame_HWC: Image) -> tuple[int, int, int]:
    """Median of each channel over the first and last row and column, every pixel counted once.

    Where the number of pixels is even, the median is the mean of the two middle values, rounded down.
    """
    height, width = frame_HWC.shape[:2]
    rows = frame_HWC[:: max(height - 1, 1)]
    columns = frame_HWC[1:-1, :: max(width - 1, 1)]
    pixels_NC = np.concatenate([rows.reshape(-1, 3), columns.reshape(-1, 3)])
    red, green, blue = (int(value) for value in np.median(pixels_NC, axis=0))
    return red, green, blue


def find_cell(frame_HWC: Image) -> Box | None:
    """Bounding box of the cell.

    Parameters
    ----------
    frame_HWC : ndarray of shape (height, width, 3), uint8
        One segmented cell on black ground, or a photograph with a stained cell near its middle.

    Returns
    -------
    Box or None
        None where no cell can be told from the ground. In frames of at most 512 px the box is exact to the pixel, but
        for a rim as dark as black ground; in larger ones to one pixel of the reduced frame.

    Notes
    -----
    Ground is black if the median of the frame's border is at most ``BLACK_LEVEL`` in all channels. The cell is then
    what is lighter in any channel. Otherwise the difference from the border's median in the red channel is
    thresholded by Otsu's method ("A threshold selection method from gray-level histograms", 1979). Red, because
    haemoglobin and eosin let it pass: red cells hardly differ from the ground there, while the blue stain of nuclei
    and of basophilic cytoplasm absorbs it. If the means of the two sides differ by less than ``MIN_CONTRAST`` levels,
    there is no cell.

    Of the connected parts, that with the largest area counts as the cell, each area weighted by a Gaussian of the
    distance of its centre from the frame's (standard deviation a quarter of the frame's diagonal). Other parts join it
    (lobes of a nucleus) if they have a tenth of its area and lie within 0.15 of its box's longer side. So debris
    and platelets do not widen the box. A cell smaller than 1/500 of the frame is none.
    """
    height, width = frame_HWC.shape[:2]
    searched = _reduced(frame_HWC)
    mask = _foreground(searched)
    box = None if mask is None else _main_box(mask)
    if box is None:
        return None
    down, across = height / searched.shape[0], width / searched.shape[1]
    return Box(
        int(np.floor(box.top * down)),
        int(np.floor(box.left * across)),
        min(int(np.ceil(box.bottom * down)), height),
        min(int(np.ceil(box.right * across)), width),
    )


def _reduced(frame_HWC: Image) -> Image:
    height, width = frame_HWC.shape[:2]
    longest = max(height, width)
    if longest <= MAX_SEARCHED_PX:
        return frame_HWC
    size = max(width * MAX_SEARCHED_PX // longest, 1), max(height * MAX_SEARCHED_PX // longest, 1)
    return np.asarray(cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _foreground(frame_HWC: Image) -> NDArray[np.uint8] | None:
    """255 where the frame is no ground, or None where it is flat."""
    ground = border_colour(frame_HWC)
    if max(ground) <= BLACK_LEVEL:
        return np.asarray(cv2.bitwise_not(cv2.inRange(frame_HWC, (0, 0, 0), (BLACK_LEVEL,) * 3)), np.uint8)
    distance = np.abs(frame_HWC[..., _RED].astype(np.int16) - ground[_RED]).astype(np.uint8)
    _, mask = cv2.threshold(distance, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    inside, outside = cv2.mean(distance, mask)[0], cv2.mean(distance, cv2.bitwise_not(mask))[0]
    return np.asarray(mask, np.uint8) if inside - outside >= MIN_CONTRAST else None


def _main_box(mask: NDArray[np.uint8]) -> Box | None:
    """Box of the connected part that is the cell, and of the parts that belong to it."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, width, height, areas = stats[1:].T.astype(np.int64)
    if not areas.size or areas.max() < MIN_SHARE * mask.size:
        return None
    rows, columns = mask.shape
    offsets = centres[1:] - ((columns - 1) / 2, (rows - 1) / 2)
    distance = (offsets**2).sum(axis=1) / (rows**2 + columns**2)
    main = int(np.argmax(areas * np.exp(-8 * distance)))
    boxes = np.stack([top, left, top + height, left + width], axis=1)
    own = boxes[main]
    reach = MAX_GAP * max(own[2] - own[0], own[3] - own[1])
    near = (boxes[:, :2] - reach <= own[2:]).all(axis=1) & (boxes[:, 2:] + reach >= own[:2]).all(axis=1)
    parts = boxes[near & (areas >= MIN_PART * areas[main])]
    first, end = parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)
    return Box(int(first[0]), int(first[1]), int(end[0]), int(end[1]))
