"""The records of a source as columns, so that millions of them are compared at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.samples.file_states import FileStates, states_array
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import SampleTable, bytes_per_row, encode_text

_CHUNK = 1 << 16


@dataclass(frozen=True)
class TextColumn:
    """Texts of which there are few different ones: `values[codes[i]]` is that of record i, encoded."""

    values: NDArray[np.bytes_]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str], num_texts: int) -> TextColumn:
        """Column of `num_texts` texts."""
        numbers: dict[str, int] = {}
        codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, num_texts)
        return cls(np.array([encode_text(text) for text in numbers] or [b""], np.bytes_), codes)


@dataclass(frozen=True)
class RecordColumns:
    """Columns of N records in the order in which they were given.

    Attributes
    ----------
    records
        The records themselves.
    id_hashes : ndarray of shape (N,), uint64
    states : ndarray of shape (N, 4), int64
        See :mod:`leukemia_data.samples.file_states`.
    labels, folds : ndarray of shape (N,), int64
    subjects, splits
        As the index encodes them.
    row_bytes
        Bytes of a sample table's row that has room for the longest id, subject and split.
    """

    records: Sequence[Record]
    id_hashes: NDArray[np.uint64]
    states: FileStates
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    subjects: TextColumn
    splits: TextColumn
    row_bytes: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> RecordColumns:
        """Columns of records."""

        def numbers(name: str) -> NDArray[np.int64]:
            return np.fromiter(map(attrgetter(name), records), np.int64, len(records))

        id_hashes, longest_id_bytes = hash_ids(map(attrgetter("record_id"), records), len(records))
        subjects = TextColumn.of(map(attrgetter("subject"), records), len(records))
        splits = TextColumn.of(map(attrgetter("split"), records), len(records))
        return cls(
            records=records,
            id_hashes=id_hashes,
            states=states_array(map(attrgetter("state"), records), len(records)),
            labels=numbers("label"),
            folds=numbers("fold"),
            subjects=subjects,
            splits=splits,
            row_bytes=_row_bytes(longest_id_bytes, subjects, splits),
        )

    def __len__(self) -> int:
        return len(self.records)

    def encoded_ids(self, positions: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.bytes_]]]:
        """The ids at some positions as an index encodes them, a chunk of positions at a time."""
        for start in range(0, len(positions), _CHUNK):
            chunk = slice(start, min(start + _CHUNK, len(positions)))
            ids = [encode_text(self.records[n].record_id) for n in positions[chunk].tolist()]
            yield chunk, np.array(ids, np.bytes_)


def hash_ids(ids: Iterable[str], num_ids: int) -> tuple[NDArray[np.uint64], int]:
    """Hash of each id (:func:`~leukemia_data.samples.fingerprint.id_hash`), and bytes of the longest id."""
    hashes_N, longest_bytes, remaining = np.empty(num_ids, np.uint64), 0, iter(ids)
    for start in range(0, num_ids, _CHUNK):
        chunk = list(map(encode_text, islice(remaining, _CHUNK)))
        hashes_N[start : start + len(chunk)] = _hashes(chunk)
        longest_bytes = max(longest_bytes, max(map(len, chunk)))
    return hashes_N, longest_bytes


def hash_encoded_ids(ids_N: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """The same hashes of the ids of an index, shape (N,)."""
    parts = [_hashes(ids_N[start : start + _CHUNK].tolist()) for start in range(0, len(ids_N), _CHUNK)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _hashes(encoded: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.fromiter(map(xxhash.xxh3_64_intdigest, encoded), np.uint64, len(encoded))


def _row_bytes(longest_id_bytes: int, subjects: TextColumn, splits: TextColumn) -> int:
    widest = Record(
        "-" * longest_id_bytes,
        Path(),
        subject="-" * subjects.values.dtype.itemsize,
        split="-" * splits.values.dtype.itemsize,
    )
    return bytes_per_row(SampleTable.from_records([widest]))
