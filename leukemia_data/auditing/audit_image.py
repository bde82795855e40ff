"""One image of an audit: digests, look, frame measurements and faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.records.record import NO_FOLD, ImagePlace, parse_cell_name
from leukemia_data.scanning.frame_finding import FrameTraits

FOREGROUND_LEVEL = 8
"""A pixel is foreground if its brightest channel is above this; JPEG and CLAHE raise black to less."""
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
"""Kinds of odd frames, and their titles in tables: ``frames ...``."""


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
        Fraction of the frame above :data:`FOREGROUND_LEVEL`, 0 ... 1.
    faint_share
        Fraction of the frame that is neither zero nor above that level.
    bright_edge
        Fraction of the outermost pixels above that level: 1 if the background is not black.
    touches_border
        Whether any outermost pixel is above that level.
    offset
        Distance from the frame's centre to the foreground's centre of mass, as a fraction of the shorter side.
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
    """Return the largest of each pixel's channels, shape (H, W), uint8."""
    red, green, blue = cv2.split(image_HWC)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def foreground_mask(level_HW: NDArray[np.uint8], above: int = FOREGROUND_LEVEL) -> NDArray[np.uint8]:
    """Return 1 where the brightest channel is above a level, else 0; shape (H, W), uint8."""
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
    """Return the most frequent height and width, the larger of equally frequent ones; ``None`` without frames."""
    counts = Counter(frame.size_px for frame in frames)
    return max(counts, key=lambda size: (counts[size], size)) if counts else None


def frame_faults(frame: FrameFacts, usual_size_px: tuple[int, int]) -> list[tuple[str, str]]:
    """Return the faults of a frame: keys of :data:`FAULTS`, each with the measured reason.

    The cell's place is not checked in (nearly) empty frames and those without black background.
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


Verdict = Literal["LEAK", "WRONG", "LOOK", "ok", "unchecked", "info"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its verdict and count (``None`` if nothing could be counted)."""

    key: str
    verdict: Verdict
    count: int | None
    text: str


def counted(key: str, verdict: Verdict, count: int, text: str) -> Check:
    """Return a check with a verdict if anything was counted, else ``ok``."""
    return Check(key, verdict if count else "ok", count, text)


THUMBNAIL_PX = 32
NUM_BITS = 64
VIEWS = tuple(product((False, True), repeat=3))
"""The eight views: whether to transpose, then flip rows, then flip columns. View 0 is the identity."""

_FREQUENCIES = slice(1, 9)
_ALTERNATING = np.where(np.arange(1, 9) % 2, -1.0, 1.0)
_BIT_VALUES = np.uint64(1) << np.arange(NUM_BITS, dtype=np.uint64)
_CELL_SHARE = 0.25
_MAX_DEVIATIONS = 2.0
_THUMBNAIL_SCALE = 60.0
_MIN_CELL_PX = 8
_MIN_DEVIATION = 1.0


@dataclass(frozen=True)
class CellPrint:
    """Perceptual hashes and thumbnail of one cell.

    Attributes
    ----------
    hashes : ndarray of shape (8,), uint64
        Hash of each view in :data:`VIEWS`.
    thumbnail : ndarray of shape (32, 32), int8
        Standardised grey values times 60, within -120 to 120; 0 outside the cell.
    """

    hashes: NDArray[np.uint64]
    thumbnail: NDArray[np.int8]


