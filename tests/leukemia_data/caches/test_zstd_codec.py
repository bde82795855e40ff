"""Zstandard frames compared with the package's own functions, and damaged ones."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard

from leukemia_data.caches.codec import RawCodec, codec_named
from leukemia_data.decoding.decode import decode_rgb, read_file
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.operations.recipe import Preprocessor, load_recipe

from ..helpers import forget_zstandard


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


IMAGES = {
    "noise": noise(8),
    "black": np.zeros((8, 8, 3), np.uint8),
    "large": np.repeat(noise(300)[:, ::3], 3, axis=1),
    "not contiguous": noise(16)[::2, ::2],
}


@pytest.fixture
def codec():
    return codec_named("zstd")


@pytest.mark.parametrize("name", IMAGES)
def test_frames_hold_the_pixels_their_size_and_a_checksum(codec, name):
    image = IMAGES[name]
    stored, out = codec.encode(image), np.empty(image.size, np.uint8)
    codec.decode(stored, out)
    assert np.array_equal(out, image.ravel())
    assert zstandard.ZstdDecompressor().decompress(stored) == image.tobytes()
    told = zstandard.get_frame_parameters(stored)
    assert (told.content_size, told.has_checksum, told.dict_id) == (image.size, True, 0)
    assert codec.encode(image.copy()) == stored


def test_a_view_of_a_larger_buffer_is_decoded_into_a_view_of_another(codec):
    stored, out = codec.encode(IMAGES["noise"]), np.full((3, 192), 7, np.uint8)
    codec.decode(memoryview(b"xy" + stored + b"z")[2:-1], out[1])
    assert np.array_equal(out[1], IMAGES["noise"].ravel())
    assert (out[[0, 2]] == 7).all()


@pytest.mark.parametrize("name", ["noise", "black"])
def test_no_bit_can_change_a_pixel_unseen(codec, name):
    image = IMAGES[name]
    stored, out = codec.encode(image), np.empty(image.size, np.uint8)
    for number in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[number // 8] ^= 1 << number % 8
        out[:] = 1
        try:
            codec.decode(bytes(flipped), out)
        except ValueError:
            continue
        assert np.array_equal(out, image.ravel()), number


@pytest.mark.parametrize("keep", [0, 3, 4, 9, 100, -5])
def test_a_truncated_frame_is_an_error(codec, keep):
    stored = codec.encode(IMAGES["noise"])
    with pytest.raises(ValueError, match=r"bytes|error|frame"):
        codec.decode(stored[:keep], np.empty(192, np.uint8))
    with pytest.raises(ValueError, match=r"bytes|error|frame"):
        codec.stored_length(stored[:keep], 192)


def test_what_a_frame_holds_is_checked_before_it_is_decoded(codec):
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(10**8))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="holds 100000000 pixel values, not 192"):
        codec.decode(bomb, np.empty(192, np.uint8))


def test_frame_that_holds_more_than_it_declares_does_not_leave_the_buffer(codec):
    large = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(200))
    small = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(192))
    assert (large[5], small[5]) == (200, 192)
    out = np.full(300, 7, np.uint8)
    with pytest.raises(ValueError, match="error"):
        codec.decode(large[:5] + small[5:6] + large[6:], out[:192])
    assert (out[192:] == 7).all()


@pytest.mark.parametrize("level", [{"write_checksum": False}, {"write_content_size": False}])
def test_frames_without_checksum_or_size_are_refused(codec, level):
    stored = zstandard.ZstdCompressor(**level).compress(bytes(192))
    with pytest.raises(ValueError, match=r"no checksum|not 192"):
        codec.decode(stored, np.empty(192, np.uint8))


@pytest.mark.parametrize("name", IMAGES)
def test_the_length_of_a_frame_is_found_without_decoding_it(codec, name):
    stored = codec.encode(IMAGES[name])
    assert codec.stored_length(stored + b"what follows", IMAGES[name].size) == len(stored)
    assert codec.stored_length(memoryview(stored), IMAGES[name].size) == len(stored)


def test_threads_have_decompressors_of_their_own(codec):
    images = [noise(64, seed) for seed in range(8)]
    stored = [codec.encode(image) for image in images]

    def decode(number: int) -> bool:
        out = np.empty(images[0].size, np.uint8)
        codec.decode(stored[number % 8], out)
        return np.array_equal(out, images[number % 8].ravel())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(decode, range(400)))


@pytest.mark.real
def test_real_cells_take_less_than_half(codec, real_data):
    paths = sorted(path for path in real_data.rglob("UID_*") if path.suffix in (".bmp", ".png"))
    assert paths
    preprocess = Preprocessor(load_recipe("report-a"), [224])
    images = [preprocess(decode_rgb(read_file(path).data))[224] for path in paths[:: len(paths) // 24 or 1]]
    assert sum(image.nbytes for image in images) > 2 * sum(len(codec.encode(image)) for image in images)


def test_raw_pixels_are_their_own_bytes():
    codec, image, out = RawCodec(), IMAGES["not contiguous"], np.empty(192, np.uint8)
    codec.decode(codec.encode(image), out)
    assert np.array_equal(out, image.ravel())
    assert codec.stored_length(bytes(200), 192) == 192
    with pytest.raises(ValueError, match="191 bytes, not 192"):
        codec.decode(bytes(191), out)
    with pytest.raises(ValueError, match="only 191 of its 192 bytes"):
        codec.stored_length(bytes(191), 192)
    assert pickle.loads(pickle.dumps(codec)).library_versions == {}


def test_unknown_codec_is_refused():
    with pytest.raises(UsageError, match="unknown codec 'lz4'; known are raw, zstd"):
        codec_named("lz4")


def test_missing_library_is_one_line_that_names_the_extra(monkeypatch):
    forget_zstandard(monkeypatch)
    with pytest.raises(CacheError, match=r'pip install -e "\.\[zstd\]"$'):
        codec_named("zstd")
    assert isinstance(codec_named("raw"), RawCodec)
