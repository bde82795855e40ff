from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.decoding.decode import decode_rgb, one_opencv_thread
from leukemia_data.errors import ImageError


@pytest.fixture
def image() -> np.ndarray:
    """Smooth colours, so that JPEG keeps them: 40 rows, 30 columns, red on the left and blue below."""
    rows, columns = np.mgrid[:40, :30]
    return np.dstack([255 - 8 * columns, np.full((40, 30), 60), 6 * rows]).astype(np.uint8)


def as_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def pillow_bytes(pixels: np.ndarray | PillowImage.Image, file_format: str, **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, PillowImage.Image) else PillowImage.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def assert_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_rgb(as_bytes(data))
    assert "\n" not in str(caught.value)


# --- what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["BMP", "PNG", "TIFF"])
def test_lossless_formats_give_rgb_as_pillow_wrote_it(image, file_format):
    decoded = decode_rgb(as_bytes(pillow_bytes(image, file_format)))
    np.testing.assert_array_equal(decoded, image)
    assert decoded.dtype == np.uint8


def test_jpeg_gives_rgb_in_that_order(image):
    decoded = decode_rgb(as_bytes(pillow_bytes(image, "JPEG", quality=95, subsampling=0)))
    assert np.abs(decoded.astype(int) - image).max() <= 8


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(image, compression):
    np.testing.assert_array_equal(decode_rgb(as_bytes(pillow_bytes(image, "TIFF", compression=compression))), image)


def test_a_bmp_stored_top_down(image):
    height, width = image.shape[:2]
    stride = (3 * width + 3) // 4 * 4
    rows = np.zeros((height, stride), np.uint8)
    rows[:, : 3 * width] = image[..., ::-1].reshape(height, -1)
    header = b"BM" + struct.pack("<IHHI", 54 + rows.size, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(decode_rgb(as_bytes(header + rows.tobytes())), image)


@pytest.mark.parametrize("file_format", ["BMP", "PNG", "TIFF", "JPEG"])
def test_grey_gives_three_equal_channels(image, file_format):
    grey = image[..., 0]
    decoded = decode_rgb(as_bytes(pillow_bytes(grey, file_format)))
    assert decoded.shape == (40, 30, 3)
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 1])
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])
    assert np.abs(decoded[..., 0].astype(int) - grey).max() <= (4 if file_format == "JPEG" else 0)


@pytest.mark.parametrize("file_format", ["BMP", "PNG", "TIFF"])
def test_palettes_are_looked_up(image, file_format):
    palette = PillowImage.fromarray(image).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(as_bytes(pillow_bytes(palette, file_format))), expected)


