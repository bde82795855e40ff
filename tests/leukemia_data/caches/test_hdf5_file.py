"""HDF5 files with anything but plain datasets are refused before reading, following links or allocating."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leukemia_data.caches.hdf5_file import (
    SampleIndex,
    check_datasets,
    hdf5_bytes,
    map_table,
    open_hdf5,
    read_index,
    write_index,
)
from leukemia_data.caches.shard import read_table, write_shard
from leukemia_data.errors import CacheError
from leukemia_data.records.fingerprint import file_digest
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable

HUGE = 1 << 40


def _external_link(file: h5py.File, other: Path) -> None:
    with h5py.File(other, "w") as target:
        target["labels"] = np.zeros(3, np.int16)
    file["labels"] = h5py.ExternalLink(str(other), "labels")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["elsewhere"] = np.zeros(3, np.int16)
    file["labels"] = h5py.SoftLink("/elsewhere")


def _values_in_another_file(file: h5py.File, other: Path) -> None:
    other.write_bytes(bytes(6))
    file.create_dataset("labels", (3,), np.int16, external=[(str(other), 0, 6)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((3,), np.int16)
    layout[:] = h5py.VirtualSource(str(other), "labels", (3,))
    file.create_virtual_dataset("labels", layout)


def _huge_and_never_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("labels", (HUGE,), np.int16)


def _huge_and_chunked(file: h5py.File, other: Path) -> None:
    file.create_dataset("labels", (HUGE,), np.int16, chunks=(1 << 20,), compression="gzip")


def _group(file: h5py.File, other: Path) -> None:
    file.create_group("labels")


def _texts_of_any_length(file: h5py.File, other: Path) -> None:
    file.create_dataset("labels", data=["a"] * 3, dtype=h5py.string_dtype())


def _null(file: h5py.File, other: Path) -> None:
    file["labels"] = h5py.Empty(np.int16)


HOSTILE = [
    _external_link,
    _soft_link,
    _values_in_another_file,
    _virtual,
    _huge_and_never_written,
    _huge_and_chunked,
    _group,
    _texts_of_any_length,
    _null,
]


@pytest.fixture
def table() -> SampleTable:
    return SampleTable.from_records([Record(f"{n}.bmp", Path("x")) for n in range(3)])


def spoil(path: Path, make: Callable[[h5py.File, Path], None]) -> None:
    """Put something else in the place of a file's labels."""
    with h5py.File(path, "r+") as file:
        del file["labels"]
        make(file, path.with_name("other.h5"))


def test_plain_datasets_pass(tmp_path, table):
    entry = write_shard(tmp_path, np.zeros((3, 4, 4, 3), np.uint8), table, "f")
    with open_hdf5(tmp_path / entry.name) as file:
        check_datasets(file, ["images", "labels", "ids"])
        with pytest.raises(KeyError, match="there is no absent"):
            check_datasets(file, ["absent"])


def test_bytes_made_in_memory_are_those_of_a_file_whatever_else_is_being_made(tmp_path):
    def fill(file: h5py.File) -> None:
        file.create_dataset("images", data=np.arange(100_000, dtype=np.uint8))

    inner: list[bytes] = []
    settings = {"alignment_threshold": 1 << 16, "alignment_interval": 4096}
    with h5py.File(tmp_path / "file.h5", "w", **settings) as file:
        fill(file)
    outer = hdf5_bytes(lambda file: (fill(file), inner.append(hdf5_bytes(fill, **settings))), **settings)
    assert (tmp_path / "file.h5").read_bytes() == outer == inner[0]
    assert [path.name for path in tmp_path.iterdir()] == ["file.h5"]


@pytest.mark.parametrize("make", HOSTILE)
@pytest.mark.parametrize("is_mapped", [True, False])
def test_index_with_such_a_column_is_refused_though_its_digest_is_right(tmp_path, table, make, is_mapped):
    entry = write_index(tmp_path, SampleIndex(table, np.zeros((3, 4), np.int64)))
    path = tmp_path / entry.name
    spoil(path, make)
    forged = replace(entry, digest=file_digest(path), num_bytes=path.stat().st_size)
    tracemalloc.start()
    try:
        with pytest.raises(CacheError, match=f"{entry.name}: its sample table cannot be read: .*labels"):
            (map_table if is_mapped else read_index)(tmp_path, forged)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", HOSTILE)
def test_shard_with_such_a_column_is_refused(tmp_path, table, make):
    path = tmp_path / write_shard(tmp_path, np.zeros((3, 4, 4, 3), np.uint8), table, "f").name
    spoil(path, make)
    with pytest.raises(CacheError, match=f"{path.name}: its sample table cannot be read: .*labels"):
        read_table(path)


@pytest.mark.parametrize("name", ["source_sizes_bytes", "source_mtimes_ns", "source_ctimes_ns", "source_inodes"])
@pytest.mark.parametrize("column", [np.zeros(2, np.int64), np.zeros(3), np.zeros((3, 1), np.int64), None])
def test_file_states_of_another_length_or_type_are_refused(tmp_path, table, name, column):
    entry = write_index(tmp_path, SampleIndex(table, np.zeros((3, 4), np.int64)))
    path = tmp_path / entry.name
    with h5py.File(path, "r+") as file:
        del file[name]
        if column is not None:
            file[name] = column
    forged = replace(entry, digest=file_digest(path), num_bytes=path.stat().st_size)
    with pytest.raises(CacheError, match="different lengths or types" if column is not None else f"no {name}"):
        read_index(tmp_path, forged)
