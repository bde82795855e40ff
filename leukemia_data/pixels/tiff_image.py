"""Decode TIFF files, by Pillow.

OpenCV hands out pictures whose compressed data ended early, filled with whatever was in memory. Pillow refuses them,
turns pictures as the file says, and knows the kinds of TIFF that are none of ours.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from leukemia_data.errors import ImageError
from leukemia_data.pixels.image_header import check_frame_size

TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_WIDTH_TAG, _HEIGHT_TAG, _BITS_TAG, _CHANNELS_TAG, _SAMPLE_FORMAT_TAG = 256, 257, 258, 277, 339
_SUBFILE_KIND_TAG, _COMPRESSION_TAG, _PLANES_TAG = 254, 259, 284
_STRIPS_TAG, _STRIP_SIZES_TAG, _ROWS_PER_STRIP_TAG = 273, 279, 278
_TILES_TAG, _TILE_SIZES_TAG, _TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 324, 325, 322, 323
_THUMBNAIL_OR_MASK = 1 | 4
_MOST_PAGES_LOOKED_AT = 64
_UNSIGNED = 1
_NUMBERS_IN_WORDS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_UNCOMPRESSED = 1
_PLANE_AFTER_PLANE = 2
_COLOUR_MODES = ("1", "L", "P", "RGB", "YCbCr")
_ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa", "La")

# Odd entries of tables that decide no pixel; they would be told on stderr, as Python's warnings, without a file's name.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def decode_tiff(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a TIFF or BigTIFF file.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file; it starts with one of :data:`TIFF_MAGICS`.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB, turned as the file's orientation says.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, too large, of more than one page, transparent, or neither grey nor colour
        of at most 8 bits a channel.
    """
    try:
        with TiffImageFile(io.BytesIO(data.data)) as picture:
            _check(picture)
            _check_whole(picture, len(data))
            _check_pages(picture)
            return _rgb(picture)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's reader ends in whatever a damaged table leads it into.
        raise ImageError("cannot be decoded: truncated or damaged") from error


def _check(picture: TiffImageFile) -> None:
    check_frame_size(picture.height, picture.width)
    tags = picture.tag_v2
    bits = max(tags.get(_BITS_TAG, (1,)))
    odd_formats = set(tags.get(_SAMPLE_FORMAT_TAG, ())) - {_UNSIGNED}
    if odd_formats:
        numbers = _NUMBERS_IN_WORDS.get(max(odd_formats), "numbers of an unknown kind")
        raise ImageError(f"its samples are {numbers}: convert it to 8 bits a channel first")
    if bits > 8:
        raise ImageError(f"{bits} bits a channel: convert it to 8 bits a channel first")
    if picture.mode not in _COLOUR_MODES + _ALPHA_MODES:
        raise ImageError(f"its colours are {picture.mode}: convert it to RGB first")


def _check_whole(picture: TiffImageFile, num_bytes: int) -> None:
    """Refuse a file that lacks a strip or tile, or its end: Pillow would leave black what none covers."""
    tags = picture.tag_v2
    is_tiled = _TILES_TAG in tags
    starts = tags.get(_TILES_TAG if is_tiled else _STRIPS_TAG, ())
    sizes = tags.get(_TILE_SIZES_TAG if is_tiled else _STRIP_SIZES_TAG, ())
    lacks_bytes = tags.get(_COMPRESSION_TAG, _UNCOMPRESSED) == _UNCOMPRESSED and sum(sizes) < _bytes_needed(picture)
    if len(starts) < _num_parts_needed(picture) or lacks_bytes:
        raise ImageError(f"damaged: its header declares {picture.width} x {picture.height} pixels, more than it holds")
    if any(start + size > num_bytes for start, size in zip(starts, sizes, strict=False)):
        raise ImageError(f"truncated: its header speaks of more than the {num_bytes} bytes it has")


def _num_parts_needed(picture: TiffImageFile) -> int:
    """Strips or tiles that cover the picture."""
    tags = picture.tag_v2
    height, width = _stored_size(picture)
    num_planes = int(tags.get(_CHANNELS_TAG, 1)) if tags.get(_PLANES_TAG) == _PLANE_AFTER_PLANE else 1
    if _TILES_TAG in tags:
        return num_planes * -(-height // int(tags[_TILE_HEIGHT_TAG])) * -(-width // int(tags[_TILE_WIDTH_TAG]))
    return num_planes * -(-height // int(tags.get(_ROWS_PER_STRIP_TAG, height)))


def _bytes_needed(picture: TiffImageFile) -> int:
    """Bytes of the picture without compression, rows of single bits rounded down."""
    height, width = _stored_size(picture)
    return height * (width * sum(picture.tag_v2.get(_BITS_TAG, (1,))) // 8)


def _stored_size(picture: TiffImageFile) -> tuple[int, int]:
    """Height and width before the orientation turns them; `picture.height` is that of the upright picture."""
    return int(picture.tag_v2[_HEIGHT_TAG]), int(picture.tag_v2[_WIDTH_TAG])


def _check_pages(picture: TiffImageFile) -> None:
    """Refuse a second picture; thumbnails, smaller copies and masks of the first may follow it."""
    try:
        for page in range(1, _MOST_PAGES_LOOKED_AT):
            picture.seek(page)
            if not picture.tag_v2.get(_SUBFILE_KIND_TAG, 0) & _THUMBNAIL_OR_MASK:
                raise ImageError("several pages: save the one that is meant as an image of its own")
    except EOFError:
        pass
    picture.seek(0)


def _rgb(picture: TiffImageFile) -> NDArray[np.uint8]:
    if picture.mode in _ALPHA_MODES:
        with_alpha = np.asarray(picture.convert("RGBA"), np.uint8)
        if (with_alpha[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.ascontiguousarray(with_alpha[..., :3])
    # Pillow's own copy of a picture that is RGB already would cost as much as decoding it.
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), np.uint8)
