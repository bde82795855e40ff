"""Headers of BMP, JPEG and PNG files, checked before a decoder allocates memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError

MAX_MEGAPIXELS = 80
"""Millions of pixels of the largest picture that is decoded: 240 MB of RGB."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The declared picture.

    Attributes
    ----------
    height_px, width_px
        As stored, before it is turned upright.
    has_alpha
        Whether its pixels may be transparent.
    orientation
        EXIF's orientation, 1 to 8, if the decoder does not apply it; else 1.
    """

    height_px: int
    width_px: int
    has_alpha: bool = False
    orientation: int = 1


def check_frame_size(height_px: int, width_px: int) -> None:
    """Raise ImageError if a side is below 1 px, or there are more than :data:`MAX_MEGAPIXELS`."""
    if height_px < 1 or width_px < 1:
        raise ImageError(f"damaged: its header declares {width_px} x {height_px} pixels")
    if height_px * width_px > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"{width_px} x {height_px} pixels are more than {MAX_MEGAPIXELS} megapixels: cut the cells out of it first"
        )


def short_data_error(header: ImageHeader, num_bytes: int) -> ImageError:
    """Return the error of a file that is too short for the declared pixels."""
    return ImageError(
        f"truncated or damaged: its header declares {header.width_px} x {header.height_px} pixels, "
        f"more than its {num_bytes} bytes can hold"
    )


_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data (a TIFF structure), 1 (upright) to 8; 1 if there is none or it is damaged."""
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
    """Turn a stored picture (H, W, 3) upright by its EXIF orientation, 1 to 8; C-contiguous.

    An upright picture is returned itself.
    """
    image = np.asarray(cv2.transpose(image_HWC), np.uint8) if orientation in (5, 6, 7, 8) else image_HWC
    # OpenCV's code of the axes to flip after the transposition.
    flip_code = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip_code is None else np.asarray(cv2.flip(image, flip_code), np.uint8)


BMP_MAGIC = b"BM"

_FILE_HEADER = struct.Struct("<2sIHHII")
_INFO_HEADER = struct.Struct("<iiHHI")
_OS2_HEADER = struct.Struct("<HHHH")
_MASKS = struct.Struct("<III")
_MASKS_OFFSET, _ALPHA_MASK_OFFSET = 54, 66
_USUAL_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)
# The struct includes the first number of the next header, its length.
_FILE_HEADER_BYTES = 14
_KNOWN_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
_PLAIN, _BIT_FIELDS = 0, 3
_DECODED_BITS = (1, 4, 8, 24, 32)


def read_bmp_header(data: NDArray[np.uint8]) -> ImageHeader:
    """Check the header of a whole BMP file, which starts with :data:`BMP_MAGIC`.

    Declared sizes of file and pixels are ignored, as by decoders.

    Raises
    ------
    ImageError
        If the file is truncated, too large, or of a kind that decoders disagree about: run-length coded, 16 bits a
        pixel, unusual colour masks, OS/2's header of 16 bytes.
    """
    if len(data) < _FILE_HEADER.size + _OS2_HEADER.size:
        raise ImageError(f"truncated: {len(data)} bytes are no BMP header")
    _, declared_bytes, _, _, offset, header_bytes = _FILE_HEADER.unpack_from(data.data)
    if header_bytes not in _KNOWN_HEADER_BYTES:
        raise ImageError("damaged, or not a BMP file at all, whatever its name says")
    if header_bytes == 16:
        raise ImageError("a BMP of OS/2: save it as a 24-bit BMP or as PNG")
    if len(data) < _FILE_HEADER_BYTES + header_bytes:
        raise ImageError(f"truncated: {len(data)} bytes are no BMP header")
    width, height, bits, compression = _picture(data, header_bytes)
    # Colour masks say whether the fourth byte of a pixel is its opacity; without them it may be.
    has_alpha_mask = header_bytes >= 56 and any(data[_ALPHA_MASK_OFFSET : _ALPHA_MASK_OFFSET + 4])
    header = ImageHeader(abs(height), width, bits == 32 and (compression != _BIT_FIELDS or has_alpha_mask))
    check_frame_size(header.height_px, width)
    _check_kind(data, bits, compression)
    has_palette = bits <= 8
    if offset < _FILE_HEADER_BYTES + header_bytes + has_palette:
        raise ImageError("damaged: its header says that the pixels begin inside the header")
    stride_bytes = (width * bits + 31) // 32 * 4
    if offset + stride_bytes * header.height_px > len(data):
        if len(data) < declared_bytes:
            raise ImageError(f"truncated: its header says {declared_bytes} bytes, it has {len(data)}")
        raise short_data_error(header, len(data))
    return header


