from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import (
    SampleTable,
    bytes_per_row,
    column_names,
    decode_texts,
    read_columns,
    write_columns,
)

UNDECODABLE = b"f\xfcnf.bmp".decode("utf-8", "surrogateescape")
IDS = ["a/UID_1_1_1_all.bmp", "ü/größe 細胞.png", UNDECODABLE, "🔬.bmp", "x"]


def filled_table(rng: np.random.Generator, ids: list[str]) -> SampleTable:
    """Table with every column filled to the edges of its type."""
    n = len(ids)
    records = [Record(name, Path(name), k - 1, f"H{k}", ("train", "")[k % 2], k - 1) for k, name in enumerate(ids)]
    top = 2**64 - 1
    return replace(
        SampleTable.from_records(records),
        channel_sums=rng.integers(0, top, (n, 3), np.uint64, endpoint=True),
        channel_square_sums=np.full((n, 3), top, np.uint64),
        crcs=rng.integers(0, 2**32 - 1, n, np.uint32, endpoint=True),
        source_digests=rng.integers(0, 256, (n, 16), np.uint8),
        pixel_digests=rng.integers(0, 256, (n, 16), np.uint8),
        looks=rng.integers(-127, 128, (n, 64), np.int8),
    )


def stored(path: Path, table: SampleTable) -> Path:
    with h5py.File(path, "w") as file:
        write_columns(file, table)
    return path


def test_records_become_rows():
    records = [Record("b", Path("/x/b"), 1, "H1", "train", 2), Record("a", Path("/x/a"))]
    table = SampleTable.from_records(records)
    assert len(table) == 2
    assert table.id_texts == ["b", "a"]
    assert table.subject_texts == ["H1", ""]
    assert decode_texts(table.splits) == ["train", ""]
    assert table.labels.tolist() == [1, -1]
    assert table.folds.tolist() == [2, -1]
    assert not table.channel_sums.any()
    assert table.pixel_digests.shape == (2, 16)


def test_texts_of_every_alphabet_and_of_none(rng):
    assert filled_table(rng, IDS).id_texts == IDS


def test_round_trip(tmp_path, rng):
    table = filled_table(rng, IDS)
    with h5py.File(stored(tmp_path / "table.h5", table), "r") as file:
        read = read_columns(file)
        assert file["ids"].chunks is None
    assert read.equals(table)
    assert read.id_texts == IDS
    for name in column_names():
        assert getattr(read, name).dtype == getattr(table, name).dtype


@pytest.mark.parametrize("ids", [[], ["only"]])
def test_round_trip_of_few(tmp_path, rng, ids):
    table = filled_table(rng, ids)
    with h5py.File(stored(tmp_path / "table.h5", table), "r") as file:
        read = read_columns(file)
    assert read.equals(table)
    assert len(read) == len(ids)


def test_others_read_the_ids_as_utf_8_text(tmp_path, rng):
    with h5py.File(stored(tmp_path / "table.h5", filled_table(rng, IDS)), "r") as file:
        assert file["ids"].asstr()[1] == IDS[1]


def test_tables_of_different_text_widths_join_without_loss(rng):
    first, second = filled_table(rng, ["a", "b"]), filled_table(rng, ["a much longer name"])
    joined = SampleTable.concatenate([first, second])
    assert joined.id_texts == ["a", "b", "a much longer name"]
    assert joined.take([0, 1]).equals(first)
    assert joined.take([2]).equals(second)
    assert len(SampleTable.concatenate([])) == 0


def test_rows_are_taken_by_number_and_by_mask(rng):
    table = filled_table(rng, IDS)
    assert table.take([3, 0]).id_texts == [IDS[3], IDS[0]]
    assert table.take(np.array([True, False, False, True, False])).id_texts == [IDS[0], IDS[3]]
    np.testing.assert_array_equal(table.take([3]).pixel_digests[0], table.pixel_digests[3])
    assert len(table.take(np.array([], np.int64))) == 0


@pytest.mark.parametrize("name", column_names())
def test_a_difference_in_any_column_is_seen(rng, name):
    table = filled_table(rng, ["a", "b"])
    column = getattr(table, name).copy()
    column[1] = b"zz" if column.dtype.kind == "S" else column[1] ^ 1
    assert not replace(table, **{name: column}).equals(table)


def test_a_table_without_looks_is_stored_without_that_column(tmp_path, rng):
    table = replace(filled_table(rng, IDS), looks=np.zeros((len(IDS), 64), np.int8))
    with h5py.File(stored(tmp_path / "table.h5", table), "r") as file:
        assert "looks" not in file
        assert read_columns(file).equals(table)


def test_groups_of_near_identical_images_are_found_once_for_all_parts_of_a_table(rng):
    table = filled_table(rng, IDS)
    table.looks[2] = table.looks[0]
    assert table.near_groups.tolist()[:3] == [0, 1, 0]
    assert table.take([2, 1]).near_groups.tolist() == [0, 1]


def test_bytes_per_row(rng):
    # ids of 3 bytes, subjects H0 of 2, splits of 5; 2 + 2 labels and folds; 24 + 24; 4; 16 + 16; looks of 64.
    assert bytes_per_row(filled_table(rng, ["abc", "d"])) == 3 + 2 + 5 + 4 + 48 + 4 + 32 + 64


@pytest.mark.parametrize("name", [name for name in column_names() if name != "looks"])
def test_a_missing_column_is_an_error(tmp_path, rng, name):
    path = stored(tmp_path / "table.h5", filled_table(rng, IDS))
    with h5py.File(path, "r+") as file:
        del file[name]
    with h5py.File(path, "r") as file, pytest.raises(KeyError):
        read_columns(file)


@pytest.mark.parametrize("name", column_names())
@pytest.mark.parametrize("damage", ["short", "type", "shape", "scalar"])
def test_a_wrong_column_is_an_error(tmp_path, rng, name, damage):
    path = stored(tmp_path / "table.h5", filled_table(rng, IDS))
    with h5py.File(path, "r+") as file:
        column = file[name][()]
        del file[name]
        changed = {
            "short": column[:-1],
            "type": np.zeros(column.shape, np.float32),
            "shape": np.repeat(column[:, None], 2, axis=1),
            "scalar": column.ravel()[0],
        }[damage]
        file[name] = changed
    with h5py.File(path, "r") as file, pytest.raises(ValueError, match="column"):
        read_columns(file)
