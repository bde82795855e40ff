"""The sample table: the metadata of a cache's samples as columns, and the interface of a cache for streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import Any, Protocol, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import UNSETTLED_NS, FileState
from leukemia_data.records.arguments import Indices, as_indices
from leukemia_data.records.fingerprint import DIGEST_BYTES
from leukemia_data.records.near_looks import LOOK_VALUES, near_groups
from leukemia_data.records.record import Record

_TEXT_ENCODING = "utf-8"
_MAY_BE_ABSENT = frozenset({"looks"})


@dataclass(frozen=True)
class SampleTable:
    """Columns of equal length n; row i of each belongs to sample i.

    Attributes
    ----------
    ids, subjects, splits : ndarray of shape (n,), bytes
        UTF-8: the record's id, subject and given split (the latter two may be empty).
    labels, folds : ndarray of shape (n,), int16
        -1 if unknown or absent.
    channel_sums, channel_square_sums : ndarray of shape (n, 3), uint64
        Sum and sum of squares of the cached pixels per channel, in RGB order.
    crcs : ndarray of shape (n,), uint32
        CRC-32 (zlib) of the cached pixels in C order.
    source_digests, pixel_digests : ndarray of shape (n, 16), uint8
        XXH3-128 of the source file's bytes, and of its decoded frame (height, width, pixels): equal pixels have
        equal digests whatever the file format.
    looks : ndarray of shape (n, 64), int8
        Of the decoded frame, see :mod:`leukemia_data.decoding.look`; zeros for empty frames, and in all rows of caches
        of releases without looks.
    """

    ids: NDArray[np.bytes_]
    subjects: NDArray[np.bytes_]
    splits: NDArray[np.bytes_]
    labels: NDArray[np.int16]
    folds: NDArray[np.int16]
    channel_sums: NDArray[np.uint64]
    channel_square_sums: NDArray[np.uint64]
    crcs: NDArray[np.uint32]
    source_digests: NDArray[np.uint8]
    pixel_digests: NDArray[np.uint8]
    looks: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> SampleTable:
        """Return a table with the records' metadata, and zeros for values of pixels."""
        n = len(records)
        return cls(
            ids=_encode(record.record_id for record in records),
            subjects=_encode(record.subject for record in records),
            splits=_encode(record.split for record in records),
            labels=np.array([record.label for record in records], np.int16),
            folds=np.array([record.fold for record in records], np.int16),
            channel_sums=np.zeros((n, 3), np.uint64),
            channel_square_sums=np.zeros((n, 3), np.uint64),
            crcs=np.zeros(n, np.uint32),
            source_digests=np.zeros((n, DIGEST_BYTES), np.uint8),
            pixel_digests=np.zeros((n, DIGEST_BYTES), np.uint8),
            looks=np.zeros((n, LOOK_VALUES), np.int8),
        )

    @classmethod
    def concatenate(cls, tables: Sequence[SampleTable]) -> SampleTable:
        """Concatenate the rows of several tables."""
        if not tables:
            return cls.from_records([])
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in column_names()})

    def take(self, rows: Indices) -> SampleTable:
        """Return the table of the given rows, in any form of :func:`~leukemia_data.records.arguments.as_indices`.

        Raises
        ------
        UsageError
            If a row is out of range, or `rows` is of another kind.
        """
        chosen = as_indices(rows, len(self), "rows")
        taken = self.rows(chosen)
        if "near_groups" in self.__dict__:
            # Groups of a part are those found in the whole table, computed once.
            taken.__dict__["near_groups"] = self.near_groups[chosen]
        return taken

    def rows(self, chosen: slice | NDArray[np.int64]) -> SampleTable:
        """Return some rows; views if they are a slice."""
        return SampleTable(**{name: getattr(self, name)[chosen] for name in column_names()})

    def equals(self, other: SampleTable) -> bool:
        """Return whether all columns are equal."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in column_names())

    @cached_property
    def near_groups(self) -> NDArray[np.int64]:
        """Group ids of near-identical images, shape (n,); a table taken from another one keeps those found there."""
        return near_groups(self.looks)

    @property
    def id_texts(self) -> list[str]:
        """The ids as text."""
        return decode_texts(self.ids)

    @property
    def subject_texts(self) -> list[str]:
        """The subjects as text; empty if unknown."""
        return decode_texts(self.subjects)


def column_names() -> list[str]:
    """Return the names of the columns, which are those of their HDF5 datasets."""
    return [field.name for field in fields(SampleTable)]


def bytes_per_row(table: SampleTable) -> int:
    """Return the bytes of one row in all columns."""
    return sum(getattr(table, name)[:1].nbytes for name in column_names())


def decode_texts(column: NDArray[np.bytes_]) -> list[str]:
    """Decode a text column."""
    return [value.decode(_TEXT_ENCODING, "surrogateescape") for value in column.tolist()]


def encode_text(text: str) -> bytes:
    """Encode a text for its column; file names that are invalid UTF-8 are kept unchanged."""
    return text.encode(_TEXT_ENCODING, "surrogateescape")


def stored_columns(group: h5py.Group) -> list[str]:
    """Return the names of the required columns of a file: looks may be absent."""
    return [name for name in column_names() if name not in _MAY_BE_ABSENT or name in group]


def write_columns(group: h5py.Group, table: SampleTable) -> None:
    """Store each column as one contiguous dataset; texts as UTF-8 of fixed length.

    All-zero looks are not stored, so that rows of an earlier release's cache give the same bytes.
    """
    for name in column_names():
        column = getattr(table, name)
        if name in _MAY_BE_ABSENT and not column.any():
            continue
        if column.dtype.kind == "S":
            dtype = h5py.string_dtype(_TEXT_ENCODING, int(np.strings.str_len(column).max(initial=1)))
            group.create_dataset(name, data=column.astype(dtype), dtype=dtype)
        else:
            group.create_dataset(name, data=column)


def read_dataset(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a dataset into memory."""
    return np.asarray(dataset[()], _plain_dtype(dataset))


