"""Compressed shards compared with h5py and hdf5plugin and with raw ones, and damaged ones."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard

from leukemia_data.caches import shard as shard_module
from leukemia_data.caches.cache import Cache, SampleReader, open_cache
from leukemia_data.caches.manifest import ShardEntry, load_manifest
from leukemia_data.caches.shard import (
    ShardImages,
    metadata_digest,
    open_images,
    read_table,
    shard_bytes,
    shard_images,
    write_shard,
)
from leukemia_data.caches.shard_rows import (
    DecodedRows,
    PlainRows,
    image_starts,
    is_mapped,
    open_damaged_rows,
    open_rows,
    starts_by_content,
)
from leukemia_data.caches.verify import changed_shards, intact_images, verify_cache
from leukemia_data.errors import CacheError
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable

from ..helpers import build, cache_dir, flip_bit, forget_zstandard, make_source, python_environment

NUM, SIZE = 24, 16
OPENERS = {"mapped": open_rows, "read": PlainRows}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with a source, and its caches ``raw`` and ``zstd``. Read it, never change it."""
    folder = tmp_path_factory.mktemp("compressed")
    make_source(folder / "source", NUM)
    for codec in ("raw", "zstd"):
        build(folder / "source", folder / codec, sizes_px=(SIZE,), codec=codec)
    return folder


@pytest.fixture(scope="module")
def pixels(built) -> np.ndarray:
    with open_cache(cache_dir(built / "raw")) as cache:
        return cache.reader.gather(np.arange(NUM))


@pytest.fixture
def cache(built, tmp_path) -> Cache:
    """A compressed cache that a test may damage."""
    return open_cache(Path(shutil.copytree(cache_dir(built / "zstd"), tmp_path / "cache")))


@pytest.fixture
def entry(cache) -> ShardEntry:
    return cache.manifest.shards[0]


@pytest.fixture
def first(cache, entry) -> ShardImages:
    return shard_images(cache.directory, entry, SIZE)


def mixed_images(num: int, side: int) -> tuple[np.ndarray, SampleTable]:
    """Noise that no codec makes smaller, and black."""
    images = np.random.default_rng(num).integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    images[1::2] = 0
    records = [Record(f"{n:04}.png", Path("x"), n % 2, "p") for n in range(num)]
    return images, SampleTable.from_records(records)


def change_bytes(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def lengths_of(images: ShardImages) -> np.ndarray:
    assert images.chunks is not None
    return np.fromfile(images.path, "<u4", images.shape[0], offset=images.chunks.lengths_offset_bytes)


def without_digest(images: ShardImages) -> ShardImages:
    """A forged manifest whose digest fits the damaged bytes."""
    return replace(images, metadata_digest=metadata_digest(images))


def test_any_hdf5_tool_with_the_filter_reads_the_images(cache, pixels):
    assert h5py.h5z.filter_avail(hdf5plugin.Zstd.filter_id)
    found = []
    for shard in cache.manifest.shards:
        with h5py.File(cache.directory / shard.name, "r") as file:
            assert file["images"].chunks == (1, SIZE, SIZE, 3)
            found.append(file["images"][()])
    assert len(found) > 1
    assert np.array_equal(np.concatenate(found), pixels)


def test_images_are_read_by_hand_as_the_format_says(cache, pixels):
    manifest = json.loads((cache.directory / "manifest.json").read_text())
    found = []
    for shard in manifest["shards"]:
        data = (cache.directory / shard["name"]).read_bytes()
        place, end = shard["images_offset_bytes"], shard["chunk_lengths_offset_bytes"] + 4 * shard["num_samples"]
        for length in np.frombuffer(data[shard["chunk_lengths_offset_bytes"] : end], "<u4").tolist():
            found.append(zstandard.ZstdDecompressor().decompress(data[place : place + length]))
            place += length
        assert place == shard["images_offset_bytes"] + shard["chunks_num_bytes"]
    assert b"".join(found) == pixels.tobytes()
    assert manifest["library_versions"]["zstandard"] == zstandard.__version__


@pytest.mark.parametrize("opener", OPENERS)
def test_readers_give_the_pixels_of_the_raw_cache(cache, pixels, opener):
    reader = SampleReader(cache, open_rows=OPENERS[opener])
    numbers = np.array([5, 0, 23, 5, 11])
    assert np.array_equal(reader.gather(numbers), pixels[numbers])
    out = np.empty((5, SIZE, SIZE, 3), np.uint8)
    assert reader.gather(numbers, out) is out
    assert np.array_equal(out, pixels[numbers])
    assert np.array_equal(reader.image(7), pixels[7])
    with pytest.raises(ValueError, match="read-only"):
        reader.image(7)[:] = 0
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).gather(numbers), pixels[numbers])
    assert reader.num_unmapped == (0 if opener == "mapped" else len(cache.manifest.shards))


def test_without_maps_the_shards_are_read(cache, pixels, monkeypatch):
    def no_map(*arguments: object, **options: object) -> object:
        raise OSError(19, "No such device")

    monkeypatch.setattr(np, "memmap", no_map)
    reader = SampleReader(cache)
    assert reader.num_unmapped == len(cache.manifest.shards)
    assert np.array_equal(reader.gather(np.arange(NUM)), pixels)


