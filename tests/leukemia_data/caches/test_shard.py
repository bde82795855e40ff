"""Shards compared with plain h5py, with plain file reads, and with files of other writers."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

from leukemia_data.caches.manifest import ShardEntry
from leukemia_data.caches.shard import ShardImages, open_images, read_table, shard_bytes, shard_images, write_shard
from leukemia_data.errors import CacheError
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable

from ..helpers import python_environment

NUM, SIZE = 5, 96
FINGERPRINT = "0123456789abcdef" * 4

WRITE_ONE = """
import sys
from pathlib import Path
import numpy as np
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.caches.shard import write_shard
records = [Record(f"all/cell {n} \\u00e4.bmp", Path("x"), n % 2, f"S{n}", "train", 1) for n in range(5)]
images = np.random.default_rng(3).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
print(write_shard(Path(sys.argv[1]), images, SampleTable.from_records(records), "0123456789abcdef" * 4).name)
"""


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (NUM, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def table() -> SampleTable:
    return SampleTable.from_records(
        [Record(f"all/cell {n} ä.bmp", Path("x"), n % 2, f"S{n}", "train", 1) for n in range(NUM)]
    )


@pytest.fixture
def entry(tmp_path, images, table) -> ShardEntry:
    return write_shard(tmp_path, images, table, FINGERPRINT)


def test_h5py_alone_reads_images_and_rows(tmp_path, images, entry):
    with h5py.File(tmp_path / entry.name, "r") as file:
        assert np.array_equal(file["images"][()], images)
        assert file["labels"][()].tolist() == [0, 1, 0, 1, 0]
        assert file["ids"].asstr()[()].tolist() == [f"all/cell {n} ä.bmp" for n in range(NUM)]
        assert file["subjects"].asstr()[()].tolist() == [f"S{n}" for n in range(NUM)]
        assert file.attrs["fingerprint"] == FINGERPRINT


def test_images_are_contiguous_unfiltered_uint8_and_page_aligned(tmp_path, entry):
    with h5py.File(tmp_path / entry.name, "r") as file:
        dataset = file["images"]
        assert dataset.dtype == np.uint8
        assert dataset.chunks is None
        assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert dataset.id.get_create_plist().get_nfilters() == 0
        assert dataset.id.get_offset() % 4096 == 0
        assert dataset.id.get_storage_size() == NUM * SIZE * SIZE * 3


def test_pixels_in_the_file_are_those_in_memory(tmp_path, images, entry):
    path = tmp_path / entry.name
    with h5py.File(path, "r") as file:
        offset = file["images"].id.get_offset()
    assert path.read_bytes()[offset : offset + images.nbytes] == images.tobytes()
    assert np.array_equal(np.memmap(path, np.uint8, "r", offset, images.shape), images)
    assert entry.images_offset_bytes == offset
    assert open_images(path) == ShardImages(path, offset, images.shape) == shard_images(tmp_path, entry, SIZE)
    assert np.array_equal(open_images(path).map(), images)
    with pytest.raises(ValueError, match="read-only"):
        open_images(path).map()[0] = 0


def test_name_and_digest_are_those_of_the_bytes(tmp_path, entry):
    data = (tmp_path / entry.name).read_bytes()
    digest = xxhash.xxh3_128_hexdigest(data)
    assert (entry.digest, entry.num_bytes, entry.num_samples) == (digest, len(data), NUM)
    assert entry.name == f"shard-{digest[:16]}.h5"
    assert [path.name for path in tmp_path.iterdir()] == [entry.name]


def test_bytes_are_the_same_in_another_process_and_at_another_time(tmp_path, entry):
    other = tmp_path / "other"
    other.mkdir()
    environment = python_environment(PYTHONHASHSEED="77", TZ="Asia/Tokyo", MALLOC_PERTURB_="85")
    command = [sys.executable, "-c", WRITE_ONE, str(other)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == entry.name
    assert (other / entry.name).read_bytes() == (tmp_path / entry.name).read_bytes()


def test_bytes_depend_on_text_values_not_on_the_width_they_were_kept_in(tmp_path, images, table, entry):
    longer = Record("all/a much longer name that is dropped again.bmp", Path("x"), subject="somebody else")
    wide = SampleTable.concatenate([table, SampleTable.from_records([longer])]).take(range(NUM))
    assert write_shard(tmp_path, images, wide, FINGERPRINT) == entry


def test_every_argument_changes_the_name(tmp_path, images, table, entry):
    other_pixel = images.copy()
    other_pixel[-1, -1, -1, -1] ^= 1
    others = {
        write_shard(tmp_path, other_pixel, table, FINGERPRINT).name,
        write_shard(tmp_path, images, table, "f" * 64).name,
        write_shard(tmp_path, images[:4], table.take(range(4)), FINGERPRINT).name,
    }
    assert len(others | {entry.name}) == 4


def test_an_existing_equal_shard_is_kept_and_a_damaged_one_replaced(tmp_path, images, table, entry):
    path = tmp_path / entry.name
    inode, data = path.stat().st_ino, path.read_bytes()
    write_shard(tmp_path, images, table, FINGERPRINT)
    assert path.stat().st_ino == inode
    path.write_bytes(data[:-1] + b"?")
    write_shard(tmp_path, images, table, FINGERPRINT)
    assert path.read_bytes() == data


def test_table_survives_with_names_that_are_no_utf8(tmp_path, images, table):
    odd = SampleTable.from_records([Record(f"all/\udcff{n}", Path("x"), subject="\udce4") for n in range(NUM)])
    stored = read_table(tmp_path / write_shard(tmp_path, images, odd, FINGERPRINT).name)
    assert stored.equals(odd)
    assert stored.id_texts[2] == "all/\udcff2"


@pytest.mark.parametrize("id_length", [8, 700])
@pytest.mark.parametrize(("num", "size"), [(1, 8), (128, 8), (100, 64)])
def test_shard_bytes_is_an_upper_bound(tmp_path, num, size, id_length):
    rows = SampleTable.from_records([Record(f"{n:0{id_length}}", Path("x")) for n in range(num)])
    entry = write_shard(tmp_path, np.zeros((num, size, size, 3), np.uint8), rows, FINGERPRINT)
    row_bytes = 1 + 1 + id_length + 2 + 2 + 24 + 24 + 4 + 16 + 16
    assert entry.num_bytes <= shard_bytes(num, size, row_bytes) <= entry.num_bytes + (16 << 10)


def _foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 4, 4, 3), np.uint8)


def _marked(path: Path, **dataset: object) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "leukemia-cells shard", 1
        if dataset:
            file.create_dataset("images", **dataset)


ZEROS = np.zeros((2, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_foreign, "expected 'leukemia-cells shard'"),
        (_marked, "there is no images"),
        (lambda path: _marked(path, data=ZEROS, chunks=(1, 64, 64, 3)), "not stored contiguously"),
        (lambda path: _marked(path, data=ZEROS, compression="gzip"), "not stored contiguously"),
        (lambda path: _marked(path, data=ZEROS[..., 0]), "holds no uint8 images"),
        (lambda path: _marked(path, data=ZEROS.astype(np.float32)), "holds no uint8 images"),
        (lambda path: path.write_bytes(b"not HDF5"), "cannot be read as HDF5"),
        (lambda path: path.write_bytes(b""), "cannot be read as HDF5"),
        (lambda path: None, "is missing"),
    ],
)
def test_other_files_are_refused(tmp_path, make, message):
    path = tmp_path / "shard-0000000000000000.h5"
    make(path)
    with pytest.raises(CacheError, match=message):
        open_images(path)
    with pytest.raises(CacheError, match=r"shard-0000000000000000\.h5"):
        read_table(path)


def test_unallocated_images_are_refused(tmp_path):
    _marked(tmp_path / "empty.h5", shape=(2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(CacheError, match="has no room in the file"):
        open_images(tmp_path / "empty.h5")


@pytest.mark.parametrize("version", [0, 3, "1"])
def test_other_format_version_is_refused(tmp_path, entry, version):
    with h5py.File(tmp_path / entry.name, "r+") as file:
        file.attrs["format_version"] = version
    with pytest.raises(CacheError, match=r"version 1 or 2, found .* version"):
        open_images(tmp_path / entry.name)


@pytest.mark.parametrize("keep_bytes", [0, 7, 100, 5000, 100_000, -1])
def test_truncated_shard_is_refused(tmp_path, entry, keep_bytes):
    path = tmp_path / entry.name
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(CacheError, match=entry.name):
        open_images(path)


def test_map_of_a_vanished_or_short_file_is_a_cache_error(tmp_path, entry):
    located = shard_images(tmp_path, entry, SIZE)
    located.path.write_bytes(located.path.read_bytes()[:20_000])
    with pytest.raises(CacheError, match="cannot be mapped"):
        located.map()
    located.path.unlink()
    with pytest.raises(CacheError, match="cannot be mapped"):
        located.map()


def test_limit_of_open_files_is_named_with_its_cure(tmp_path, entry, monkeypatch):
    def no_descriptor_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np, "memmap", no_descriptor_left)
    with pytest.raises(CacheError, match=r"cannot be mapped: .*Too many open files; .*`ulimit -n"):
        shard_images(tmp_path, entry, SIZE).map()


@pytest.mark.parametrize("column", ["labels", "ids", "crcs"])
def test_column_that_is_absent_or_of_another_type_is_refused(tmp_path, entry, column):
    path = tmp_path / entry.name
    with h5py.File(path, "r+") as file:
        del file[column]
    with pytest.raises(CacheError, match="sample table"):
        read_table(path)
    with h5py.File(path, "r+") as file:
        file[column] = np.zeros(NUM, np.float64)
    with pytest.raises(CacheError, match="sample table"):
        read_table(path)
