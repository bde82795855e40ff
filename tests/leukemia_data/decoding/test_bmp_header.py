"""Fields of a BMP's header that are used and ignored, compared with Pillow and OpenCV."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.decoding.decode import decode_frame
from leukemia_data.errors import ImageError

from .bad_images import bgrx, cell, pillow

FILE_SIZE, OFFSET, PLANES, IMAGE_SIZE, RESERVED = (2, "<I"), (10, "<I"), (26, "<H"), (34, "<I"), (6, "<I")
MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)


def bmp_with(field: tuple[int, str], value: int) -> bytes:
    data = bytearray(pillow(cell(), "BMP"))
    struct.pack_into(field[1], data, field[0], value)
    return bytes(data)


def decode(data: bytes) -> np.ndarray:
    return decode_frame(np.frombuffer(data, np.uint8))


def assert_read_as_others_do(data: bytes) -> None:
    expected = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), expected)
    np.testing.assert_array_equal(decode(data), expected)


def bmp_of_32_bits(header_bytes: int, masks: bytes, fourth_byte: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", header_bytes, 30, 40, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    info = info.ljust(header_bytes, b"\0")
    rows = bgrx(fourth_byte)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info)) + info + rows


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (FILE_SIZE, (0, 1, 54, 3736, 10**9, 2**32 - 1)),
        (IMAGE_SIZE, (0, 1, 3679, 3681, 2**32 - 1)),
        (PLANES, (0, 2, 2**16 - 1)),
        (RESERVED, (1, 2**32 - 1)),
    ],
)
def test_fields_that_decide_nothing(field: tuple[int, str], values: tuple[int, ...]) -> None:
    for value in values:
        np.testing.assert_array_equal(decode(bmp_with(field, value)), cell())
        assert_read_as_others_do(bmp_with(field, value))


def test_rows_may_begin_anywhere_after_the_header_and_end_before_the_file() -> None:
    data = pillow(cell(), "BMP")
    for gap in (1, 3, 1000):
        shifted = data[:10] + struct.pack("<I", 54 + gap) + data[14:54] + bytes(gap) + data[54:] + b"tail"
        assert_read_as_others_do(shifted)


@pytest.mark.parametrize("declared", [0, 3734, 3736, 2**32 - 1])
def test_missing_rows_are_reported_whatever_the_header_declares(declared: int) -> None:
    whole = bmp_with(FILE_SIZE, declared)
    for end in (len(whole) - 1, len(whole) - 92, 60):
        with pytest.raises(ImageError, match="truncated"):
            decode(whole[:end])


@pytest.mark.parametrize("offset", [0, 1, 14, 53])
def test_pixels_cannot_begin_inside_the_header(offset: int) -> None:
    with pytest.raises(ImageError, match="begin inside the header"):
        decode(bmp_with(OFFSET, offset))


def test_a_palette_needs_room() -> None:
    data = bytearray(pillow(PillowImage.fromarray(cell()).quantize(16), "BMP"))
    struct.pack_into("<I", data, 10, 54)
    with pytest.raises(ImageError, match="begin inside the header"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("header_bytes", "masks"), [(40, MASKS), (52, MASKS), (56, MASKS + bytes(4)), (108, MASKS + bytes(4))]
)
def test_a_fourth_byte_without_a_mask_is_no_alpha(header_bytes: int, masks: bytes) -> None:
    data = bmp_of_32_bits(header_bytes, masks, 7)
    np.testing.assert_array_equal(decode(data), cell())
    assert_read_as_others_do(data)


def test_a_fourth_byte_with_a_mask_is_alpha() -> None:
    alpha = struct.pack("<I", 0xFF000000)
    np.testing.assert_array_equal(decode(bmp_of_32_bits(108, MASKS + alpha, 255)), cell())
    with pytest.raises(ImageError, match="transparent"):
        decode(bmp_of_32_bits(108, MASKS + alpha, 7))