def test_cache_is_the_raw_one_in_everything_but_its_shards(built, cache):
    raw = open_cache(cache_dir(built / "raw"))
    assert cache.table.equals(raw.table)
    assert cache.manifest.index == raw.manifest.index
    assert cache.manifest.fingerprint == raw.manifest.fingerprint
    assert cache.manifest.source_state == raw.manifest.source_state
    assert verify_cache(cache.directory, num_threads=2, progress=lambda _: None).damages == ()


@pytest.mark.parametrize(("num", "side"), [(1, 8), (3, 8), (129, 8), (300, 4), (5, 100)])
def test_chunks_are_contiguous_for_any_number_and_size(tmp_path, num, side):
    images, table = mixed_images(num, side)
    entry = write_shard(tmp_path, images, table, "f", "zstd")
    located = shard_images(tmp_path, entry, side)
    assert open_images(located.path) == located
    assert read_table(located.path).equals(table)
    assert lengths_of(located).sum() == located.num_bytes == entry.chunks_num_bytes
    rows = open_rows(located)
    assert all(np.array_equal(rows[row], image.ravel()) for row, image in enumerate(images))
    assert max(lengths_of(located)) > side * side * 3


def test_layout_that_another_release_of_hdf5_might_choose_is_not_taken_on_trust(tmp_path, monkeypatch):
    layout = {"fs_strategy": "none", "alignment_threshold": 1, "alignment_interval": 64}
    monkeypatch.setattr(shard_module, "_file_layout", lambda codec: layout)
    images, table = mixed_images(20, 40)
    with pytest.raises(ValueError, match="does not lie behind the one before it"):
        write_shard(tmp_path, images, table, "f", "zstd")


def test_bytes_are_the_same_at_any_time(tmp_path):
    images, table = mixed_images(5, 8)
    entry = write_shard(tmp_path, images, table, "f", "zstd")
    # HDF5 counts time in whole seconds.
    time.sleep(1.1)
    assert write_shard(tmp_path / ".", images, table, "f", "zstd") == entry
    assert len(list(tmp_path.iterdir())) == 1


def test_room_is_kept_free_for_a_third_of_the_pixels():
    assert shard_bytes(10, 20, 5, "zstd") - shard_bytes(0, 20, 5, "zstd") == 10 * (400 + 5)


@pytest.mark.parametrize("row", [0, 3])
def test_the_error_of_a_damaged_chunk_names_its_shard_and_index(cache, first, row):
    starts = image_starts(first, lambda offset, num: first.path.read_bytes()[offset : offset + num])
    flip_bit(first.path, int(starts[row]) + 40, 3)
    reader = SampleReader(cache)
    with pytest.raises(CacheError, match=rf"{first.path.name} is damaged, image {row} in it: .*--repair"):
        reader.image(row)
    with pytest.raises(CacheError, match=rf"image {row} in it"):
        reader.gather(np.arange(NUM))
    assert reader.image(row + 1).any()
    found = verify_cache(cache.directory, num_threads=1, progress=lambda _: None)
    assert [damage.record_ids for damage in found.damages] == [(), (cache.table.id_texts[row],)]
    assert len(changed_shards(cache.directory, cache.manifest.shards, num_threads=1, progress=lambda _: None)) == 1


def test_swapped_chunks_are_found_by_their_crcs(cache, first):
    starts = image_starts(first, lambda offset, num: first.path.read_bytes()[offset : offset + num]).tolist()
    data, lengths = first.path.read_bytes(), lengths_of(first)
    change_bytes(first.path, starts[0], data[starts[1] : starts[2]] + data[starts[0] : starts[1]])
    lengths[[0, 1]] = lengths[[1, 0]]
    change_bytes(first.path, first.chunks.lengths_offset_bytes, lengths.tobytes())
    rows = cache.table.take(np.arange(first.shape[0]))
    assert intact_images(first, rows).tolist() == [False, False] + [True] * (first.shape[0] - 2)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("keep", [0, 100, 9000, -1])
def test_truncated_shard_is_refused(cache, first, opener, keep):
    first.path.write_bytes(first.path.read_bytes()[:keep])
    with pytest.raises(CacheError, match=first.path.name):
        OPENERS[opener](first)
    with pytest.raises(CacheError, match="missing or truncated"):
        open_cache(cache.directory)
    if keep >= 0:
        with pytest.raises(CacheError, match=first.path.name):
            open_damaged_rows(first)


def one_more(lengths: np.ndarray) -> None:
    lengths[0] += 1


def as_large_as_can_be(lengths: np.ndarray) -> None:
    lengths[2] = 2**32 - 1


def none_at_all(lengths: np.ndarray) -> None:
    lengths[1], lengths[0] = 0, lengths[0] + lengths[1]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("change", [one_more, as_large_as_can_be, none_at_all])
