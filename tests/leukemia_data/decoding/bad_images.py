"""Bad image files, and odd ones that are read: the rows of docs/input.md.

Expected pixels are Pillow's, or those that were stored; reasons are regular expressions.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
BITS_8 = "convert it to 8 bits a channel first"
TOO_LARGE = "20000 x 20000 pixels are more than 80 megapixels: cut the cells out"


def cell() -> np.ndarray:
    """Smooth colours, so that JPEG keeps them: 40 rows, 30 columns, red on the left and blue below."""
    rows, columns = np.mgrid[:40, :30]
    return np.dstack([255 - 8 * columns, np.full((40, 30), 60), 6 * rows]).astype(np.uint8)


@dataclass(frozen=True)
class Row:
    """One row of the table: a file, and its pixels or the reason why it is refused."""

    name: str
    data: bytes
    pixels: np.ndarray | None = None
    reason: str = ""
    tolerance: int = 0


def pillow(pixels: np.ndarray | PillowImage.Image, file_format: str, **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, PillowImage.Image) else PillowImage.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def picture(mode: str = "RGB") -> PillowImage.Image:
    return PillowImage.fromarray(cell()).convert(mode)


def rgb(of: PillowImage.Image) -> np.ndarray:
    return np.asarray(of.convert("RGB"))


def tagged(tag: int, value: int) -> ImageFileDirectory_v2:
    directory = ImageFileDirectory_v2()
    directory[tag] = value
    return directory


def exif(orientation: int) -> bytes:
    data = PillowImage.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def upright(orientation: int) -> np.ndarray:
    """By the EXIF standard: which corner the stored row 0 / column 0 is."""
    image = cell()
    turned = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1),
        7: image.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(image, 1),
    }
    return turned[orientation]


# --- files by hand --------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, *, bits: int = 8, colour_type: int = 2, before: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return PNG_MAGIC + header + before + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def png_with(chunk: bytes) -> bytes:
    """The cell as PNG, with a chunk after its header."""
    data = pillow(cell(), "PNG")
    return data[:33] + chunk + data[33:]


def bmp(
    width: int, height: int, rows: bytes, *, bits: int = 24, compression: int = 0, masks: bytes = b"", header: int = 40
) -> bytes:
    start = 14 + header + len(masks)
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + masks + rows


def bgrx(alpha: int) -> bytes:
    return np.dstack([cell()[..., ::-1], np.full((40, 30), alpha, np.uint8)])[::-1].tobytes()


def bmp_with_alpha(alpha: int) -> bytes:
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    info = struct.pack("<IiiHHIIiiII", 108, 30, 40, 1, 32, 3, 0, 0, 0, 0, 0)
    rows = bgrx(alpha)
    start = 14 + len(info) + len(masks)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + masks + rows


def jpeg_of_declared_size(width: int, height: int, **options: Any) -> bytes:
    data = bytearray(pillow(cell(), "JPEG", **options))
    frame = data.find(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_cut_but_ended(num_bytes: int) -> bytes:
    return pillow(cell(), "JPEG")[:-num_bytes] + b"\xff\xd9"


def tiff_with(tag: int, value: int, *others: tuple[int, int], **options: Any) -> bytes:
    """The cell as TIFF with the values of some tags overwritten."""
    data = bytearray(pillow(cell(), "TIFF", **options))
    (directory,) = struct.unpack_from("<I", data, 4)
    (num_entries,) = struct.unpack_from("<H", data, directory)
    wanted = dict([(tag, value), *others])
    for position in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        found, kind = struct.unpack_from("<HH", data, position)
        if found in wanted:
            struct.pack_into("<H" if kind == 3 else "<I", data, position + 8, wanted[found])
    return bytes(data)


def tiff_of_planes(num_planes: int) -> bytes:
    """The cell as TIFF, one plane after the other, of which only some are there."""
    planes = [cell()[..., channel].tobytes() for channel in range(num_planes)]
    entries = [
        (256, 3, [30]),
        (257, 3, [40]),
        (258, 3, [8, 8, 8]),
        (259, 3, [1]),
        (262, 3, [2]),
        (273, 4, [500 + 1200 * number for number in range(num_planes)]),
        (277, 3, [3]),
        (278, 3, [40]),
        (279, 4, [1200] * num_planes),
        (284, 3, [2]),
    ]
    directory, room = b"", b""
    for tag, kind, values in entries:
        content = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack("<I", 200 + len(room))
            room += content
        directory += struct.pack("<HHI", tag, kind, len(values)) + place
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return (head.ljust(200, b"\0") + room).ljust(500, b"\0") + b"".join(planes)


# --- the table ------------------------------------------------------------------------------------------------


def read_rows() -> list[Row]:
    """Files that are odd and right."""
    black_and_white, grey, palette = picture("1"), picture("L"), picture().quantize(12)
    grey_levels = np.arange(16, dtype=np.uint8).reshape(2, 8)
    packed = b"".join(b"\0" + bytes(row[::2] << 4 | row[1::2]) for row in grey_levels)
    thumbnail = io.BytesIO()
    picture().save(
        thumbnail, "TIFF", save_all=True, append_images=[_with_tag(picture().resize((8, 10)), tagged(254, 1))]
    )
    rows = [
        Row("1x1", pillow(cell()[:1, :1], "PNG"), cell()[:1, :1]),
        Row("wrong extension: a JPEG named .bmp", pillow(cell(), "JPEG", quality=95, subsampling=0), cell(), "", 8),
        Row("grey with opaque alpha", pillow(picture("LA"), "PNG"), rgb(grey)),
        Row("grey of 4 bits", png(8, 2, packed, bits=4, colour_type=0), np.repeat(grey_levels[..., None] * 17, 3, 2)),
        Row("palette of 4 bits", pillow(palette, "PNG", bits=4), rgb(palette)),
        Row("palette BMP", pillow(palette, "BMP"), rgb(palette)),
        Row("1-bit BMP", pillow(black_and_white, "BMP"), rgb(black_and_white)),
        Row("32-bit BMP without alpha", bmp(30, 40, bgrx(0), bits=32), cell()),
        Row("32-bit BMP with opaque alpha", bmp_with_alpha(255), cell()),
        Row("BMP of OS/2", _bmp_of_os2(12), cell()),
        Row("1-bit TIFF, fax", pillow(black_and_white, "TIFF", compression="group4"), rgb(black_and_white)),
        Row("TIFF, white is zero", pillow(grey, "TIFF", tiffinfo=tagged(262, 0)), rgb(grey)),
        Row("TIFF, YCbCr", pillow(picture("YCbCr"), "TIFF"), rgb(picture("YCbCr")), "", 2),
        Row("TIFF, plane after plane", tiff_of_planes(3), cell()),
        Row("TIFF with a thumbnail", thumbnail.getvalue(), cell()),
        Row("BigTIFF", pillow(cell(), "TIFF", big_tiff=True), cell()),
        Row("PNG with a colour profile and text", png_with(_odd_chunks()), cell()),
        Row("JPEG with something behind its end", pillow(grey, "JPEG", quality=95) + b"more" * 9, rgb(grey), "", 4),
        Row("JPEG with restart marks", pillow(grey, "JPEG", quality=95, restart_marker_blocks=1), rgb(grey), "", 4),
        Row("progressive JPEG", pillow(grey, "JPEG", quality=95, progressive=True), rgb(grey), "", 4),
    ]
    for orientation in range(1, 9):
        rows.append(
            Row(f"PNG, EXIF {orientation}", pillow(cell(), "PNG", exif=exif(orientation)), upright(orientation))
        )
        tiff = pillow(cell(), "TIFF", tiffinfo=tagged(274, orientation), compression="tiff_lzw")
        rows.append(Row(f"TIFF, orientation {orientation}", tiff, upright(orientation)))
    return rows


def _with_tag(of: PillowImage.Image, directory: ImageFileDirectory_v2) -> PillowImage.Image:
    of.encoderinfo = {"tiffinfo": directory}
    return of


def _odd_chunks() -> bytes:
    """A colour profile that no library can read, and a text that unpacks to a megabyte."""
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    return png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"none")) + text


def refused_rows() -> list[Row]:
    """Files that are quarantined, each with the reason."""
    turned = picture().rotate(180)
    not_a_number = np.full((20, 20), np.nan, np.float32)
    seen = np.dstack([cell(), np.full((40, 30), 254, np.uint8)])
    run_lengths = b"".join(bytes([30, 5, 0, 0]) for _ in range(40)) + b"\0\1"
    declared: list[tuple[str, Callable[[int, int], bytes]]] = [
        ("BMP", lambda width, height: bmp(width, height, bytes(9999))),
        ("PNG", lambda width, height: png(width, height, bytes(9999))),
        ("JPEG", jpeg_of_declared_size),
        ("TIFF", lambda width, height: tiff_with(256, width, (257, height))),
        ("LZW TIFF", lambda width, height: tiff_with(256, width, (257, height), compression="tiff_lzw")),
    ]
    rows = [
        Row("zero bytes", b"", reason="the file is empty"),
        Row("text", b"Path,label\n./1.bmp,0\n", reason="not a BMP, PNG, TIFF or JPEG file"),
        Row("text as BMP", b"BMI of the patients: 21, 24, 19, and so on for many more lines", reason="not a BMP file"),
        Row("GIF as BMP", pillow(cell(), "GIF"), reason="not a BMP, PNG, TIFF or JPEG file"),
        Row("all black", pillow(np.zeros((9, 9, 3), np.uint8), "PNG"), reason="every pixel is black"),
        Row("16-bit PNG", png(2, 1, bytes(13), bits=16), reason=f"^16 bits a channel: {BITS_8}"),
        Row("16-bit TIFF", pillow(np.full((9, 9), 300, np.uint16), "TIFF"), reason=f"^16 bits a channel: {BITS_8}"),
        Row("12-bit JPEG", jpeg_of_12_bits(), reason=f"^12 bits a channel: {BITS_8}"),
        Row("16-bit BMP", bmp(16, 16, bytes(512), bits=16), reason="16 bits a pixel: save it with 24"),
        Row("TIFF of NaN", pillow(not_a_number, "TIFF"), reason=f"floating-point numbers: {BITS_8}"),
        Row("TIFF of signed numbers", pillow(np.full((9, 9), 3, np.int32), "TIFF"), reason=f"signed numbers: {BITS_8}"),
        Row("transparent PNG", pillow(seen, "PNG"), reason="transparent pixels: flatten it"),
        Row("transparent TIFF", pillow(seen, "TIFF"), reason="transparent pixels: flatten it"),
        Row("transparent BMP", bmp_with_alpha(7), reason="transparent pixels: flatten it"),
        Row("transparent palette", pillow(picture().quantize(9), "PNG", transparency=3), reason="transparent pixels"),
        Row("CMYK JPEG", pillow(picture("CMYK"), "JPEG"), reason="CMYK.*convert it to RGB first"),
        Row("CMYK TIFF", pillow(picture("CMYK"), "TIFF"), reason="CMYK: convert it to RGB first"),
        Row("Lab TIFF", pillow(picture("LAB"), "TIFF"), reason="Lab: convert it to RGB first"),
        Row("APNG", _of_two_frames("PNG", turned), reason="animation of 2 frames: save the one that is meant"),
        Row("TIFF of two pages", _of_two_frames("TIFF", turned), reason="several pages: save the one that is meant"),
        Row("run-length coded BMP", bmp(30, 40, run_lengths, bits=8, compression=1), reason="compressed BMP: save it"),
        Row("BMP with swapped colours", _bmp_of_swapped_colours(), reason="unusual colour masks: save it"),
        Row("BMP of OS/2, 16 bytes of header", _bmp_of_os2(16), reason="OS/2: save it"),
        Row("BMP without rows", bmp(0, 10, bytes(999)), reason="declares 0 x 10 pixels"),
        Row("BMP of negative width", bmp(-5, 5, bytes(999)), reason="declares -5 x 5 pixels"),
        Row("BMP whose pixels begin in its header", _bmp_that_begins_early(), reason="begin inside the header"),
        Row("BMP that lies by a row", bmp(30, 41, bytes(92 * 40)), reason="declares 30 x 41 pixels, more than"),
        Row("PNG that lies", png(300, 300, b"\0" + bytes(900)), reason="declares 300 x 300 pixels, more than"),
        Row("PNG of endless size", png(2**31 - 1, 2**31 - 1, b""), reason="more than 80 megapixels"),
        Row("PNG without a header", PNG_MAGIC + png_chunk(b"IEND", b""), reason="does not start with its header"),
        Row("JPEG that lies", jpeg_of_declared_size(60, 80), reason="truncated or damaged"),
        Row("JPEG that lies by little", jpeg_of_declared_size(33, 49), reason="truncated or damaged"),
        Row("JPEG that lies by much", jpeg_of_declared_size(4000, 4000), reason="4000 x 4000 pixels, more than its"),
        Row("JPEG cut short and ended", jpeg_cut_but_ended(60), reason="truncated or damaged"),
        Row("TIFF that lies", tiff_with(257, 80), reason="declares 30 x 80 pixels, more than it holds"),
        Row("TIFF that lies by a row", tiff_with(257, 41, (278, 41)), reason="declares 30 x 41 pixels, more than"),
        Row("TIFF that lacks a plane", tiff_of_planes(2), reason="declares 30 x 40 pixels, more than it holds"),
        Row("TIFF, truncated", pillow(cell(), "TIFF")[:-9], reason="truncated: its header speaks of more than"),
        *(Row(f"{kind} of 20,000x20,000", make(20_000, 20_000), reason=TOO_LARGE) for kind, make in declared),
    ]
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        data = tiff_with(257, 41, (278, 41), compression=compression)
        rows.append(Row(f"TIFF that lies, {compression}", data, reason="truncated or damaged"))
    return rows


def jpeg_of_12_bits() -> bytes:
    data = bytearray(pillow(cell(), "JPEG"))
    data[data.find(b"\xff\xc0") + 4] = 12
    return bytes(data)


def _of_two_frames(file_format: str, second: PillowImage.Image) -> bytes:
    return pillow(picture(), file_format, save_all=True, append_images=[second])


def _bmp_of_swapped_colours() -> bytes:
    masks = struct.pack("<III", 0x0000FF, 0x00FF00, 0xFF0000)
    return bmp(30, 40, bgrx(0), bits=32, compression=3, masks=masks)


def _bmp_of_os2(header_bytes: int) -> bytes:
    """A 24-bit bitmap of OS/2: the header has 12 bytes, and a longer one of its kind 16."""
    start = 14 + header_bytes
    info = struct.pack("<IHHHH", header_bytes, 30, 40, 1, 24).ljust(header_bytes, b"\0")
    rows = np.pad(cell()[::-1, :, ::-1].reshape(40, 90), ((0, 0), (0, 2))).tobytes()
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + rows


def _bmp_that_begins_early() -> bytes:
    data = bytearray(bmp(30, 40, bytes(92 * 40)))
    data[10:14] = struct.pack("<I", 20)
    return bytes(data)