def cell_print(image_HWC: NDArray[np.uint8]) -> CellPrint | None:
    """Return the print of the cell in a frame; ``None`` for a black, tiny or flat one.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB, a cell on black; on any other background the whole frame counts as the cell.
    """
    level_HW = brightest_channel(image_HWC)
    # Relative to the brightest value: JPEG's ringing around a cell would widen its bounding box.
    mask_HW = foreground_mask(level_HW, max(FOREGROUND_LEVEL, round(_CELL_SHARE * int(level_HW.max()))))
    left, top, width, height = cv2.boundingRect(mask_HW)
    if min(width, height) < _MIN_CELL_PX:
        return None
    box = slice(top, top + height), slice(left, left + width)
    grey = _thumbnail(cv2.cvtColor(image_HWC[box], cv2.COLOR_RGB2GRAY))
    inside = _thumbnail(mask_HW[box] * np.uint8(255)) > 127
    values = grey[inside]
    if len(values) == 0 or values.std() < _MIN_DEVIATION:
        return None
    standardised = ((grey - values.mean()) / values.std()).clip(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    standardised[~inside] = 0
    return CellPrint(_view_hashes(standardised), np.rint(standardised * _THUMBNAIL_SCALE).astype(np.int8))


def oriented(images_NPP: NDArray[np.generic], view: int) -> NDArray[np.generic]:
    """Return square images (N, P, P) in one of :data:`VIEWS`."""
    transpose, mirror_rows, mirror_columns = VIEWS[view]
    turned = images_NPP.swapaxes(1, 2) if transpose else images_NPP
    return turned[:, :: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]


def _thumbnail(pixels_HW: NDArray[np.generic]) -> NDArray[np.float32]:
    """Pixels centred in a black square and averaged down, shape (32, 32), float32."""
    height, width = pixels_HW.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels_HW
    scaled = cv2.resize(square, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.float32)


def _view_hashes(standardised_PP: NDArray[np.float32]) -> NDArray[np.uint64]:
    frequencies = np.asarray(cv2.dct(standardised_PP), np.float64)[_FREQUENCIES, _FREQUENCIES]
    hashes = np.empty(len(VIEWS), np.uint64)
    for view, (transpose, mirror_rows, mirror_columns) in enumerate(VIEWS):
        seen = frequencies.T if transpose else frequencies
        if mirror_rows:
            seen = seen * _ALTERNATING[:, None]
        if mirror_columns:
            seen = seen * _ALTERNATING
        hashes[view] = _BIT_VALUES[seen.ravel() > 0].sum(dtype=np.uint64)
    return hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditImage:
    """Known facts of one image; unknown ones keep their defaults.

    Attributes
    ----------
    name
        Its id in its source.
    argument
        Index of its cache, source or table.
    class_name, subject, photo
        Empty if unknown. The photo includes its subject: its cells were cut from one photograph.
    split, fold
        As given by the source.
    path, row
        Where its pixels are: its file, or its sample index in the cache.
    pixel_digest
        Digest of the decoded original frame (16 bytes).
    sha256
        SHA-256 of the original file (32 bytes).
    size_bytes
        Of the original file, -1 if unknown.
    look
        Of the decoded original frame (64 bytes), see :mod:`leukemia_data.decoding.look`; empty if unknown.
    frame, traits, cell_print
        Measurements and traits of the original frame, and the print of the cell.
    problem
        Why the image is unusable; empty for usable ones.
    """

    name: str
    argument: int = 0
    class_name: str = ""
    subject: str = ""
    photo: str = ""
    split: str = ""
    fold: int = NO_FOLD
    path: ImagePlace | None = None
    row: int = -1
    pixel_digest: bytes = b""
    look: bytes = b""
    sha256: bytes = b""
    size_bytes: int = -1
    frame: FrameFacts | None = None
    traits: FrameTraits | None = None
    cell_print: CellPrint | None = None
    problem: str = ""

    @property
    def content_keys(self) -> tuple[bytes, ...]:
        """Return keys that identical images share: digests of pixels, or of bytes."""
        return tuple(key for key in (self.pixel_digest, self.sha256) if key)


def photo_of(file_name: str) -> str:
    """Return the photograph in a C-NMC file name, such as ``H3/12``; empty for other names."""
    cell = parse_cell_name(file_name.rsplit("/", 1)[-1])
    return "" if cell is None else f"{cell.subject}/{cell.photo}"
