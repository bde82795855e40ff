"""The index of a cache: the rows of all its shards in one file, and the state of the files they came from.

Opening a cache reads this one file, whatever the number of shards. It repeats what the shards hold, except for the
states of the source files: those change without a pixel changing, so they may not be part of a shard, whose name is its
content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from leukemia_data.caches.hdf5_file import check_datasets, hdf5_bytes, open_hdf5
from leukemia_data.caches.manifest import Manifest
from leukemia_data.caches.manifest_entries import IndexEntry
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path, sync_file
from leukemia_data.samples.file_states import FileStates, unsettled_states
from leukemia_data.samples.fingerprint import bytes_digest, file_digest
from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.samples.sample_table import (
    SampleTable,
    read_columns,
    read_dataset,
    stored_columns,
    view_dataset,
    write_columns,
)

_STATE_COLUMNS = ("source_sizes_bytes", "source_mtimes_ns", "source_ctimes_ns", "source_inodes")
# Indexes of release 0.1 have these alone.
_FIRST_STATE_COLUMNS = _STATE_COLUMNS[:2]


@dataclass(frozen=True)
class SampleIndex:
    """All samples of a cache in sample order, with the state of their source files when they were read.

    Attributes
    ----------
    table
        One row a sample; shard by shard in the manifest's order.
    source_states : ndarray of shape (n, 4), int64
        See :mod:`leukemia_data.samples.file_states`.
    has_change_times
        False for an index of release 0.1, which knew neither change times nor inodes: its states are unsettled.
    """

    table: SampleTable
    source_states: FileStates
    has_change_times: bool = True

    def rows(self, rows: slice) -> SampleIndex:
        """Some of its rows."""
        return replace(self, table=self.table.rows(rows), source_states=self.source_states[rows])


def write_index(directory: Path, index: SampleIndex) -> IndexEntry:
    """Write an index durably, under the name its content gives it."""

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

    Parameters
    ----------
    directory, entry
        The cache's directory, and the manifest's word on the file.

    Raises
    ------
    CacheError
        If the file is absent, its bytes are not those the manifest knows, or its columns do not fit together.
    """
    path = _checked_path(directory, entry)
    with open_hdf5(path, "its sample table") as file:
        names = _state_columns(file)
        check_datasets(file, [*stored_columns(file), *names])
        table = read_columns(file, read_dataset)
        columns = [read_dataset(file[name]) for name in names]
    for column in columns:
        if column.dtype != np.int64 or column.shape != (len(table),):
            raise CacheError(f"{path}: its columns have different lengths or types")
    if names == _FIRST_STATE_COLUMNS:
        return SampleIndex(table, unsettled_states(len(table)), has_change_times=False)
    return SampleIndex(table, np.stack(columns, axis=1))


def map_table(directory: Path, entry: IndexEntry) -> SampleTable:
    """The table of the index that a manifest names, mapped where the file system can; raises as :func:`read_index`.

    A million samples open at once and take no memory of the process, but Windows cannot remove the file meanwhile.
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


def _state_columns(file: h5py.File) -> tuple[str, ...]:
    return _STATE_COLUMNS if any(name in file for name in _STATE_COLUMNS[2:]) else _FIRST_STATE_COLUMNS


def _checked_path(directory: Path, entry: IndexEntry) -> Path:
    """The index's file, whose bytes are those that the manifest knows."""
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
            "`ldata verify --repair` mends it"
        )
    return path


def check_fit(directory: Path, manifest: Manifest, table: SampleTable) -> None:
    """Check that the rows of an index are those of the cache that its manifest describes.

    Raises
    ------
    CacheError
        If there are more or fewer, or a label is that of no class.
    """
    if len(table) != manifest.num_samples:
        raise CacheError(f"{directory}: the index has {len(table)} samples, the manifest {manifest.num_samples}")
    labels = table.labels
    if len(labels) and not UNKNOWN_LABEL <= labels.min() <= labels.max() < len(manifest.classes):
        raise CacheError(
            f"{directory}: the index has labels from {labels.min()} to {labels.max()}, the manifest "
            f"{len(manifest.classes)} classes"
        )
