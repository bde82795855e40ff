"""Samples that never were: ids, labels, subjects and digests of any number of cells, as columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.planned_tasks import sample_order, shard_bounds
from leukemia_data.building.prior import hash_encoded_ids
from leukemia_data.caches.hdf5_file import SampleIndex
from leukemia_data.files.atomic import FileState
from leukemia_data.records.near_looks import LOOK_VALUES
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable, states_array

CELLS_A_SUBJECT = 150
CLASSES = ("hem", "all")
FILE_BYTES = 608_454
FIRST_MTIME_NS = 1_500_000_000_000_000_000
FIRST_CTIME_NS = 1_600_000_000_123_456_789
FIRST_INODE = 12_345_678
_PATH = Path("cell.bmp")
# One in a hundred images shows the pixels of a cell of the subject beside, as in the published set.
_EVERY_SHARED = 100


def made_ids(numbers: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """``fold_1/all/UID_0000007_0001_000000123_all.bmp`` and the like, for cells of any numbers."""
    subjects = numbers // CELLS_A_SUBJECT
    labels = made_labels(subjects)
    pieces = (b"fold_", _digits(subjects % 3, 1), b"/", labels, b"/UID_", _digits(subjects, 7), b"_0001_")
    pieces = (*pieces, _digits(numbers, 9), b"_", labels, b".bmp")
    columns = [
        np.broadcast_to(np.frombuffer(piece, np.uint8), (len(numbers), len(piece)))
        if isinstance(piece, bytes)
        else _class_letters(piece)
        if piece.ndim == 1
        else piece
        for piece in pieces
    ]
    letters = np.concatenate(columns, axis=1)
    return letters.view(f"S{letters.shape[1]}").ravel()


def made_labels(subjects: NDArray[np.int64]) -> NDArray[np.int16]:
    """Two of three subjects have leukaemia."""
    return (subjects % 3 != 0).astype(np.int16)


def made_state(number: int) -> FileState:
    """What the system would tell of a cell's file."""
    return FileState(
        FILE_BYTES, FIRST_MTIME_NS + number * 1000, FIRST_CTIME_NS + number * 100_000, FIRST_INODE + number
    )


def made_records(num_samples: int) -> list[Record]:
    """The listing of a source with so many images. One path stands for all: listing has a measurement of its own."""
    numbers = np.arange(num_samples, dtype=np.int64)
    subjects = numbers // CELLS_A_SUBJECT
    texts = [f"{subject}" for subject in range(int(subjects[-1]) + 1)]
    columns = zip(
        made_ids(numbers).tolist(), made_labels(subjects).tolist(), subjects.tolist(), range(num_samples), strict=True
    )
    records = [
        Record(
            record_id.decode(),
            _PATH,
            label,
            texts[subject],
            "train",
            subject % 3,
            made_state(number),
        )
        for record_id, label, subject, number in columns
    ]
    records.sort(key=lambda record: record.record_id)
    return records


def made_index(num_samples: int, capacity: int) -> tuple[SampleIndex, NDArray[np.int64]]:
    """The index of a cache of such images, and where its samples are cut into shards."""
    numbers = np.arange(num_samples, dtype=np.int64)
    ids = made_ids(numbers)
    hashes = hash_encoded_ids(ids)
    order = sample_order(hashes, lambda position: ids[position].decode())
    bounds = shard_bounds(hashes[order], capacity)
    subjects = order // CELLS_A_SUBJECT
    random = np.random.default_rng(0)
    sums = random.integers(1 << 20, 1 << 22, (num_samples, 3)).astype(np.uint64)
    source_digests = random.integers(0, 256, (num_samples, 16), dtype=np.uint8)
    table = SampleTable(
        ids=ids[order],
        subjects=subjects.astype(np.bytes_),
        splits=np.full(num_samples, b"train"),
        labels=made_labels(subjects),
        folds=(subjects % 3).astype(np.int16),
        channel_sums=sums,
        channel_square_sums=sums * np.uint64(100),
        crcs=random.integers(0, 1 << 32, num_samples).astype(np.uint32),
        source_digests=source_digests,
        pixel_digests=_pixel_digests(order),
        looks=random.integers(-40, 41, (num_samples, LOOK_VALUES), dtype=np.int8),
    )
    return SampleIndex(table, states_array(map(made_state, order.tolist()), num_samples)), bounds


def _pixel_digests(order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Sixteen bytes a sample, the same for some cells of two subjects that stand beside each other."""
    shown = order.copy()
    is_shared = (order % _EVERY_SHARED == 0) & (order // CELLS_A_SUBJECT % 2 == 1)
    shown[is_shared] -= CELLS_A_SUBJECT
    mixed = shown.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.stack((mixed, mixed ^ (mixed >> np.uint64(31))), axis=1).view(np.uint8)


def _digits(numbers: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    powers = 10 ** np.arange(count - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def _class_letters(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    return np.frombuffer(b"hemall", np.uint8).reshape(2, 3)[labels]