@pytest.mark.parametrize("file_format", ["BMP", "PNG", "TIFF"])
def test_black_and_white(file_format):
    pixels = np.indices((16, 24)).sum(axis=0) % 3 == 0
    decoded = decode_rgb(as_bytes(pillow_bytes(pixels, file_format)))
    np.testing.assert_array_equal(decoded, np.repeat(pixels[..., None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_opaque_alpha_is_dropped(image, file_format):
    with_alpha = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode_rgb(as_bytes(pillow_bytes(with_alpha, file_format))), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_by_exif(image, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    data = pillow_bytes(image, "JPEG", quality=95, subsampling=0, exif=exif.tobytes())
    # By the EXIF standard: which corner the stored row 0 / column 0 is.
    upright = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1),
        7: image.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(image, 1),
    }[orientation]
    decoded = decode_rgb(as_bytes(data))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 8


def test_the_input_is_left_alone(image):
    data = as_bytes(pillow_bytes(image, "BMP")).copy()
    before = data.copy()
    decode_rgb(data)
    np.testing.assert_array_equal(data, before)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_transparent_pixels_are_refused(image, file_format):
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[0, 0] = 254
    assert_refused(pillow_bytes(np.dstack([image, alpha]), file_format), "transparent")


def test_transparent_grey_is_refused(image):
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[5:] = 0
    assert_refused(pillow_bytes(np.dstack([image[..., 0], alpha]), "PNG"), "transparent")


def test_a_transparent_colour_is_refused(image):
    assert_refused(pillow_bytes(image, "PNG", transparency=tuple(image[0, 0].tolist())), "transparent")


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_a_channel_are_refused(suffix, channels):
    deep = np.full((20, 20, channels), 30_000, np.uint16)
    assert_refused(cv2.imencode(suffix, deep)[1].tobytes(), "16 bits a channel: .*8 bits")


def test_floats_are_refused():
    assert_refused(pillow_bytes(np.full((20, 20), 0.5, np.float32), "TIFF"), "floating-point.*8 bits")


def encoded(image: np.ndarray, kind: str) -> bytes:
    if kind == "progressive JPEG":
        return pillow_bytes(image, "JPEG", progressive=True)
    if kind == "LZW TIFF":
        return pillow_bytes(image, "TIFF", compression="tiff_lzw")
    return pillow_bytes(image, kind)


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "LZW TIFF", "JPEG", "progressive JPEG"])
def test_truncated_files_are_refused_wherever_they_end(image, kind):
    data = encoded(image, kind)
    decode_rgb(as_bytes(data))
    ends = {*range(40), *range(40, len(data), max(len(data) // 150, 1)), len(data) - 2, len(data) - 1}
    for end in sorted(ends):
        with pytest.raises(ImageError):
            decode_rgb(as_bytes(data[:end]))


def test_the_message_of_a_truncated_bmp_has_the_missing_bytes(image):
    data = pillow_bytes(image, "BMP")
    assert_refused(data[:-100], f"truncated: its header says {len(data)} bytes, it has {len(data) - 100}")


def test_a_bmp_without_its_size_is_not_half_read(image):
    data = bytearray(pillow_bytes(image, "BMP"))
    data[2:6] = bytes(4)
    np.testing.assert_array_equal(decode_rgb(as_bytes(bytes(data))), image)
    assert_refused(bytes(data[: len(data) // 2]), "truncated")


def test_a_png_with_a_flipped_byte_is_refused(make_noise, rng):
    data = bytearray(pillow_bytes(make_noise(rng, 40, 40), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert_refused(bytes(data), "damaged")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Path,label\n./1.bmp,0\n", "not a BMP, PNG, TIFF or JPEG"),
        (b"\x00" * 5000, "not a BMP"),
        (b"GIF89a" + bytes(100), "not a BMP"),
        (b"BM", "truncated|decoded"),
        (b"BMI of the patients: 21, 24, 19, 30 and so on, for many more lines", "not a BMP file at all"),
        (b"\xff\xd8\xff", "truncated: the JPEG"),
        (b"II*\x00", "decoded"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    assert_refused(data, reason)


@pytest.mark.parametrize("file_format", ["BMP", "PNG", "TIFF", "JPEG"])
def test_an_all_black_image_is_refused(file_format):
    assert_refused(pillow_bytes(np.zeros((30, 30, 3), np.uint8), file_format), "black")


def test_one_faint_pixel_is_enough():
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[7, 8, 2] = 1
    np.testing.assert_array_equal(decode_rgb(as_bytes(pillow_bytes(pixels, "BMP"))), pixels)


# --- C-NMC ----------------------------------------------------------------------------------------------------


def test_generated_cells(sample_tree):
    path = next(sample_tree.rglob("*.bmp"))
    decoded = decode_rgb(np.fromfile(path, np.uint8))
    np.testing.assert_array_equal(decoded, np.asarray(PillowImage.open(path).convert("RGB")))


@pytest.mark.real
def test_real_cells_are_read_as_pillow_reads_them(real_data):
    paths = sorted(path for path in real_data.rglob("UID_*") if path.suffix in (".bmp", ".png"))
    assert paths
    for path in paths[:: max(len(paths) // 30, 1)]:
        with PillowImage.open(path) as picture:
            expected = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(decode_rgb(np.fromfile(path, np.uint8)), expected)


def test_a_machine_without_memory_makes_no_bad_image(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_bytes(pillow_bytes(image, "BMP"))

    def refuse(*arguments: object) -> None:
        error = cv2.error("OpenCV: Insufficient memory")
        error.code, error.err = cv2.Error.StsNoMem, "Failed to allocate 3600 bytes"
        raise error

    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(MemoryError):
        decode_rgb(data)


def test_contexts_of_one_opencv_thread_may_overlap():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first, second = one_opencv_thread(), one_opencv_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
