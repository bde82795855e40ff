"""Every flipped bit of a cache of two images is found, and pixels of a damaged shard are not returned.

One bit of each byte by default, another one from byte to byte; all bits by ``make test-torture``.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.hdf5_file import read_index
from leukemia_data.caches.manifest import is_as_written, load_manifest
from leukemia_data.caches.shard import metadata_digest, shard_images
from leukemia_data.caches.shard_rows import open_rows
from leukemia_data.caches.verify import changed_shards, verify_cache
from leukemia_data.errors import CacheError
from leukemia_data.operations.framing import Canvas
from leukemia_data.operations.recipe import Recipe
from leukemia_data.operations.resizing import Resize
from leukemia_data.records.fingerprint import file_digest

from ..helpers import build, cache_dir, flip_bit, write_cell

SIZE = 8
bits = pytest.mark.parametrize("one_a_byte", [True, pytest.param(False, marks=pytest.mark.torture)])


@pytest.fixture(scope="module", params=["raw", "zstd"])
def cache(tmp_path_factory, request) -> Path:
    root = tmp_path_factory.mktemp("bits")
    for number, label in enumerate("ab"):
        write_cell(root / "s" / label / f"{number}.png", number)
    recipe = Recipe("r", (Canvas(side_px=16), Resize()))
    build(root / "s", root / "c", sizes_px=(SIZE,), recipe=recipe, name="c", codec=request.param)
    return cache_dir(root / "c", SIZE, "c")


def flips(path: Path, *, one_a_byte: bool) -> Iterator[int]:
    """Flip each bit of a file in turn, or one of each byte, and flip it back."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for offset in range(len(content)):
            intact = content[offset]
            for bit in [offset % 8] if one_a_byte else range(8):
                content[offset] = intact ^ 1 << bit
                yield offset
            content[offset] = intact


def is_refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except CacheError:
        return True
    return False


@bits
@pytest.mark.parametrize("cache", ["raw"], indirect=True)
def test_every_bit_of_the_manifest(cache, one_a_byte):
    flipped = flips(cache / "manifest.json", one_a_byte=one_a_byte)
    assert [n for n in flipped if not is_refused(lambda: load_manifest(cache)) and is_as_written(cache)] == []
    assert is_as_written(cache)


@bits
@pytest.mark.parametrize(
    ("cache", "which"), [("raw", "shard"), ("zstd", "shard"), ("raw", "index")], indirect=["cache"]
)
def test_every_bit_of_a_file_changes_its_digest(cache, which, one_a_byte):
    manifest = load_manifest(cache)
    entry = manifest.shards[0] if which == "shard" else manifest.index
    flipped = flips(cache / entry.name, one_a_byte=one_a_byte)
    assert [n for n in flipped if file_digest(cache / entry.name) == entry.digest] == []
    assert file_digest(cache / entry.name) == entry.digest


def test_every_byte_around_the_pixels_changes_the_metadata_digest_and_none_of_the_pixels(cache):
    [entry] = load_manifest(cache).shards
    images = shard_images(cache, entry, SIZE)
    pixels = range(images.offset_bytes, images.offset_bytes + images.num_bytes)
    unseen = {n for n in flips(images.path, one_a_byte=True) if metadata_digest(images) == entry.metadata_digest}
    assert unseen == set(pixels)


@pytest.mark.parametrize("step", [487])
def test_verify_and_readers_find_wrong_digests(cache, step):
    manifest = load_manifest(cache)
    [entry] = manifest.shards
    images = shard_images(cache, entry, SIZE)
    for offset in range(0, entry.num_bytes, step):
        flip_bit(images.path, offset, offset % 8)
        assert {damage.file for damage in verify_cache(cache, num_threads=1, progress=lambda _: None).damages} == {
            entry.name
        }
        assert len(changed_shards(cache, [entry], num_threads=1, progress=lambda _: None)) == 1
        is_pixel = images.offset_bytes <= offset < images.offset_bytes + images.num_bytes
        assert is_refused(lambda: open_rows(images)) != is_pixel
        if is_pixel and manifest.codec == "zstd":
            assert is_refused(lambda: SampleReader(open_cache(cache)).gather(np.arange(2)))
        flip_bit(images.path, offset, offset % 8)
    for offset in range(0, manifest.index.num_bytes, step):
        flip_bit(cache / manifest.index.name, offset)
        assert is_refused(lambda: read_index(cache, manifest.index))
        flip_bit(cache / manifest.index.name, offset)
    assert verify_cache(cache, num_threads=1, progress=lambda _: None).damages == ()
