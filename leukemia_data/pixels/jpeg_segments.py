"""The segments of a JPEG file: what they declare, and an end that shows whether its data suffice.

libjpeg fills up what is missing of a picture with grey and calls that a success if only the end mark is there. Where
it can be arranged, the end mark is therefore taken away before decoding: a whole picture never gets to it, and a
decoder that wants more data than there are says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.pixels.image_header import ImageHeader, check_frame_size, short_data_error

JPEG_MAGIC = b"\xff\xd8\xff"

_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_NO_FRAME_MARKERS = (0xC4, 0xC8, 0xCC)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAME = struct.Struct(">BHHB")
# Eight rows and columns share one code of at least one bit.
_MOST_PIXELS_PER_BYTE = 512
# What the decoder may read ahead: a 64-bit register. Ones are no code of any picture, so nothing is made of them.
_READ_AHEAD = np.frombuffer(b"\xff\x00" * 8, np.uint8)


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    end: int
    """Its content is bytes [start, end) of the file."""


def read_jpeg(data: NDArray[np.uint8]) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Check a JPEG file and give it an end that the decoder cannot run past unnoticed.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file; it starts with :data:`JPEG_MAGIC`.

    Returns
    -------
    header, decodable
        What the file declares, and what to give the decoder: for the usual files of one scan their data without the
        end mark, for progressive ones `data` itself.

    Raises
    ------
    ImageError
        If the file is truncated, too large, of 12 bits, or holds neither grey nor colour (CMYK).
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
    if height * width > len(data) * _MOST_PIXELS_PER_BYTE:
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
    """The file up to the end of its only scan; `data` where something else than the end of the image follows."""
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