def view_dataset(file_bytes: NDArray[np.uint8], dataset: h5py.Dataset) -> NDArray[Any]:
    """Return a contiguous dataset as a view of its file's bytes, which may be a memory map.

    Raises
    ------
    ValueError
        If it is not stored contiguously.
    """
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        raise ValueError(f"{dataset.name} is not stored contiguously")
    offset_bytes = dataset.id.get_offset()
    if dataset.size == 0 or offset_bytes is None:
        return np.zeros(dataset.shape, _plain_dtype(dataset))
    return np.ndarray(dataset.shape, _plain_dtype(dataset), file_bytes, int(offset_bytes))


def _plain_dtype(dataset: h5py.Dataset) -> np.dtype[Any]:
    """The dataset's dtype without HDF5's metadata."""
    dtype: np.dtype[Any] = dataset.dtype
    return np.dtype(f"S{dtype.itemsize}") if dtype.kind == "S" else dtype


def read_columns(group: h5py.Group, load: Callable[[h5py.Dataset], NDArray[Any]] = read_dataset) -> SampleTable:
    """Read columns stored by :func:`write_columns`, each by `load`: :func:`read_dataset`, or :func:`view_dataset`.

    Raises
    ------
    KeyError
        If a required column is missing.
    ValueError
        If a column's type or length violates the format.
    """
    columns = {name: load(group[name]) for name in stored_columns(group)}
    num_samples = np.size(columns["labels"])
    empty = SampleTable.from_records([])
    for name in column_names():
        dtype, shape = getattr(empty, name).dtype, (num_samples, *getattr(empty, name).shape[1:])
        if name not in columns:
            columns[name] = np.zeros(shape, dtype)
        column = columns[name]
        same_kind = column.dtype.kind == "S" if dtype.kind == "S" else column.dtype == dtype
        if not same_kind or column.shape != shape:
            raise ValueError(f"column {name} is {column.dtype} {column.shape}")
    return SampleTable(**columns)


