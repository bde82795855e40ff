"""What an image file declares about its picture, checked before any room is made for its pixels.

A file of a few hundred bytes can declare a picture of terabytes. The header is therefore read first (``bmp_header``,
``png_chunks``, ``jpeg_segments``, ``tiff_tags``), and a decoder only sees what passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from leukemia_data.errors import ImageError

MAX_MEGAPIXELS = 80
"""Pixels of the largest picture that is decoded, in millions: 240 MB of RGB, four hundred times a C-NMC cell.

One cell, one field of a camera and scanned fields stay below it; OpenCV's own limit, 2**30 pixels, is 3.2 GB.
"""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The declared picture.

    Attributes
    ----------
    height_px, width_px
        As stored, before the file's orientation turns it.
    has_alpha
        Whether its pixels may be transparent.
    orientation
        EXIF's number, 1 to 8, for formats whose decoder leaves the turning to us; else 1.
    """

    height_px: int
    width_px: int
    has_alpha: bool = False
    orientation: int = 1


def check_frame_size(height_px: int, width_px: int) -> None:
    """Refuse a picture that is empty or too large to be a cell.

    Raises
    ------
    ImageError
        If a side is below 1 px, or there are more than :data:`MAX_MEGAPIXELS`.
    """
    if height_px < 1 or width_px < 1:
        raise ImageError(f"damaged: its header declares {width_px} x {height_px} pixels")
    if height_px * width_px > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"{width_px} x {height_px} pixels are more than {MAX_MEGAPIXELS} megapixels: cut the cells out of it first"
        )


def short_data_error(header: ImageHeader, num_bytes: int) -> ImageError:
    """The error for a file that cannot hold as many pixels as it declares."""
    return ImageError(
        f"truncated or damaged: its header declares {header.width_px} x {header.height_px} pixels, "
        f"more than its {num_bytes} bytes can hold"
    )
