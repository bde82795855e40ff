"""Columns of records have the values of the records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash

from leukemia_data.building import prior as record_columns
from leukemia_data.building.prior import RecordColumns, hash_encoded_ids
from leukemia_data.files.atomic import FileState
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable, bytes_per_row, encode_text

RECORDS = [
    Record("b/1.bmp", Path("1"), 1, "H1", "train", 2, FileState(10, 100, 3, 4)),
    Record("a/ü\udcff.bmp", Path("2"), -1, "", "", -1),
    Record("a/a-long-name.bmp", Path("3"), 0, "patient ü", "valid", 0, FileState(7, 2**62, -(2**62), -1)),
]


@pytest.fixture(params=[1, 2, 1 << 16])
def columns(request, monkeypatch) -> RecordColumns:
    monkeypatch.setattr(record_columns, "_CHUNK", request.param)
    return RecordColumns.of(RECORDS)


def test_columns_are_those_of_the_records(columns):
    assert len(columns) == 3
    assert columns.id_hashes.tolist() == [xxhash.xxh3_64_intdigest(encode_text(record.record_id)) for record in RECORDS]
    assert columns.states.tolist() == [[10, 100, 3, 4], [-1, -1, 0, 0], [7, 2**62, -(2**62), -1]]
    for column, name in [("labels", "label"), ("folds", "fold")]:
        assert getattr(columns, column).tolist() == [getattr(record, name) for record in RECORDS]
    for texts, name in [(columns.subjects, "subject"), (columns.splits, "split")]:
        assert texts.values[texts.codes].tolist() == [encode_text(getattr(record, name)) for record in RECORDS]


def test_a_row_has_room_for_the_longest_texts(columns):
    assert columns.row_bytes == bytes_per_row(SampleTable.from_records(RECORDS))


def test_ids_are_encoded_as_in_an_index(columns):
    ids = SampleTable.from_records(RECORDS).ids
    positions = np.array([2, 0, 1])
    assert [value for _, chunk in columns.encoded_ids(positions) for value in chunk.tolist()] == ids[positions].tolist()
    assert hash_encoded_ids(ids).tolist() == columns.id_hashes.tolist()


def test_no_records_at_all():
    columns = RecordColumns.of([])
    assert len(columns) == len(columns.id_hashes) == len(columns.subjects.codes) == 0