def _encode(texts: Iterable[str]) -> NDArray[np.bytes_]:
    encoded = [encode_text(text) for text in texts]
    return np.array(encoded, f"S{max(map(len, encoded), default=1) or 1}")


FileStates: TypeAlias = "NDArray[np.int64]"
"""Array of shape (n, 4), int64: size in bytes, modification time and change time in ns, inode."""
SIZE, MTIME, CTIME, INODE = range(4)

_SECOND_NS = 10**9
# Time stamps may be rounded to two seconds, by programs or file systems.
_GRAIN_NS = 2 * _SECOND_NS
# Linux's change times have a resolution of 1 to 10 ms.
_CTIME_GRAIN_NS = 20_000_000


def states_array(states: Iterable[FileState], num_states: int) -> FileStates:
    """Return an array of `num_states` states."""
    return np.fromiter(chain.from_iterable(states), np.int64, 4 * num_states).reshape(num_states, 4)


def state_at(states: FileStates, row: int) -> FileState:
    """Return the state in one row."""
    return FileState(*states[row].tolist())


def unsettled_states(num_states: int) -> FileStates:
    """Return states that never match."""
    return np.tile(np.array(FileState(mtime_ns=UNSETTLED_NS, ctime_ns=UNSETTLED_NS), np.int64), (num_states, 1))


def settled(states: FileStates, listed_at_ns: int) -> FileStates:
    """Return the states with :data:`~leukemia_data.files.atomic.UNSETTLED_NS` for times that may hide a later change.

    A change after the listing gets a later time stamp, which differs from the recorded one unless that is within the
    clock's resolution before the listing, or after it. `listed_at_ns` is a time before the listing (ns since the
    epoch).
    """
    result = states.copy()
    mtimes, ctimes = states[:, MTIME], states[:, CTIME]
    result[mtimes > listed_at_ns - _GRAIN_NS, MTIME] = UNSETTLED_NS
    grains = np.where(ctimes % _SECOND_NS == 0, _GRAIN_NS, _CTIME_GRAIN_NS)
    result[ctimes > listed_at_ns - grains, CTIME] = UNSETTLED_NS
    return result


def is_settled(states: FileStates) -> NDArray[np.bool_]:
    """Return whether an equal state proves that a file is unchanged, shape (n,)."""
    return np.asarray((states[:, MTIME] != UNSETTLED_NS) & (states[:, CTIME] != UNSETTLED_NS), np.bool_)


class PixelReader(Protocol):
    """Copies samples' pixels by index. Can be pickled; thread-safe.

    See :class:`~leukemia_data.caches.cache.SampleReader` for the methods.
    """

    @property
    def size_px(self) -> int:
        """Side of the images."""

    @property
    def num_unmapped(self) -> int:
        """Number of shards that could not be mapped, and are read instead."""

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return one image, shape (S, S, 3), uint8."""

    def gather(self, indices_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return images in the order of the indices, (B, S, S, 3) uint8."""


class Samples(Protocol):
    """Square images of one size by index, with a table of their metadata: a cache."""

    @property
    def table(self) -> SampleTable:
        """Metadata of the samples."""

    @property
    def size_px(self) -> int:
        """Side of the images."""

    @property
    def reader(self) -> PixelReader:
        """The pixels."""

    def __len__(self) -> int: ...


def require_samples(cache: object) -> None:
    """Raise UsageError unless `cache` is an opened cache."""
    # On the type, since accessing `reader` would open the shards.
    if not all(hasattr(type(cache), name) for name in ("reader", "size_px")) or not hasattr(cache, "table"):
        raise UsageError(f"cache must be an opened cache, as open_cache returns it; got {type(cache).__name__}")
