"""The header of a Windows bitmap: which of them are decoded, and whether all their rows are there."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.pixels.image_header import ImageHeader, check_frame_size, short_data_error

BMP_MAGIC = b"BM"

_FILE_HEADER = struct.Struct("<2sIHHII")
_INFO_HEADER = struct.Struct("<iiHHI")
_OS2_HEADER = struct.Struct("<HHHH")
_MIN_BYTES = _FILE_HEADER.size + _OS2_HEADER.size
_MASKS = struct.Struct("<III")
_MASKS_OFFSET, _ALPHA_MASK_OFFSET = 54, 66
_USUAL_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)
_FILE_HEADER_BYTES = 14
_OS2_HEADER_BYTES, _INFO_HEADER_BYTES, _HEADER_BYTES_WITH_ALPHA = 12, 40, 56
_KNOWN_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
_PLAIN, _BIT_FIELDS = 0, 3
_DECODED_BITS = (1, 4, 8, 24, 32)


def read_bmp_header(data: NDArray[np.uint8]) -> ImageHeader:
    """Check the header of a BMP file.

    The sizes of file and pixels that it declares decide nothing, as for decoders: writers fill them with anything.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file; it starts with :data:`BMP_MAGIC`.

    Raises
    ------
    ImageError
        If the file is truncated, too large, or of a kind that decoders disagree about: run-length coded, 16 bits a
        pixel, unusual colour masks, OS/2's header of 16 bytes.
    """
    if len(data) < _MIN_BYTES:
        raise ImageError(f"truncated: {len(data)} bytes are no BMP header")
    _, declared_bytes, _, _, offset, header_bytes = _FILE_HEADER.unpack_from(data.data)
    if header_bytes not in _KNOWN_HEADER_BYTES:
        raise ImageError("damaged, or not a BMP file at all, whatever its name says")
    if _OS2_HEADER_BYTES < header_bytes < _INFO_HEADER_BYTES:
        raise ImageError("a BMP of OS/2: save it as a 24-bit BMP or as PNG")
    if len(data) < _FILE_HEADER_BYTES + header_bytes:
        raise ImageError(f"truncated: {len(data)} bytes are no BMP header")
    width, height, bits, compression = _picture(data, header_bytes)
    header = ImageHeader(abs(height), width, has_alpha=bits == 32 and _may_have_alpha(data, header_bytes, compression))
    check_frame_size(header.height_px, width)
    _check_kind(data, bits, compression)
    _check_offset(offset, header_bytes, bits)
    stride_bytes = (width * bits + 31) // 32 * 4
    if offset + stride_bytes * header.height_px > len(data):
        if len(data) < declared_bytes:
            raise ImageError(f"truncated: its header says {declared_bytes} bytes, it has {len(data)}")
        raise short_data_error(header, len(data))
    return header


def _picture(data: NDArray[np.uint8], header_bytes: int) -> tuple[int, int, int, int]:
    """Width, height (negative: stored from the top), bits a pixel and compression."""
    if header_bytes == _OS2_HEADER_BYTES:
        width, height, _, bits = _OS2_HEADER.unpack_from(data.data, _FILE_HEADER.size)
        return width, height, bits, _PLAIN
    width, height, _, bits, compression = _INFO_HEADER.unpack_from(data.data, _FILE_HEADER.size)
    return width, height, bits, compression


def _may_have_alpha(data: NDArray[np.uint8], header_bytes: int, compression: int) -> bool:
    """Whether the fourth byte of a pixel may mean something: colour masks say so themselves."""
    if compression != _BIT_FIELDS:
        return True
    return header_bytes >= _HEADER_BYTES_WITH_ALPHA and any(data[_ALPHA_MASK_OFFSET : _ALPHA_MASK_OFFSET + 4])


def _check_offset(offset: int, header_bytes: int, bits: int) -> None:
    """Refuse pixels that begin where the header or the first colour of the palette stands."""
    has_palette = bits <= 8
    if offset < _FILE_HEADER_BYTES + header_bytes + has_palette:
        raise ImageError("damaged: its header says that the pixels begin inside the header")


def _check_kind(data: NDArray[np.uint8], bits: int, compression: int) -> None:
    if compression not in (_PLAIN, _BIT_FIELDS):
        raise ImageError("a compressed BMP: save it uncompressed or as PNG")
    if bits not in _DECODED_BITS:
        raise ImageError(f"a BMP of {bits} bits a pixel: save it with 24 bits, 8 for each channel")
    if compression == _BIT_FIELDS and (
        bits != 32
        or len(data) < _MASKS_OFFSET + _MASKS.size
        or _MASKS.unpack_from(data.data, _MASKS_OFFSET) != _USUAL_MASKS
    ):
        raise ImageError("a BMP with unusual colour masks: save it as a 24-bit BMP or as PNG")
