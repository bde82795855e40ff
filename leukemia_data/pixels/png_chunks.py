"""The chunks of a PNG file: what they declare, whether all are there and whole, and which a decoder gets to see.

Text, colour profiles and times decide no pixel here, but a decoder would unpack or complain about them; where a file
has any, it is decoded without them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.pixels.exif import exif_orientation
from leukemia_data.pixels.image_header import ImageHeader, check_frame_size, short_data_error

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_HEADER = struct.Struct(">IIBBBBB")
_CHUNK_HEAD = struct.Struct(">I4s")
_NUMBER = struct.Struct(">I")
_FRAME_BYTES_OF_CHUNK = 12
_DECODED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLOUR_TYPES_WITH_ALPHA = (4, 6)
# Deflate cannot do better: a copy of 258 bytes takes two bits.
_MOST_BYTES_PER_PACKED_BYTE = 1032


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    end: int
    """The whole chunk is bytes [start, end) of the file."""

    def content(self, data: memoryview) -> memoryview:
        return data[self.start + 8 : self.end - 4]


def read_png(data: NDArray[np.uint8]) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Check a PNG file and leave out what decides no pixel.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file; it starts with :data:`PNG_MAGIC`.

    Returns
    -------
    header, decodable
        What the file declares, and a PNG file with the same pixels for the decoder; `data` itself where it has
        nothing else.

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
            _refuse_animation(chunk.content(view))
        elif chunk.kind == b"eXIf":
            orientation = exif_orientation(chunk.content(view).tobytes())
    has_alpha = colour_type in _COLOUR_TYPES_WITH_ALPHA or b"tRNS" in kinds
    header = ImageHeader(height, width, has_alpha, orientation)
    check_frame_size(height, width)
    row_bytes = (width * bits * _CHANNELS_OF_COLOUR_TYPE.get(colour_type, 1) + 7) // 8
    packed_bytes = sum(chunk.end - chunk.start for chunk in chunks if chunk.kind == b"IDAT")
    if height * row_bytes > packed_bytes * _MOST_BYTES_PER_PACKED_BYTE:
        raise short_data_error(header, len(data))
    return header, data if kinds <= _DECODED else _without_the_rest(data, chunks)


def _chunks(data: memoryview) -> Iterator[_Chunk]:
    """Every chunk up to the end mark, its checksum compared."""
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


def _refuse_animation(content: memoryview) -> None:
    num_frames = _NUMBER.unpack_from(content)[0] if len(content) >= _NUMBER.size else 0
    if num_frames > 1:
        raise ImageError(f"an animation of {num_frames} frames: save the one that is meant as an image of its own")


def _without_the_rest(data: NDArray[np.uint8], chunks: list[_Chunk]) -> NDArray[np.uint8]:
    kept = [data[chunk.start : chunk.end] for chunk in chunks if chunk.kind in _DECODED]
    return np.concatenate([data[: len(PNG_MAGIC)], *kept])
