"""Every kind of odd and bad image file: read as Pillow reads it, or refused with a reason in one line."""

from __future__ import annotations

import contextlib
import random
import tracemalloc

import numpy as np
import pytest

from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.decoding.headers import MAX_MEGAPIXELS, check_frame_size
from leukemia_data.errors import ImageError

from .bad_images import Row, bmp, jpeg_of_declared_size, pillow, png, png_with, read_rows, refused_rows

READ, REFUSED = read_rows(), refused_rows()


def decode(data: bytes) -> np.ndarray:
    return decode_rgb(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("row", READ, ids=[row.name for row in READ])
def test_odd_files_are_read(row: Row) -> None:
    decoded = decode(row.data)
    assert row.pixels is not None
    assert (decoded.shape, decoded.dtype) == (row.pixels.shape, np.uint8)
    assert np.abs(decoded.astype(int) - row.pixels).max() <= row.tolerance


@pytest.mark.parametrize("row", REFUSED, ids=[row.name for row in REFUSED])
def test_bad_files_are_refused_with_the_reason(row: Row, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ImageError, match=row.reason) as caught:
        decode(row.data)
    assert str(caught.value).isprintable()
    assert not recwarn.list


@pytest.mark.parametrize("make", [bmp, png, jpeg_of_declared_size])
def test_what_a_header_declares_takes_no_memory(make) -> None:
    data = np.frombuffer(make(8000, 9000) if make is jpeg_of_declared_size else make(8000, 9000, b""), np.uint8)
    tracemalloc.start()
    with pytest.raises(ImageError, match="8000 x 9000"):
        decode_rgb(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_the_largest_frame() -> None:
    check_frame_size(MAX_MEGAPIXELS * 1000, 1000)
    with pytest.raises(ImageError, match=f"{MAX_MEGAPIXELS} megapixels"):
        check_frame_size(MAX_MEGAPIXELS * 1000, 1001)


def test_a_flipped_bit_of_a_png_is_never_passed_over(make_noise, rng) -> None:
    data = pillow(make_noise(rng, 24, 20), "PNG")
    for position in range(8, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ImageError):
            decode(bytes(damaged))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "TIFF"])
def test_damage_of_any_kind_ends_in_pixels_or_in_a_reason(kind, make_noise, rng, capfd) -> None:
    chance = random.Random(20261122)
    data = pillow(make_noise(rng, 20, 16), kind)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            position = chance.randrange(min(len(damaged), chance.choice((64, 400, len(damaged)))))
            damaged[position : position + chance.choice((0, 1, 4))] = chance.choice(
                (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", chance.randbytes(1))
            )
        with contextlib.suppress(ImageError):
            decoded = decode(bytes(damaged[: chance.choice((len(damaged), len(damaged) - 9))]))
            assert decoded.dtype == np.uint8
            assert decoded.ndim == 3
    # The decoders' own messages bypass Python.
    capfd.readouterr()


def test_a_png_is_read_without_what_decides_no_pixel() -> None:
    """A library's message about a broken colour profile would be one line on stderr per image."""
    row = next(row for row in READ if row.name.startswith("PNG with a colour profile"))
    np.testing.assert_array_equal(decode(row.data), decode(png_with(b"")))
