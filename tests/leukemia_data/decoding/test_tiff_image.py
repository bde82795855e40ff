"""Kinds of TIFF: read as by OpenCV, or refused with their kind; only damaged ones are called damaged."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.decoding.decode import decode_frame
from leukemia_data.errors import ImageError

from .bad_images import cell, pillow
from .tiff_bytes import page_of, pixels_start, tiff, without

GREY = np.ascontiguousarray(cell()[..., 0])
FORMS = [("<", False), (">", False), ("<", True), (">", True)]
SEVERAL = "several pages: save the one that is meant"


def decode(data: bytes) -> np.ndarray:
    return decode_frame(np.frombuffer(data, np.uint8))


def file_of(image: np.ndarray, **more: object) -> bytes:
    return tiff(page_of(image, **more), pixels=image.tobytes())


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return str(caught.value)


def compressed(image: PillowImage.Image, compression: str) -> tuple[dict, bytes]:
    """Tags and data of the only strip of a TIFF that Pillow writes."""
    data = pillow(image, "TIFF", compression=compression)
    with PillowImage.open(io.BytesIO(data)) as picture:
        tags = dict(picture.tag_v2)
    [start], [size] = tags.pop(273), tags.pop(279)
    return {tag: tags[tag] for tag in (256, 257, 258, 259, 262, 277, 278)}, data[start : start + size]


# --- what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("image", [cell(), GREY], ids=["rgb", "grey"])
def test_all_forms_of_the_header(order: str, big: bool, image: np.ndarray) -> None:
    data = tiff(page_of(image, big=big), pixels=image.tobytes(), order=order, big=big)
    np.testing.assert_array_equal(decode(data), np.broadcast_to(image.reshape(40, 30, -1), (40, 30, 3)))


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_all_forms_of_the_header_with_compression(order: str, big: bool, compression: str) -> None:
    tags, strip = compressed(PillowImage.fromarray(cell()), compression)
    tags |= {273: pixels_start(big), 279: len(strip)}
    np.testing.assert_array_equal(decode(tiff(tags, pixels=strip, order=order, big=big)), cell())
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(tiff(tags | {279: len(strip) // 2}, pixels=strip[: len(strip) // 2], order=order, big=big))


@pytest.mark.parametrize(("order", "big"), FORMS)
def test_tiles_planes_and_orientation(order: str, big: bool) -> None:
    start = pixels_start(big)
    tiles = np.zeros((48, 32, 3), np.uint8)
    tiles[:40, :30] = cell()
    tiled = without(page_of(cell(), big=big), 273, 278, 279) | {
        322: 32, 323: 16, 324: [start + 1536 * number for number in range(3)], 325: [1536] * 3, 274: 6
    }  # fmt: skip
    data = tiff(tiled, pixels=tiles.tobytes(), order=order, big=big)
    np.testing.assert_array_equal(decode(data), np.rot90(cell(), -1))
    planes = page_of(cell(), big=big, t284=2, t273=[start, start + 1200, start + 2400], t279=[1200] * 3)
    pixels = np.moveaxis(cell(), 2, 0).tobytes()
    np.testing.assert_array_equal(decode(tiff(planes, pixels=pixels, order=order, big=big)), cell())


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("bits", [4, 8])
def test_palettes_of_8_and_16_bits(order: str, big: bool, scale: int, bits: int) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (3, 2**bits))
    colours[0, 0] = 200
    index = GREY & (2**bits - 1)
    packed = index if bits == 8 else index[:, ::2] << 4 | index[:, 1::2]
    page = page_of(GREY, big=big, t258=bits, t262=3, t279=packed.size, t320=(scale * colours).ravel().tolist())
    data = tiff(page, pixels=packed.tobytes(), order=order, big=big, kinds={320: 3})
    expected = colours.T.astype(np.uint8)[index]
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), expected)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(without(page_of(cell()), 279), id="no sizes of strips"),
        pytest.param(page_of(cell(), t279=0), id="sizes of zero"),
        pytest.param(page_of(cell(), t279=10**6), id="too large a size"),
        pytest.param(page_of(cell(), t278=2**32 - 1), id="one endless strip"),
        pytest.param(without(page_of(cell()), 278), id="no rows per strip"),
        pytest.param(page_of(cell(), t258=8), id="one depth for all channels"),
        pytest.param(page_of(cell(), t339=[4, 4, 4]), id="numbers of undefined kind, to be read as unsigned"),
        pytest.param(page_of(cell(), t256=[30, 30]), id="two widths"),
        pytest.param(page_of(cell(), t254=1), id="a smaller copy of nothing"),
        pytest.param(page_of(cell(), t254=2, t297=[0, 9]), id="page 1 of 9, in a file of its own"),
    ],
)
def test_odd_tags_of_a_whole_picture(page: dict) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(decode(tiff(page, pixels=cell().tobytes())), cell())
    assert not told


def test_old_jpeg_inside() -> None:
    jpeg = pillow(cell(), "JPEG", quality=95)
    page = page_of(cell(), t259=6, t262=6, t279=len(jpeg), t512=1, t513=pixels_start(), t514=len(jpeg), t530=[2, 2])
    for tags in (page, without(page, 273, 279)):
        assert np.abs(decode(tiff(tags, pixels=jpeg)).astype(int) - cell()).max() <= 24


# --- whole files of kinds that are not read -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)], ids=["grey", "rgb"])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "sample_format", "reason"),
    [
        ("f2", 3, "floating-point numbers"),
        ("f4", 3, "floating-point numbers"),
        ("f8", 3, "floating-point numbers"),
        ("i1", 2, "signed numbers"),
        ("i2", 2, "signed numbers"),
        ("i4", 2, "signed numbers"),
        ("c8", 6, "complex numbers"),
        ("u2", 1, "^16 bits a channel"),
        ("u4", 1, "^32 bits a channel"),
        ("u8", 1, "^64 bits a channel"),
    ],
)
@pytest.mark.parametrize(("order", "big"), FORMS)
def test_numbers_that_are_no_bytes(
    order: str, big: bool, dtype: str, sample_format: int, reason: str, planes: int, shape: tuple[int, ...]
) -> None:
    image = np.full(shape, 100, dtype)
    channels = image.size // 1200
    strips = {"t273": [pixels_start(big)] * channels, "t279": [image.nbytes // channels] * channels}
    page = page_of(image, big=big, t339=[sample_format] * channels, t284=planes, **(strips if planes == 2 else {}))
    with pytest.raises(ImageError, match=f"{reason}: convert it to 8 bits a channel first"):
        decode(tiff(page, pixels=image.tobytes(), order=order, big=big))


@pytest.mark.parametrize(
    ("number", "name"),
    [(34712, "JPEG 2000"), (33005, "JPEG 2000"), (50001, "WebP"), (34887, "LERC"), (50002, "JPEG XL"),
     (22610, "JPEG XR"), (34933, "PNG"), (34661, "JBIG"), (4711, "number 4711")],
)  # fmt: skip
def test_compressions_are_named(number: int, name: str) -> None:
    assert reason_of(file_of(cell(), t259=number)).startswith((f"{name} inside", f"compression {name} inside"))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"t262": 5, "t332": 2}, "inks other than CMYK: convert it to RGB"),
        ({"t262": 8}, "Lab: convert it to RGB"),
        ({"t262": 9}, "Lab: convert it to RGB"),
        ({"t262": 32803}, "raw values of a sensor"),
        ({"t262": 34892}, "raw values of a sensor"),
        ({"t262": 32845}, "LogLuv"),
        ({"t262": 4}, "mask"),
        ({"t262": 4711}, "unknown kind .number 4711"),
        ({"t262": 6, "t530": [2, 2], "t279": 1800}, "YCbCr of reduced resolution"),
        ({"t258": [5, 6, 5]}, "channels of 5, 6, 5 bits: convert it to 8 bits"),
        ({"t258": [6, 6, 6]}, "^6 bits a channel"),
        ({"t273": 0, "t279": 0}, "left out"),
        ({"t254": 1, "t330": 8}, "thumbnail or mask of another"),
    ],
)
def test_other_kinds_are_named(tags: dict, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(file_of(cell(), **tags))


def test_grey_without_a_word_on_what_is_white() -> None:
    """Pillow takes zero for white, libtiff for black."""
    assert "does not tell" in reason_of(tiff(without(page_of(GREY), 262), pixels=GREY.tobytes()))


@pytest.mark.parametrize(("num_channels", "photometric"), [(2, 1), (3, 1), (4, 1), (7, 2)])
def test_channels_without_colours(num_channels: int, photometric: int) -> None:
    image = np.ascontiguousarray(np.repeat(GREY[..., None], num_channels, axis=2))
    extra = [0] * (num_channels - (1 if photometric == 1 else 3))
    assert reason_of(file_of(image, t262=photometric, t338=extra)).startswith(f"{num_channels} channels, not known")


# --- several pictures in one directory ------------------------------------------------------------------------


def shape_text(*shape: int) -> bytes:
    return json.dumps({"shape": shape, "truncated": True}).encode() + b"\0"


def ome(sizes: str, files: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?><OME><Image><Pixels ID="0" {sizes} Type="uint8">{files}</Pixels></Image></OME>'.encode()
    )


STACKS = [
    b"ImageJ=1.53t\nimages=3\nslices=3\nunit=micron\n\0",
    b"ImageJ=1.53t\nchannels=3\n\0",
    b"ImageJ=1.53t\nslices=3\n\0",
    b"ImageJ=1.53t\r\nframes=3\r\n\0",
    b"ImageJ=1.11a\nimages=3\n\0",
    b"SCIFIO=0.46.0\naxes=X,Y,Z\nlengths=30,40,3\nimages=3\n\0",
    shape_text(3, 40, 30),
    b"shape=(3, 40, 30)\0",
    ome('SizeX="30" SizeY="40" SizeC="1" SizeZ="3" SizeT="1"'),
    ome("SizeX='30' SizeY='40' SizeC='3' SizeZ='1' SizeT='1'"),
]
SINGLES = [
    b"ImageJ=1.53t\nunit=micron\nmin=0.0\nmax=255.0\n\0",
    b"ImageJ=1.53t\nimages=1\nchannels=1\n\0",
    b"a cell, images=3\n\0",
    b"\xff\xfe no text\0",
    shape_text(40, 30, 3),
    shape_text(40, 30),
    ome('SizeX="30" SizeY="40" SizeC="3" SizeZ="1" SizeT="1"'),
    ome('SizeC="3" SizeZ="2" SizeT="1"', '<UUID FileName="a.tif"/><UUID FileName="b.tif"/>'),
]


@pytest.mark.parametrize("text", STACKS, ids=lambda text: text[:24].decode())
@pytest.mark.parametrize(("order", "big"), FORMS)
def test_stacks_in_one_directory_are_several_pages(order: str, big: bool, text: bytes) -> None:
    data = tiff(page_of(GREY, big=big, t270=text), pixels=3 * GREY.tobytes(), order=order, big=big)
    assert reason_of(data).startswith(SEVERAL)


@pytest.mark.parametrize("text", SINGLES)
def test_descriptions_of_one_picture(text: bytes) -> None:
    np.testing.assert_array_equal(decode(file_of(cell(), t270=text)), cell())


def test_volumes_and_planes_of_microscopes_are_several_pages() -> None:
    assert reason_of(file_of(GREY, t32997=16)).startswith(SEVERAL)
    metamorph = tiff(page_of(GREY, t33629=[1] * 6), pixels=3 * GREY.tobytes(), kinds={33629: 5})
    assert reason_of(metamorph).startswith(SEVERAL)


@pytest.mark.parametrize(("order", "big"), FORMS)
def test_directories_behind_the_first(order: str, big: bool) -> None:
    page = page_of(cell(), big=big)

    def both(**tags: int) -> bytes:
        second = page | {int(name[1:]): value for name, value in tags.items()}
        return tiff(page, second, pixels=cell().tobytes(), order=order, big=big)

    assert reason_of(both()).startswith(SEVERAL)
    for tags in ({"t254": 1}, {"t254": 4}, {"t255": 2}):
        np.testing.assert_array_equal(decode(both(**tags)), cell())


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "big"), FORMS)
def test_truncated_files_are_reported_as_truncated(order: str, big: bool) -> None:
    whole = tiff(page_of(cell(), big=big), pixels=cell().tobytes(), order=order, big=big)
    for end in (4, 8, 15, 17, 2000, len(whole) - 60, len(whole) - 1):
        assert "truncated" in reason_of(whole[:end])


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiff(page_of(cell(), t273=300), pixels=cell().tobytes(), order=">"),
        lambda: file_of(cell(), t257=80),
        lambda: file_of(cell(), t277=4),
        lambda: file_of(GREY, t262=2, t258=[8, 8, 8]),
        lambda: file_of(cell(), t278=0),
        lambda: file_of(GREY, t262=3, t320=[1] * 30),
        lambda: tiff(without(page_of(cell()), 256), pixels=cell().tobytes()),
    ],
)
def test_tags_that_contradict_the_file_are_damage(make: Callable[[], bytes]) -> None:
    assert "truncated" in reason_of(make()) or "damaged" in reason_of(make())
