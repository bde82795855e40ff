"""HDF5 files of a cache: safe opening, images as chunks, and the index of all rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import Codec
from leukemia_data.caches.manifest import CHUNK_LENGTH_BYTES, IndexEntry, Manifest
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path, sync_file
from leukemia_data.records.fingerprint import bytes_digest, file_digest
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import (
    FileStates,
    SampleTable,
    read_columns,
    read_dataset,
    stored_columns,
    unsettled_states,
    view_dataset,
    write_columns,
)


@contextmanager
def open_hdf5(path: Path, what: str = "it") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without file locks (network file systems refuse them).

    Parameters
    ----------
    path
        The file.
    what
        What the block reads, for the error message.

    Raises
    ------
    CacheError
        If the file is missing or not HDF5, or HDF5 fails in the block.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is missing") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise CacheError(f"{path} cannot be read as HDF5: {error}") from error
    with file:
        try:
            yield file
        except CacheError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, OSError, RuntimeError) as error:
            # h5py raises HDF5's errors as any of these.
            raise CacheError(f"{path}: {what} cannot be read: {error}") from error


def hdf5_bytes(fill: Callable[[h5py.File], None], **settings: Any) -> bytes:  # noqa: ANN401 - h5py's own settings
    """Return the bytes of an HDF5 file, written in memory.

    HDF5 can crash the process when it closes a file on a full disk. The bytes equal those that it would write.

    Parameters
    ----------
    fill
        Writes datasets and attributes into the file.
    **settings
        Layout options, as for ``h5py.File``.
    """
    # HDF5 treats two open files of the same name as one, even in memory.
    name = f"{uuid.uuid4().hex}.h5"
    with h5py.File(name, "w", driver="core", backing_store=False, locking=False, **settings) as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def check_datasets(file: h5py.File, names: Iterable[str]) -> None:
    """Check that each name is a dataset stored in the file itself.

    Raises
    ------
    KeyError
        If one is missing.
    ValueError
        If one is a link, a group, chunked, stored in other files, or larger than the file.
    """
    file_bytes = Path(file.filename).stat().st_size
    for name in names:
        dataset = own_dataset(file, name)
        stored = dataset.id.get_create_plist()
        if stored.get_layout() != h5py.h5d.CONTIGUOUS or stored.get_external_count():
            raise ValueError(f"{name} is not stored contiguously in this file")
        if dataset.dtype.hasobject or dataset.shape is None:
            raise ValueError(f"{name} has values of no fixed length")
        offset_bytes = dataset.id.get_offset()
        if dataset.size and (offset_bytes is None or offset_bytes + dataset.nbytes > file_bytes):
            raise ValueError(f"{name} has no room in the file for its {dataset.shape} values")


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of the file itself; raises KeyError if there is none, ValueError if it is a link or a group."""
    if name not in file:
        raise KeyError(f"there is no {name}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    return dataset


CHUNK_LENGTHS = "chunk_lengths"
CHUNK_LENGTH_DTYPE = np.dtype(f"<u{CHUNK_LENGTH_BYTES}")
_PLACEHOLDER = b"\0"


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """How to read a shard's chunks: total bytes, offset of their lengths, codec."""

    num_bytes: int
    lengths_offset_bytes: int
    codec: str


def write_chunks(file: h5py.File, images_NSSC: NDArray[np.uint8], codec: Codec) -> tuple[int, ChunkTable]:
    """Write images as chunks of the dataset ``images``, and their lengths; return the offset of the first chunk, too.

    Parameters
    ----------
    file
        An empty file whose free space HDF5 does not manage (``fs_strategy="none"``).
    images_NSSC : ndarray of shape (n, S, S, 3), uint8
    codec
        Encodes each image as a chunk.
    """
    images = _create_images(file, images_NSSC.shape, codec)
    # Write one byte each first: HDF5 then builds its tree of chunks up front, instead of between the chunks.
    for row in range(len(images_NSSC)):
        images.id.write_direct_chunk((row, 0, 0, 0), _PLACEHOLDER)
    lengths = np.empty(len(images_NSSC), CHUNK_LENGTH_DTYPE)
    for row, image in enumerate(images_NSSC):
        chunk = codec.encode(image)
        images.id.write_direct_chunk((row, 0, 0, 0), chunk)
        lengths[row] = len(chunk)
    file.create_dataset(CHUNK_LENGTHS, data=lengths)
    file.flush()
    return _where(file, lengths, codec)


def find_chunks(file: h5py.File, codec: Codec) -> tuple[int, ChunkTable]:
    """Return the offset of the chunks of a compressed shard, and how to read them.

    Raises
    ------
    KeyError, ValueError
        If the datasets are not as :func:`write_chunks` makes them.
    """
    images = own_dataset(file, "images")
    stored = images.id.get_create_plist()
    filters = [stored.get_filter(number)[0] for number in range(stored.get_nfilters())]
    if images.chunks != (1, *images.shape[1:]) or filters != [codec.hdf5_filter[0]] or stored.get_external_count():
        raise ValueError(f"images has not one chunk an image, by filter {codec.hdf5_filter[0]}")
    check_datasets(file, [CHUNK_LENGTHS])
    lengths = file[CHUNK_LENGTHS]
    if lengths.dtype != CHUNK_LENGTH_DTYPE or lengths.shape != images.shape[:1]:
        raise ValueError(f"{CHUNK_LENGTHS} is {lengths.dtype} {lengths.shape}")
    return _where(file, lengths[()], codec)


def _create_images(file: h5py.File, shape: tuple[int, ...], codec: Codec) -> h5py.Dataset:
    """Create the dataset without values. Its HDF5 filter need not be installed: chunks are written directly."""
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((1, *shape[1:]))
    stored.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    stored.set_obj_track_times(False)
    number, options = codec.hdf5_filter
    stored.set_filter(number, h5py.h5z.FLAG_OPTIONAL, options)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, stored))


