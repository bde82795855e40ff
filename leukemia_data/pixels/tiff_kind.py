"""Which kinds of TIFF are read, told from the tags of a picture before a decoder is asked.

Whatever is whole and not read is refused by its kind: numbers, colours, depth, channels or compression.
"""

from __future__ import annotations

from leukemia_data.errors import ImageError
from leukemia_data.pixels.tiff_tags import TiffDirectory

BITS, COMPRESSION, PHOTOMETRIC, CHANNELS, EXTRA_CHANNELS, SAMPLE_FORMAT = 258, 259, 262, 277, 338, 339
_INK_SET, _SUBSAMPLING = 332, 530

UNCOMPRESSED, OLD_JPEG, JPEG = 1, 6, 7
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INKS, YCBCR = 0, 1, 2, 3, 5, 6

_TO_8_BITS = "convert it to 8 bits a channel first"
_TO_RGB = "convert it to RGB first"
_TO_KNOWN_CODEC = "save it uncompressed, with LZW or with deflate"
_SAVE_ONE = "save the one that is meant as an image of its own"

# 4 is "undefined", which readers take for unsigned numbers (TIFF 6.0, SampleFormat).
_UNSIGNED = {1, 4}
_NUMBERS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}

_FAX = (2, 3, 4, 32771)
OPTIONAL_CODECS = {34925: "LZMA", 50000: "ZSTD"}
"""Compressions that Pillow reads where it was built with them."""
_READ_COMPRESSIONS = {UNCOMPRESSED, *_FAX, 5, OLD_JPEG, JPEG, 8, 32773, 32809, 32946, *OPTIONAL_CODECS}
# https://www.awaresystems.be/imaging/tiff/tifftags/compression.html and the list of tifffile.
_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32766: "NeXT run lengths",
    32908: "Pixar film",
    32909: "Pixar log",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG of another form",
    34661: "JBIG",
    34676: "LogLuv",
    34677: "LogLuv",
    34712: "JPEG 2000",
    34713: "Nikon's raw format",
    34887: "LERC",
    34892: "lossy JPEG of a raw format",
    34926: "ZSTD under an early number",
    34927: "WebP",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    65000: "Kodak's raw format",
    65535: "Pentax's raw format",
}

_COLOURS = {
    4: "those of a mask",
    INKS: "CMYK",
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
_COLOUR_CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, YCBCR: 3}
_GREY_AND_PALETTE_BITS = (1, 2, 4, 8)
_ALPHA = {1, 2, 999}  # 999 is Corel Draw's number.
_MAX_CHANNELS = 6
_NO_COLOURS_TOLD = -1


def check_kind(tags: TiffDirectory) -> None:
    """Refuse a picture of a kind that is not read.

    Raises
    ------
    ImageError
        With the kind, and what to convert it to; or as damaged, where the tags contradict each other.
    """
    _check_numbers(tags)
    _check_colours(tags)
    _check_depth(tags)
    _check_channels(tags)
    _check_compression(tags)


def photometric(tags: TiffDirectory) -> int:
    """Return what the numbers mean, as TIFF numbers it; -1 where it is not told and decoders disagree.

    Raises
    ------
    ImageError
        If the value stands behind the end of the file.
    """
    compression = tags.integer(COMPRESSION, UNCOMPRESSED)
    by_compression = YCBCR if compression == OLD_JPEG else WHITE_IS_ZERO if compression in _FAX else _NO_COLOURS_TOLD
    return tags.integer(PHOTOMETRIC, by_compression)


def num_channels(tags: TiffDirectory) -> int:
    """Return the samples of a pixel.

    Raises
    ------
    ImageError
        If the value stands behind the end of the file.
    """
    is_old_colour = tags.integer(COMPRESSION, UNCOMPRESSED) == OLD_JPEG and photometric(tags) in (RGB, YCBCR)
    return tags.integer(CHANNELS, 3 if is_old_colour else 1)


def channel_bits(tags: TiffDirectory) -> tuple[int, ...]:
    """Return the bits of each sample of a pixel; one number in the file stands for all of them.

    Raises
    ------
    ImageError
        If there are fewer numbers than channels, or they stand behind the end of the file.
    """
    channels = num_channels(tags)
    default = 8 if tags.integer(COMPRESSION, UNCOMPRESSED) == OLD_JPEG else 1
    bits = tags.integers(BITS) or (default,)
    if len(bits) == 1:
        # A damaged header may declare billions of channels.
        bits = bits * min(channels, _MAX_CHANNELS + 1)
    if channels < 1 or len(bits) < min(channels, _MAX_CHANNELS + 1):
        raise ImageError(f"damaged: its header declares {channels} channels, and the depth of {len(bits)}")
    return bits[:channels]


def _check_numbers(tags: TiffDirectory) -> None:
    odd = set(tags.integers(SAMPLE_FORMAT)) - _UNSIGNED
    if odd:
        numbers = _NUMBERS.get(max(odd), "numbers of an unknown kind")
        raise ImageError(f"its samples are {numbers}: {_TO_8_BITS}")


def _check_colours(tags: TiffDirectory) -> None:
    number = photometric(tags)
    if number == _NO_COLOURS_TOLD:
        raise ImageError(f"its header does not tell whether it is grey, white on black or RGB: {_TO_RGB}")
    if number == INKS and tags.integer(_INK_SET, 1) != 1:
        raise ImageError(f"its colours are inks other than CMYK: {_TO_RGB}")
    if number not in _COLOUR_CHANNELS:
        raise ImageError(f"its colours are {_COLOURS.get(number, f'of an unknown kind (number {number})')}: {_TO_RGB}")


def _check_depth(tags: TiffDirectory) -> None:
    bits = channel_bits(tags)
    if len(set(bits)) > 1:
        raise ImageError(f"channels of {', '.join(map(str, bits))} bits: {_TO_8_BITS}")
    is_grey_or_palette = _COLOUR_CHANNELS[photometric(tags)] == 1
    if bits[0] not in (_GREY_AND_PALETTE_BITS if is_grey_or_palette and len(bits) == 1 else (8,)):
        raise ImageError(f"{bits[0]} bits a channel: {_TO_8_BITS}")


def _check_channels(tags: TiffDirectory) -> None:
    """Refuse channels whose colour is not known: decoders show the first of them, or the first three."""
    colours, channels = _COLOUR_CHANNELS[photometric(tags)], num_channels(tags)
    # A grey JPEG may call itself YCbCr.
    colours = 1 if photometric(tags) == YCBCR and channels == 1 else colours
    if channels < colours:
        raise ImageError(f"damaged: its header declares {channels} channels of a colour picture")
    has_alpha = tags.integer(EXTRA_CHANNELS, 2 if colours == 3 else 0) in _ALPHA
    if channels > _MAX_CHANNELS or (colours == 1 and channels > 1 + has_alpha):
        raise ImageError(f"{channels} channels, not known as grey or RGB: {_SAVE_ONE}")


def _check_compression(tags: TiffDirectory) -> None:
    compression = tags.integer(COMPRESSION, UNCOMPRESSED)
    if compression not in _READ_COMPRESSIONS:
        name = _COMPRESSIONS.get(compression, f"compression number {compression}")
        raise ImageError(f"{name} inside, which is not read: {_TO_KNOWN_CODEC}")
    subsampling = tags.integers(_SUBSAMPLING) or (2, 2)
    if photometric(tags) == YCBCR and compression == UNCOMPRESSED and subsampling != (1, 1):
        raise ImageError(f"its colours are YCbCr of reduced resolution, without JPEG: {_TO_RGB}")
