"""Bytes of an image file in, RGB uint8 pixels out, or the reason why not.

BGR never leaves this module. Nothing is guessed: an image that would need a decision about its meaning (16 bits a
channel, transparency, several pages, CMYK) is refused with the reason rather than converted silently. docs/input.md
lists what is read and what is refused.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.pixels.bmp_header import BMP_MAGIC, read_bmp_header
from leukemia_data.pixels.exif import turn_upright
from leukemia_data.pixels.image_header import ImageHeader
from leukemia_data.pixels.jpeg_segments import JPEG_MAGIC, read_jpeg
from leukemia_data.pixels.png_chunks import PNG_MAGIC, read_png
from leukemia_data.pixels.tiff_image import decode_tiff
from leukemia_data.pixels.tiff_tags import TIFF_MAGICS

ALL_BLACK = "every pixel is black: no cell in it"


def decode_rgb(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a BMP, PNG, TIFF or JPEG file that shows something.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB; grey images get three equal channels, pictures are turned as their EXIF orientation says.

    Raises
    ------
    ImageError
        With the reason: those of :func:`decode_frame`, or all black.
    """
    image_HWC = decode_frame(data)
    if is_all_black(image_HWC):
        raise ImageError(ALL_BLACK)
    return image_HWC


def decode_frame(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode like :func:`decode_rgb`, but an all-black image too.

    Raises
    ------
    ImageError
        With the reason: empty, truncated, damaged, of another format, more than 8 bits a channel, transparent, larger
        than ``MAX_MEGAPIXELS``, of several pages or frames, or neither grey nor RGB.
    """
    head = data[:8].tobytes()
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(BMP_MAGIC):
        return _decode(read_bmp_header(data), data)
    if head == PNG_MAGIC:
        return _decode(*read_png(data))
    if head.startswith(JPEG_MAGIC):
        return _decode(*read_jpeg(data))
    if head.startswith(TIFF_MAGICS):
        return decode_tiff(data)
    raise ImageError("not a BMP, PNG, TIFF or JPEG file, whatever its name says")


def is_all_black(image_HWC: NDArray[np.uint8]) -> bool:
    """Whether no pixel of an image of shape (height, width, 3), uint8, has any light."""
    return not cv2.hasNonZero(image_HWC.reshape(len(image_HWC), -1))


def _decode(header: ImageHeader, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode by OpenCV, which turns JPEGs itself."""
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if header.has_alpha else cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            # The machine's fault: a good image must not be left out for it.
            raise MemoryError(error.err) from error
        raise ImageError(f"cannot be decoded: {error.err}") from error
    if decoded is None:
        raise ImageError("cannot be decoded: truncated or damaged")
    image = np.asarray(decoded, np.uint8)
    return turn_upright(_opaque_rgb(image) if header.has_alpha else image, header.orientation)


def _opaque_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) BGRA without transparent pixels, or (H, W, 3) BGR -> (H, W, 3) RGB."""
    if image.shape[2] == 4:
        if (image[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