def test_wrong_lengths_are_refused_even_with_a_digest_that_fits(first, change, opener):
    lengths = lengths_of(first)
    change(lengths)
    change_bytes(first.path, first.chunks.lengths_offset_bytes, lengths.tobytes())
    with pytest.raises(CacheError, match=r"rows are not those|damaged or too short|cannot be mapped"):
        OPENERS[opener](first)
    with pytest.raises(CacheError, match="the lengths of its chunks"):
        OPENERS[opener](without_digest(first))
    with pytest.raises(CacheError, match="does not lie behind"):
        open_images(first.path)


@pytest.mark.parametrize("opener", OPENERS)
def test_lengths_that_add_up_but_are_wrong_end_in_the_images_they_hit(first, opener):
    lengths = lengths_of(first)
    lengths[0] += 7
    lengths[1] -= 7
    change_bytes(first.path, first.chunks.lengths_offset_bytes, lengths.tobytes())
    rows = OPENERS[opener](without_digest(first))
    with pytest.raises(CacheError, match="image 1 in it"):
        rows[1]
    assert rows[2].any()


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    "places",
    [
        {"offset_bytes": 1},
        {"num_bytes": -1},
        {"num_bytes": 1},
        {"lengths_offset_bytes": 4},
        {"lengths_offset_bytes": -4000},
        {"lengths_offset_bytes": 10**9},
    ],
)
def test_wrong_offsets_of_a_forged_manifest_read_nothing_out_of_range(first, places, opener):
    assert first.chunks is not None
    own = {name: getattr(first.chunks, name) + change for name, change in places.items() if name != "offset_bytes"}
    wrong = replace(
        first, offset_bytes=first.offset_bytes + places.get("offset_bytes", 0), chunks=replace(first.chunks, **own)
    )
    with pytest.raises(CacheError, match=first.path.name):
        OPENERS[opener](without_digest(wrong))[0]


def test_images_are_found_again_where_the_lengths_are_damaged(cache, first):
    starts = starts_by_content(first, lambda offset, num: first.path.read_bytes()[offset : offset + num])
    assert np.array_equal(np.diff(starts), lengths_of(first))
    flip_bit(first.path, first.chunks.lengths_offset_bytes, 5)
    flip_bit(first.path, int(starts[5]), 1)
    rows = cache.table.take(np.arange(first.shape[0]))
    assert intact_images(first, rows).tolist() == [True] * 5 + [False] * (first.shape[0] - 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.move("chunk_lengths", "other"), "there is no chunk_lengths"),
        (lambda file: replaced(file, "chunk_lengths", np.zeros(3, np.uint32)), r"chunk_lengths is uint32 \(3,\)"),
        (lambda file: replaced(file, "chunk_lengths", np.zeros(7, np.int64)), "chunk_lengths is int64"),
        (lambda file: replaced(file, "images", np.zeros((7, SIZE, SIZE, 3), np.uint8)), "not one chunk an image"),
        (lambda file: rechunked(file, chunks=(2, SIZE, SIZE, 3)), "not one chunk an image"),
        (lambda file: rechunked(file, chunks=(1, SIZE, SIZE, 3), compression="gzip"), "not one chunk an image"),
        (lambda file: rechunked(file, chunks=(1, SIZE, SIZE, 3), **hdf5plugin.Zstd()), "does not lie behind"),
        (lambda file: file.attrs.modify("format_version", 1), "not stored contiguously"),
    ],
)
def test_other_layouts_are_refused(first, change: Callable[[h5py.File], object], message):
    with h5py.File(first.path, "r+") as file:
        assert len(file["images"]) == 7
        change(file)
    with pytest.raises(CacheError, match=message):
        open_images(first.path)


def replaced(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


def rechunked(file: h5py.File, **layout: object) -> None:
    del file["images"]
    file.create_dataset("images", data=np.zeros((7, SIZE, SIZE, 3), np.uint8), **layout)


def test_without_the_library_nothing_is_called_damaged(cache, monkeypatch):
    forget_zstandard(monkeypatch)
    for read in (lambda: SampleReader(cache), lambda: verify_cache(cache.directory, num_threads=1, progress=print)):
        with pytest.raises(CacheError, match=r'pip install -e "\.\[zstd\]"'):
            read()
    assert len(open_cache(cache.directory)) == NUM


def test_raw_caches_load_neither_library():
    code = "import leukemia_data.caches.cache, sys; print({'zstandard', 'hdf5plugin'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_files_are_closed_with_the_rows(first):
    def num_open() -> int:
        return sum(os.path.realpath(path) == str(first.path) for path in Path("/proc/self/fd").iterdir())

    rows = PlainRows(first)
    assert (num_open(), is_mapped(rows)) == (1, False)
    del rows
    mapped = open_rows(first)
    assert isinstance(mapped, DecodedRows)
    assert (num_open(), is_mapped(mapped)) == (1, True)
    del mapped
    assert num_open() == 0


def test_manifest_of_a_compressed_cache_has_its_ratio(cache, pixels):
    stored = sum(shard.chunks_num_bytes or 0 for shard in cache.manifest.shards)
    assert load_manifest(cache.directory).compression_ratio == pytest.approx(pixels.nbytes / stored)
