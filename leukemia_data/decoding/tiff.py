"""TIFF files: which kinds are read, and their pixels by Pillow."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from leukemia_data.decoding.headers import check_frame_size, turn_upright
from leukemia_data.decoding.tiff_directories import TiffDirectory, check_single_picture, read_directories
from leukemia_data.errors import ImageError

_BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _EXTRA_CHANNELS, _SAMPLE_FORMAT = 258, 259, 262, 277, 338, 339
_INK_SET, _SUBSAMPLING = 332, 530

_UNCOMPRESSED, _OLD_JPEG = 1, 6
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6

_TO_8_BITS = "convert it to 8 bits a channel first"
_TO_RGB = "convert it to RGB first"
_TO_KNOWN_CODEC = "save it uncompressed, with LZW or with deflate"
_SAVE_ONE = "save the one that is meant as an image of its own"

_NUMBERS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}

_FAX = (2, 3, 4, 32771)
_OPTIONAL_CODECS = {34925: "LZMA", 50000: "ZSTD"}
"""Compressions that Pillow reads where it was built with them."""
_READ_COMPRESSIONS = {_UNCOMPRESSED, *_FAX, 5, _OLD_JPEG, 7, 8, 32773, 32809, 32946, *_OPTIONAL_CODECS}
# https://www.awaresystems.be/imaging/tiff/tifftags/compression.html and the list of tifffile.
_COMPRESSIONS = {
    number: name
    for name, numbers in {
        "JBIG": (9, 10, 34661),
        "JPEG XR": (22610,),
        "NeXT run lengths": (32766,),
        "Pixar film": (32908,),
        "Pixar log": (32909,),
        "JPEG 2000": (33003, 33004, 33005, 34712),
        "JPEG of another form": (33007,),
        "LogLuv": (34676, 34677),
        "Nikon's raw format": (34713,),
        "LERC": (34887,),
        "lossy JPEG of a raw format": (34892,),
        "ZSTD under an early number": (34926,),
        "WebP": (34927, 50001),
        "PNG": (34933,),
        "JPEG XL": (34934, 50002, 52546),
        "Kodak's raw format": (65000,),
        "Pentax's raw format": (65535,),
    }.items()
    for number in numbers
}

_COLOURS = {
    4: "those of a mask",
    _INKS: "CMYK",
    8: "Lab",
    9: "Lab",
    10: "Lab",
    32803: "raw values of a sensor (CFA)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "raw values of a sensor",
    51177: "depths",
    52527: "those of a mask",
}
_COLOUR_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}
_GREY_AND_PALETTE_BITS = (1, 2, 4, 8)
_ALPHA = {1, 2, 999}  # 999 is Corel Draw's number.
_MAX_CHANNELS = 6
_COLOURS_UNKNOWN = -1


def _compression(tags: TiffDirectory) -> int:
    return tags.integer(_COMPRESSION, _UNCOMPRESSED)


def _photometric(tags: TiffDirectory) -> int:
    """What the samples mean, as TIFF numbers it; -1 if the file does not say and decoders disagree."""
    compression = _compression(tags)
    by_compression = _YCBCR if compression == _OLD_JPEG else _WHITE_IS_ZERO if compression in _FAX else _COLOURS_UNKNOWN
    return tags.integer(_PHOTOMETRIC, by_compression)


def _num_channels(tags: TiffDirectory) -> int:
    is_old_colour = _compression(tags) == _OLD_JPEG and _photometric(tags) in (_RGB, _YCBCR)
    return tags.integer(_CHANNELS, 3 if is_old_colour else 1)


def _channel_bits(tags: TiffDirectory) -> tuple[int, ...]:
    """Bits of each channel; a single value in the file is that of all."""
    channels = _num_channels(tags)
    bits = tags.integers(_BITS) or (8 if _compression(tags) == _OLD_JPEG else 1,)
    if len(bits) == 1:
        # A damaged header may declare billions of channels.
        bits = bits * min(channels, _MAX_CHANNELS + 1)
    if channels < 1 or len(bits) < min(channels, _MAX_CHANNELS + 1):
        raise ImageError(f"damaged: its header declares {channels} channels, and the depth of {len(bits)}")
    return bits[:channels]


def _check_numbers(tags: TiffDirectory) -> None:
    # 1 is unsigned, 4 "undefined", which readers take for unsigned (TIFF 6.0, SampleFormat).
    odd = set(tags.integers(_SAMPLE_FORMAT)) - {1, 4}
    if odd:
        numbers = _NUMBERS.get(max(odd), "numbers of an unknown kind")
        raise ImageError(f"its samples are {numbers}: {_TO_8_BITS}")


def _check_colours(tags: TiffDirectory) -> None:
    number = _photometric(tags)
    if number == _COLOURS_UNKNOWN:
        raise ImageError(f"its header does not tell whether it is grey, white on black or RGB: {_TO_RGB}")
    if number == _INKS and tags.integer(_INK_SET, 1) != 1:
        raise ImageError(f"its colours are inks other than CMYK: {_TO_RGB}")
    if number not in _COLOUR_CHANNELS:
        raise ImageError(f"its colours are {_COLOURS.get(number, f'of an unknown kind (number {number})')}: {_TO_RGB}")


def _check_depth(tags: TiffDirectory) -> None:
    bits = _channel_bits(tags)
    if len(set(bits)) > 1:
        raise ImageError(f"channels of {', '.join(map(str, bits))} bits: {_TO_8_BITS}")
    is_grey_or_palette = _COLOUR_CHANNELS[_photometric(tags)] == 1
    if bits[0] not in (_GREY_AND_PALETTE_BITS if is_grey_or_palette and len(bits) == 1 else (8,)):
        raise ImageError(f"{bits[0]} bits a channel: {_TO_8_BITS}")


def _check_channels(tags: TiffDirectory) -> None:
    """Refuse channels of unknown colour, of which decoders show the first or the first three."""
    colours, channels = _COLOUR_CHANNELS[_photometric(tags)], _num_channels(tags)
    # A grey JPEG may call itself YCbCr.
    colours = 1 if _photometric(tags) == _YCBCR and channels == 1 else colours
    if channels < colours:
        raise ImageError(f"damaged: its header declares {channels} channels of a colour picture")
    has_alpha = tags.integer(_EXTRA_CHANNELS, 2 if colours == 3 else 0) in _ALPHA
    if channels > _MAX_CHANNELS or (colours == 1 and channels > 1 + has_alpha):
        raise ImageError(f"{channels} channels, not known as grey or RGB: {_SAVE_ONE}")


def _check_compression(tags: TiffDirectory) -> None:
    compression = _compression(tags)
    if compression not in _READ_COMPRESSIONS:
        name = _COMPRESSIONS.get(compression, f"compression number {compression}")
        raise ImageError(f"{name} inside, which is not read: {_TO_KNOWN_CODEC}")
    subsampling = tags.integers(_SUBSAMPLING) or (2, 2)
    if _photometric(tags) == _YCBCR and compression == _UNCOMPRESSED and subsampling != (1, 1):
        raise ImageError(f"its colours are YCbCr of reduced resolution, without JPEG: {_TO_RGB}")


_WIDTH, _HEIGHT, _ORIENTATION, _COLOUR_MAP = 256, 257, 274, 320
_PLANES = 284
_STRIPS, _STRIP_SIZES, _ROWS_PER_STRIP = 273, 279, 278
_TILES, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT = 324, 325, 322, 323
_JPEG_TABLES, _JPEG_START, _JPEG_SIZE = 347, 513, 514
_FRACTIONS = (529, 532)  # YCbCrCoefficients, ReferenceBlackWhite
# One value: FillOrder, T4Options, T6Options, Predictor, old JPEG's parts. Many: its tables, YCbCr's subsampling.
_SINGLE = (_WIDTH, _HEIGHT, _COMPRESSION, 266, _CHANNELS, _PLANES, 292, 293, 317, 512, 513, 514, 515, 517, 531)
_MULTIPLE = (_EXTRA_CHANNELS, 518, 519, 520, 521, 530)
_PARTS = {
    False: (_STRIPS, _STRIP_SIZES, _ROWS_PER_STRIP),
    True: (_TILES, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT),
}
"""Tags of strips, and of tiles."""
_SHORT, _LONG, _FRACTION, _UNDEFINED = 3, 4, 5, 7
_ENTRY = struct.Struct("<HHI")
_MAX_BYTES = 2**32 - 2**24
_ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa", "La")
_DAMAGED = "cannot be decoded: truncated or damaged"


def decode_tiff(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a TIFF or BigTIFF file.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file; it starts with one of :data:`~leukemia_data.decoding.tiff_directories.TIFF_MAGICS`.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB, turned as the file's orientation says.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, too large, of more than one page, transparent, or of a kind that is not
        read: neither grey nor colour of at most 8 bits a channel, or compressed in an unusual way.
    """
    directories = read_directories(data)
    tags = next(directories, None)
    if tags is None:
        raise ImageError(_DAMAGED)
    check_frame_size(*_stored_size(tags))
    for check in (_check_numbers, _check_colours, _check_depth, _check_channels, _check_compression):
        check(tags)
    check_single_picture(tags, directories)
    _check_whole(tags, len(data))
    return turn_upright(_pixels(_plain_file(data, tags), tags), tags.integer(_ORIENTATION, 1))