def _where(file: h5py.File, lengths_N: NDArray[np.uint32], codec: Codec) -> tuple[int, ChunkTable]:
    """Offset and table of the chunks, which must be back to back with these lengths."""
    images = file["images"].id
    start = end = int(images.get_chunk_info_by_coord((0, 0, 0, 0)).byte_offset or 0)
    for row, length in enumerate(lengths_N.tolist()):
        chunk = images.get_chunk_info_by_coord((row, 0, 0, 0))
        if (chunk.byte_offset, chunk.size, chunk.filter_mask) != (end, length, 0):
            raise ValueError(f"the chunk of image {row} does not lie behind the one before it, with its length")
        end += length
    return start, ChunkTable(end - start, int(file[CHUNK_LENGTHS].id.get_offset() or 0), codec.name)


_STATE_COLUMNS = ("source_sizes_bytes", "source_mtimes_ns", "source_ctimes_ns", "source_inodes")
# The only state columns in indexes of release 0.1.
_FIRST_STATE_COLUMNS = _STATE_COLUMNS[:2]


@dataclass(frozen=True)
class SampleIndex:
    """All samples of a cache in sample order, with the states of their source files when they were read.

    Attributes
    ----------
    table
        One row per sample; shard by shard in the manifest's order.
    source_states : ndarray of shape (n, 4), int64
        See :mod:`leukemia_data.records.sample_table`.
    has_change_times
        False for an index of release 0.1, which has neither change times nor inodes: its states are unsettled.
    """

    table: SampleTable
    source_states: FileStates
    has_change_times: bool = True

    def rows(self, rows: slice) -> SampleIndex:
        """Return a slice of the rows."""
        return replace(self, table=self.table.rows(rows), source_states=self.source_states[rows])


def write_index(directory: Path, index: SampleIndex) -> IndexEntry:
    """Write an index durably, named by its content."""

    def fill(file: h5py.File) -> None:
        write_columns(file, index.table)
        for name, column in zip(_STATE_COLUMNS, index.source_states.T, strict=True):
            file.create_dataset(name, data=column)

    data = hdf5_bytes(fill)
    digest = bytes_digest(data).hex()
    entry = IndexEntry(f"index-{digest[:16]}.h5", len(data), digest)
    with scratch_path(directory, "index") as scratch:
        scratch.write_bytes(data)
        sync_file(scratch)
        scratch.replace(directory / entry.name)
    return entry


def read_index(directory: Path, entry: IndexEntry) -> SampleIndex:
    """Read the index that a manifest names into memory.

    Raises
    ------
    CacheError
        If the file is missing, its digest is not the manifest's, or its columns are inconsistent.
    """
    path = _checked_path(directory, entry)
    with open_hdf5(path, "its sample table") as file:
        is_first = not any(name in file for name in _STATE_COLUMNS[2:])
        names = _FIRST_STATE_COLUMNS if is_first else _STATE_COLUMNS
        check_datasets(file, [*stored_columns(file), *names])
        table = read_columns(file, read_dataset)
        columns = [read_dataset(file[name]) for name in names]
    for column in columns:
        if column.dtype != np.int64 or column.shape != (len(table),):
            raise CacheError(f"{path}: its columns have different lengths or types")
    if is_first:
        return SampleIndex(table, unsettled_states(len(table)), has_change_times=False)
    return SampleIndex(table, np.stack(columns, axis=1))


def map_table(directory: Path, entry: IndexEntry) -> SampleTable:
    """Return the index's table, memory-mapped if the file system supports it; raises as :func:`read_index`.

    A million samples open instantly and take no process memory, but Windows cannot remove the file meanwhile.
    """
    path = _checked_path(directory, entry)
    try:
        load = partial(view_dataset, np.asarray(np.memmap(path, np.uint8, "r")))
        with open_hdf5(path, "its sample table") as file:
            check_datasets(file, stored_columns(file))
            return read_columns(file, load)
    except (OSError, ValueError):
        # A file system without memory maps.
        return read_index(directory, entry).table


def _checked_path(directory: Path, entry: IndexEntry) -> Path:
    """Return the path of the index after checking its digest."""
    path = directory / entry.name
    if not path.is_file():
        raise CacheError(f"{path} is missing: `ldata verify --repair` makes it anew")
    try:
        digest = file_digest(path)
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    if digest != entry.digest:
        raise CacheError(
            f"{path} is damaged: its digest is {digest}, the manifest says {entry.digest}; "
            "`ldata verify --repair` repairs it"
        )
    return path


def check_fit(directory: Path, manifest: Manifest, table: SampleTable) -> None:
    """Check that the rows of an index match the manifest.

    Raises
    ------
    CacheError
        If their number differs, or a label has no class.
    """
    if len(table) != manifest.num_samples:
        raise CacheError(f"{directory}: the index has {len(table)} samples, the manifest {manifest.num_samples}")
    labels = table.labels
    if len(labels) and not UNKNOWN_LABEL <= labels.min() <= labels.max() < len(manifest.classes):
        raise CacheError(
            f"{directory}: the index has labels from {labels.min()} to {labels.max()}, the manifest "
            f"{len(manifest.classes)} classes"
        )