def _picture(data: NDArray[np.uint8], header_bytes: int) -> tuple[int, int, int, int]:
    """Width, height (negative: stored from the top), bits a pixel and compression."""
    if header_bytes == 12:
        width, height, _, bits = _OS2_HEADER.unpack_from(data.data, _FILE_HEADER.size)
        return width, height, bits, _PLAIN
    width, height, _, bits, compression = _INFO_HEADER.unpack_from(data.data, _FILE_HEADER.size)
    return width, height, bits, compression


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


JPEG_MAGIC = b"\xff\xd8\xff"

_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_NO_FRAME_MARKERS = (0xC4, 0xC8, 0xCC)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAME = struct.Struct(">BHHB")
# Eight rows and columns share one code of at least one bit.
_MAX_PIXELS_PER_BYTE = 512
# The decoder reads ahead into a 64-bit register. Ones are no code of any picture.
_READ_AHEAD = np.frombuffer(b"\xff\x00" * 8, np.uint8)


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    end: int
    """Its content is bytes [start, end) of the file."""


def read_jpeg(data: NDArray[np.uint8]) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Check a whole JPEG file, which starts with :data:`JPEG_MAGIC`.

    Returns
    -------
    header, decodable
        The header, and what to decode: of a file with one scan its data without the end mark, so that the decoder
        notices its end; of a progressive one `data` itself.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, too large, of 12 bits or CMYK.
    """
    segments = list(_segments(data))
    frame = next((one for one in segments if 0xC0 <= one.marker <= 0xCF and one.marker not in _NO_FRAME_MARKERS), None)
    if frame is None or frame.end - frame.start < _FRAME.size:
        raise ImageError("damaged: the JPEG declares no picture")
    bits, height, width, num_channels = _FRAME.unpack_from(data.data, frame.start)
    if bits != 8:
        raise ImageError(f"{bits} bits a channel: convert it to 8 bits a channel first")
    if num_channels == 4:
        raise ImageError("CMYK, the colours of a printer: convert it to RGB first")
    header = ImageHeader(height_px=height, width_px=width)
    check_frame_size(height, width)
    if height * width > len(data) * _MAX_PIXELS_PER_BYTE:
        raise short_data_error(header, len(data))
    scan = segments[-1]
    is_one_scan = frame.marker in _SEQUENTIAL and data[scan.start] == num_channels
    return header, _with_open_end(data, scan) if is_one_scan else data


def _segments(data: NDArray[np.uint8]) -> Iterator[_Segment]:
    """The segments up to the first scan's, which is the last."""
    view = data.data
    position = 2
    while position + 4 <= len(data):
        mark, marker, length = struct.unpack_from(">BBH", view, position)
        if mark != 0xFF:
            raise ImageError("damaged: the header of the JPEG is no chain of segments")
        if marker == 0xFF:
            position += 1
            continue
        segment = _Segment(marker, position + 4, position + 2 + length)
        if segment.end >= len(data) or length < 2:
            break
        yield segment
        if marker == _START_OF_SCAN:
            return
        position = segment.end
    raise ImageError("truncated: the JPEG ends in its header")


