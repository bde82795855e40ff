"""The orientation in EXIF data, for formats whose decoder does not turn the picture; and the turning."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12


def exif_orientation(exif: bytes) -> int:
    """Orientation, 1 (upright) to 8, that EXIF data tells; 1 where it tells none or is damaged.

    Parameters
    ----------
    exif
        A TIFF structure, as PNG's ``eXIf`` chunk holds it.
    """
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", exif, start)
        for number in range(num_entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + number * _ENTRY_BYTES)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def turn_upright(image_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn a stored picture as its EXIF orientation says.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
    orientation
        1 to 8: which corner of the upright picture the stored first row and column begin at.

    Returns
    -------
    ndarray of shape (height, width, 3) or (width, height, 3), uint8
        C-contiguous; the same array where it is upright already.
    """
    image = image_HWC
    if orientation in (5, 6, 7, 8):
        image = np.asarray(cv2.transpose(image), np.uint8)
    # After the transposition: which of left-right and up-down are still the wrong way round.
    flip_code = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip_code is None else np.asarray(cv2.flip(image, flip_code), np.uint8)
