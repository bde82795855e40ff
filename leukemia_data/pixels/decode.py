"""Bytes of an image file in, RGB uint8 pixels out, or the reason why not.

BGR never leaves this module. Nothing is guessed: an image that would need a decision about its meaning (16 bits a
channel, transparency) is refused with the reason rather than converted silently.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError

_BMP_MAGIC = b"BM"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_MAGIC = b"\xff\xd8\xff"
_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_BMP_SIZE_FIELD = slice(2, 6)


def decode_rgb(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a BMP, PNG, TIFF or JPEG file.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB; grey images get three equal channels, JPEGs are turned as their EXIF orientation says.

    Raises
    ------
    ImageError
        With the reason: empty, truncated, of another format, 16-bit, transparent, or all black.
    """
    _check_whole(data)
    flags = cv2.IMREAD_COLOR_RGB if _is_plain_colour(data) else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ImageError(f"cannot be decoded: {error.err}") from error
    if decoded is None:
        raise ImageError("cannot be decoded: truncated or damaged")
    image_HWC = np.asarray(decoded, np.uint8) if flags == cv2.IMREAD_COLOR_RGB else _to_rgb(decoded)
    if not cv2.hasNonZero(image_HWC.reshape(len(image_HWC), -1)):
        raise ImageError("every pixel is black: no cell in it")
    return image_HWC


def _check_whole(data: NDArray[np.uint8]) -> None:
    """Refuse what is no image or lacks its end, before a decoder sees it."""
    head = data[:8].tobytes()
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(_BMP_MAGIC):
        declared = int.from_bytes(data[_BMP_SIZE_FIELD].tobytes(), "little")
        if len(data) < declared:
            raise ImageError(f"truncated: its header says {declared} bytes, it has {len(data)}")
    elif head == _PNG_MAGIC:
        if _PNG_END not in data[-64:].tobytes():
            raise ImageError("truncated: the PNG has no end mark")
    elif not head.startswith((_JPEG_MAGIC, *_TIFF_MAGICS)):
        raise ImageError("not a BMP, PNG, TIFF or JPEG file, whatever its name says")


def _is_plain_colour(data: NDArray[np.uint8]) -> bool:
    """Whether the file can only hold 8-bit grey or colour: JPEG, and BMP of 24 bits a pixel."""
    head = data[:30].tobytes()
    is_bmp_24 = head.startswith(_BMP_MAGIC) and int.from_bytes(head[28:30], "little") == 24
    return is_bmp_24 or head.startswith(_JPEG_MAGIC)


def _to_rgb(image: NDArray[np.integer[Any] | np.floating[Any]]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 3) BGR or (H, W, 4) BGRA of 8 bits -> (H, W, 3) RGB."""
    if image.dtype != np.uint8:
        raise ImageError(f"{image.dtype} samples: convert it to 8 bits a channel first")
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    if image.shape[2] == 4:
        if (image[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
