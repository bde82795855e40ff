from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

from leukemia_data.caches import hdf5_file as index_module
from leukemia_data.caches.hdf5_file import SampleIndex, check_fit, read_index, write_index
from leukemia_data.caches.manifest import IndexEntry, Manifest, ShardEntry
from leukemia_data.errors import CacheError
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable

from ..helpers import flip_bit

STATES = np.arange(7)[:, None] * np.array([1, 10**18, -1, 1]) + np.array([0, 0, 0, 2**62])


@pytest.fixture
def index() -> SampleIndex:
    records = [Record(f"a/{n}.bmp", Path("x"), n % 2, f"S{n % 3}", "", n % 2) for n in range(7)]
    return SampleIndex(SampleTable.from_records(records), STATES)


def test_what_was_written_is_read(tmp_path, index):
    entry = write_index(tmp_path, index)
    data = (tmp_path / entry.name).read_bytes()
    digest = xxhash.xxh3_128_hexdigest(data)
    assert entry == IndexEntry(f"index-{digest[:16]}.h5", len(data), digest)
    stored = read_index(tmp_path, entry)
    assert stored.table.equals(index.table)
    assert stored.source_states.tolist() == STATES.tolist()
    assert stored.has_change_times


def test_h5py_alone_reads_it(tmp_path, index):
    entry = write_index(tmp_path, index)
    with h5py.File(tmp_path / entry.name, "r") as file:
        assert file["ids"].asstr()[3] == "a/3.bmp"
        names = ("source_sizes_bytes", "source_mtimes_ns", "source_ctimes_ns", "source_inodes")
        assert [file[name][6] for name in names] == [6, 6 * 10**18, -6, 2**62 + 6]


def test_same_rows_give_the_same_file(tmp_path, index):
    assert write_index(tmp_path, index) == write_index(tmp_path, index)
    assert len(list(tmp_path.iterdir())) == 1


def test_empty_index(tmp_path, index):
    empty = SampleIndex(index.table.take([]), np.empty((0, 4), np.int64))
    assert len(read_index(tmp_path, write_index(tmp_path, empty)).table) == 0


@pytest.mark.parametrize(
    ("num_samples", "num_classes", "fits"), [(7, 2, True), (7, 3, True), (6, 2, False), (7, 1, False)]
)
def test_rows_fit_the_manifests_counts_and_classes(tmp_path, index, num_samples, num_classes, fits):
    shard = ShardEntry("shard-a.h5", num_samples, 10**6, "aa", 0, "bb")
    manifest = Manifest(
        name="n",
        size_px=8,
        fingerprint="f",
        recipe=load_recipe("raw"),
        classes=("hem", "all", "other")[:num_classes],
        shards=(shard,),
        index=IndexEntry("index-a.h5", 1, "aa"),
        quarantined=(),
        library_versions={},
        source_state=None,
    )
    if fits:
        check_fit(tmp_path, manifest, index.table)
        return
    with pytest.raises(CacheError, match=r"the index has (7 samples, the manifest 6|labels from 0 to 1, .* 1 classes)"):
        check_fit(tmp_path, manifest, index.table)


def test_every_flipped_bit_is_found(tmp_path, index):
    entry = write_index(tmp_path, index)
    for offset in range(0, entry.num_bytes, 211):
        flip_bit(tmp_path / entry.name, offset, offset % 8)
        with pytest.raises(CacheError, match="damaged"):
            read_index(tmp_path, entry)
        flip_bit(tmp_path / entry.name, offset, offset % 8)
    assert len(read_index(tmp_path, entry).table) == 7


def test_absent_unreadable_and_unfitting_files_are_cache_errors(tmp_path, index, monkeypatch):
    entry = write_index(tmp_path, index)
    with pytest.raises(CacheError, match="is missing"):
        read_index(tmp_path, replace(entry, name="index-x.h5"))
    uneven = write_index(tmp_path, replace(index, source_states=STATES[:3]))
    with pytest.raises(CacheError, match="different lengths"):
        read_index(tmp_path, uneven)

    def fail(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(index_module, "file_digest", fail)
    with pytest.raises(CacheError, match="cannot be read"):
        read_index(tmp_path, entry)