def _with_open_end(data: NDArray[np.uint8], scan: _Segment) -> NDArray[np.uint8]:
    """The file up to the end of its only scan; `data` if that is not followed by the end of the image."""
    coded = data[scan.end :]
    marks = np.flatnonzero(coded[:-1] == 0xFF)
    following = coded[marks + 1]
    is_marker = (following != 0) & ((following < 0xD0) | (following > 0xD7))
    if not is_marker.any():
        raise ImageError("truncated: the JPEG has no end mark")
    first = int(np.argmax(is_marker))
    end = int(marks[first])
    while coded[end + 1] == 0xFF and end + 2 < len(coded):
        end += 1
    if coded[end + 1] != _END_OF_IMAGE:
        return data
    return np.concatenate([data[: scan.end + int(marks[first])], _READ_AHEAD])


PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_HEADER = struct.Struct(">IIBBBBB")
_CHUNK_HEAD = struct.Struct(">I4s")
_NUMBER = struct.Struct(">I")
_FRAME_BYTES_OF_CHUNK = 12
_DECODED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLOUR_TYPES_WITH_ALPHA = (4, 6)
# Deflate's limit: a copy of 258 bytes takes two bits.
_MAX_BYTES_PER_PACKED_BYTE = 1032


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    end: int
    """The whole chunk is bytes [start, end) of the file."""

    def content(self, data: memoryview) -> memoryview:
        return data[self.start + 8 : self.end - 4]


def read_png(data: NDArray[np.uint8]) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Check a whole PNG file, which starts with :data:`PNG_MAGIC`.

    Returns
    -------
    header, decodable
        The header, and the file without chunks that determine no pixel.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, too large, 16-bit or an animation.
    """
    view = data.data
    chunks = list(_chunks(view))
    kinds = {chunk.kind for chunk in chunks}
    if chunks[0].kind != b"IHDR" or chunks[0].end - chunks[0].start != _FRAME_BYTES_OF_CHUNK + _HEADER.size:
        raise ImageError("damaged: the PNG does not start with its header")
    width, height, bits, colour_type, *_ = _HEADER.unpack(chunks[0].content(view))
    if bits == 16:
        raise ImageError("16 bits a channel: convert it to 8 bits a channel first")
    orientation = 1
    for chunk in chunks:
        if chunk.kind == b"acTL":
            content = chunk.content(view)
            num_frames = _NUMBER.unpack_from(content)[0] if len(content) >= _NUMBER.size else 0
            if num_frames > 1:
                raise ImageError(
                    f"an animation of {num_frames} frames: save the one that is meant as an image of its own"
                )
        elif chunk.kind == b"eXIf":
            orientation = exif_orientation(chunk.content(view).tobytes())
    has_alpha = colour_type in _COLOUR_TYPES_WITH_ALPHA or b"tRNS" in kinds
    header = ImageHeader(height, width, has_alpha, orientation)
    check_frame_size(height, width)
    row_bytes = (width * bits * _CHANNELS_OF_COLOUR_TYPE.get(colour_type, 1) + 7) // 8
    packed_bytes = sum(chunk.end - chunk.start for chunk in chunks if chunk.kind == b"IDAT")
    if height * row_bytes > packed_bytes * _MAX_BYTES_PER_PACKED_BYTE:
        raise short_data_error(header, len(data))
    if kinds <= _DECODED:
        return header, data
    kept = [data[chunk.start : chunk.end] for chunk in chunks if chunk.kind in _DECODED]
    return header, np.concatenate([data[: len(PNG_MAGIC)], *kept])


def _chunks(data: memoryview) -> Iterator[_Chunk]:
    """The chunks up to the end mark, after comparing their checksums."""
    start = len(PNG_MAGIC)
    while start + _FRAME_BYTES_OF_CHUNK <= len(data):
        length, kind = _CHUNK_HEAD.unpack_from(data, start)
        end = start + _FRAME_BYTES_OF_CHUNK + length
        if end > len(data):
            break
        if zlib.crc32(data[start + 4 : end - 4]) != _NUMBER.unpack_from(data, end - 4)[0]:
            raise ImageError(f"damaged: a checksum of the PNG is wrong {start} bytes from its start")
        yield _Chunk(kind, start, end)
        if kind == b"IEND":
            return
        start = end
    raise ImageError("truncated: the PNG has no end mark")
