"""What an image file tells apart from its cell: size, mode and format of the frame, and the ground around the cell.

Sizes, modes and formats come from headers, the ground from the outermost pixels of decoded frames. The cell's own size
and colour are no part of it: those are biology.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

_ORIENTATION_TAG, _FIRST_TURNED = 274, 5
_DARK, _BRIGHT = 8, 96
_TIFF = (b"II", b"MM")
_READERS: dict[bytes, tuple[str, type[ImageFile]]] = {
    b"BM": ("BMP", BmpImageFile),
    b"\x89PNG": ("PNG", PngImageFile),
    b"\xff\xd8": ("JPEG", JpegImageFile),
    **dict.fromkeys(_TIFF, ("TIFF", TiffImageFile)),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """The outermost pixels of a frame.

    Attributes
    ----------
    rgb
        Median of each channel, 0 ... 255: a cell that touches the border does not move it.
    spread
        Interquartile range of the brightest channel, 0 ... 255.
    black_share
        Share of these pixels that are exactly zero, 0 ... 1.
    name
        ``black``, ``grey`` or ``bright``, by the median of the brightest channel.
    """

    rgb: tuple[float, float, float]
    spread: float
    black_share: float
    name: str


@dataclass(frozen=True, slots=True)
class FrameTraits:
    """What one image file tells apart from its cell.

    Attributes
    ----------
    height_px, width_px
        Size of the upright picture.
    mode
        Pillow's name of the file's mode, such as ``RGB`` or ``L``.
    file_format
        ``BMP``, ``PNG``, ``JPEG`` or ``TIFF``.
    ground
        None where the frame was not decoded.
    """

    height_px: int
    width_px: int
    mode: str
    file_format: str
    ground: Ground | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px


def read_traits(file: Path | NDArray[np.uint8], frame_HWC: NDArray[np.uint8] | None = None) -> FrameTraits:
    """Read a file's header and measure its ground.

    The readers are called by themselves: ``PIL.Image.open`` warns of large pictures for the whole process.

    Parameters
    ----------
    file
        A path, of which nothing but the header is read, or the bytes of a file.
    frame_HWC : ndarray of shape (height, width, 3), uint8, optional
        The decoded frame, where it is known.

    Raises
    ------
    ValueError
        If it is none of the formats that are read. Of damaged files, whatever Pillow's readers end in.
    """
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.data) as stream:
        start = stream.read(4)
        file_format, reader = next((found for magic, found in _READERS.items() if start.startswith(magic)), ("", None))
        if reader is None:
            raise ValueError("no image")
        stream.seek(0)
        picture = reader(stream)
        width, height = picture.size
        # A TIFF is turned by Pillow itself.
        if not start.startswith(_TIFF) and picture.getexif().get(_ORIENTATION_TAG, 1) >= _FIRST_TURNED:
            height, width = width, height
        ground = None if frame_HWC is None else measure_ground(frame_HWC)
        return FrameTraits(height, width, picture.mode, file_format, ground)


def measure_ground(frame_HWC: NDArray[np.uint8]) -> Ground:
    """Measure the outermost pixels of a frame.

    Parameters
    ----------
    frame_HWC : ndarray of shape (height, width, 3), uint8
        RGB.
    """
    edge = np.concatenate([frame_HWC[0], frame_HWC[-1], frame_HWC[1:-1, 0], frame_HWC[1:-1, -1]])
    brightest = edge.max(axis=1)
    low, level, high = (float(value) for value in np.percentile(brightest, (25, 50, 75)))
    red, green, blue = (float(value) for value in np.median(edge, axis=0))
    name = "black" if level <= _DARK else "bright" if level >= _BRIGHT else "grey"
    return Ground((red, green, blue), high - low, float((brightest == 0).mean()), name)