def _stored_size(tags: TiffDirectory) -> tuple[int, int]:
    """Height and width before the orientation turns them."""
    return tags.integer(_HEIGHT, 0), tags.integer(_WIDTH, 0)


def _check_whole(tags: TiffDirectory, num_bytes: int) -> None:
    """Refuse a file without a strip or tile, or its end: Pillow would leave black what none covers."""
    starts, sizes = (tags.integers(tag) for tag in _PARTS[_TILES in tags][:2])
    compression = _compression(tags)
    if compression == _OLD_JPEG and not starts:
        _check_end(tags.integers(_JPEG_START), tags.integers(_JPEG_SIZE), num_bytes)
        return
    height, width = _stored_size(tags)
    too_few = ImageError(f"damaged: its header declares {width} x {height} pixels, more than it holds")
    num_rows, num_columns, num_planes = _grid(tags)
    if len(starts) < num_rows * num_columns * num_planes:
        raise too_few
    if 0 in starts:
        raise ImageError("parts of the picture are left out (a sparse TIFF): save it with all of them")
    if compression == _UNCOMPRESSED:
        # Rows of single bits may be rounded down.
        if any(sizes) and sum(sizes) < height * (width * sum(_channel_bits(tags)) // 8):
            raise too_few
        # Some writers leave the sizes out or round them up.
        sizes = _bytes_of_parts(tags)
    _check_end(starts, sizes, num_bytes)


def _check_end(starts: tuple[int, ...], sizes: tuple[int, ...], num_bytes: int) -> None:
    if any(start + size > num_bytes for start, size in zip(starts, sizes, strict=False)):
        raise ImageError(f"truncated: its header speaks of more than the {num_bytes} bytes it has")


def _grid(tags: TiffDirectory) -> tuple[int, int, int]:
    """Rows, columns and planes of strips or tiles that cover the picture."""
    height, width = _stored_size(tags)
    part_height, part_width = _part_size(tags)
    is_planar = tags.integer(_PLANES, 1) == 2
    num_planes = _num_channels(tags) if is_planar else 1
    return -(-height // part_height), -(-width // part_width), num_planes


def _part_size(tags: TiffDirectory) -> tuple[int, int]:
    """Height and width of a strip or tile."""
    height, width = _stored_size(tags)
    if _TILES in tags:
        height, width = tags.integer(_TILE_HEIGHT, 0), tags.integer(_TILE_WIDTH, 0)
    else:
        height = min(height, tags.integer(_ROWS_PER_STRIP, height))
    if height < 1 or width < 1:
        raise ImageError(f"damaged: its header declares parts of {width} x {height} pixels")
    return height, width


def _bytes_of_parts(tags: TiffDirectory) -> tuple[int, ...]:
    """Bytes of each uncompressed strip or tile; the last strip of a plane has the remaining rows."""
    part_height, part_width = _part_size(tags)
    num_rows, num_columns, num_planes = _grid(tags)
    bits = _channel_bits(tags)
    row_bytes = (part_width * sum(bits if num_planes == 1 else bits[:1]) + 7) // 8
    last_height = part_height if _TILES in tags else _stored_size(tags)[0] - (num_rows - 1) * part_height
    heights = [part_height] * (num_rows - 1) * num_columns + [last_height] * num_columns
    return tuple(row_bytes * height for height in heights * num_planes)


def _plain_file(data: NDArray[np.uint8], tags: TiffDirectory) -> bytes:
    """The file with a little-endian classic TIFF's header and directory; strips and tiles stay where they are."""
    if len(data) > _MAX_BYTES:
        raise ImageError("more than 4 GB: save the picture by itself")
    start = len(data) + len(data) % 2
    try:
        directory = _directory(_plain_entries(tags), start)
    except struct.error as error:
        raise ImageError(_DAMAGED) from error
    header = b"II*\x00" + struct.pack("<I", start)
    return b"".join((header, data.data[len(header) :], bytes(len(data) % 2), directory))


def _plain_entries(tags: TiffDirectory) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Type and values of the tags that determine pixels."""
    single = {tag: tags.integers(tag)[:1] for tag in _SINGLE}
    single[_PHOTOMETRIC] = (_photometric(tags),)
    multiple = {tag: tags.integers(tag) for tag in _MULTIPLE + _PARTS[_TILES in tags]}
    multiple |= {_BITS: _channel_bits(tags), _COLOUR_MAP: _colour_map(tags)}
    entries = {
        tag: (_SHORT if max(values, default=0) < 2**16 else _LONG, values)
        for tag, values in (single | multiple).items()
    }
    entries |= {tag: (_FRACTION, tags.integers(tag)) for tag in _FRACTIONS}
    entries[_JPEG_TABLES] = (_UNDEFINED, tags.integers(_JPEG_TABLES))
    return {tag: entry for tag, entry in sorted(entries.items()) if entry[1]}


def _colour_map(tags: TiffDirectory) -> tuple[int, ...]:
    """Palette of 16-bit values; one with none above 255 was written in 8 bits, as libtiff assumes too."""
    if _photometric(tags) != _PALETTE:
        return ()
    values = tags.integers(_COLOUR_MAP)
    if len(values) != 3 << _channel_bits(tags)[0]:
        raise ImageError(f"damaged: its palette has {len(values) // 3} colours")
    return values if max(values) > 255 else tuple(257 * value for value in values)


def _directory(entries: dict[int, tuple[int, tuple[int, ...]]], start: int) -> bytes:
    """A directory at `start`, followed by the values that do not fit into it."""
    letters = {_SHORT: "H", _LONG: "I", _FRACTION: "I", _UNDEFINED: "B"}
    table, room = struct.pack("<H", len(entries)), b""
    room_start = start + len(table) + 12 * len(entries) + 4
    for tag, (kind, values) in entries.items():
        content = struct.pack(f"<{len(values)}{letters[kind]}", *values)
        count = len(values) // 2 if kind == _FRACTION else len(values)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack("<I", room_start + len(room))
            room += content + bytes(len(content) % 2)
        table += _ENTRY.pack(tag, kind, count) + place
    return table + bytes(4) + room


def _pixels(file: bytes, tags: TiffDirectory) -> NDArray[np.uint8]:
    """Decode a file whose tags were checked; of damaged data, Pillow may raise anything."""
    try:
        picture = TiffImageFile(io.BytesIO(file))
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("a kind of TIFF that is not read: convert it to RGB of 8 bits a channel first") from error
    try:
        with picture:
            return _rgb(picture)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        codec = _OPTIONAL_CODECS.get(_compression(tags))
        hint = "" if codec is None else f", or {codec} is missing in the Pillow that is installed"
        raise ImageError(f"{_DAMAGED}{hint}") from error


def _rgb(picture: TiffImageFile) -> NDArray[np.uint8]:
    if picture.mode in _ALPHA_MODES:
        with_alpha = np.asarray(picture.convert("RGBA"), np.uint8)
        if (with_alpha[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.ascontiguousarray(with_alpha[..., :3])
    # Converting RGB to RGB would take as long as decoding.
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), np.uint8)
