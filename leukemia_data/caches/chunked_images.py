"""The images of a compressed shard inside HDF5: one chunk an image, written and found without HDF5's filters.

The dataset names the registered filter for zstd, so that any HDF5 tool that knows it (h5py with hdf5plugin) reads the
images. The chunks lie back to back in the order of the rows, and their lengths stand in a column beside them: whoever
knows where both start needs no HDF5 to read an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import Codec
from leukemia_data.caches.hdf5_file import check_datasets, own_dataset
from leukemia_data.caches.manifest_entries import CHUNK_LENGTH_BYTES, ZSTD_LEVEL

CHUNK_LENGTHS = "chunk_lengths"
CHUNK_LENGTH_DTYPE = np.dtype(f"<u{CHUNK_LENGTH_BYTES}")
ZSTD_FILTER = 32015
_PLACEHOLDER = b"\0"


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """What must be known of a shard's chunks to read them: their bytes together, and where their lengths stand."""

    num_bytes: int
    lengths_offset_bytes: int


def write_chunks(file: h5py.File, images_NSSC: NDArray[np.uint8], codec: Codec) -> tuple[int, ChunkTable]:
    """Write images as chunks of the dataset ``images``, and their lengths; where they start is returned, too.

    Parameters
    ----------
    file
        An empty file whose free space HDF5 does not manage (``fs_strategy="none"``).
    images_NSSC : ndarray of shape (n, S, S, 3), uint8
    codec
        What makes a chunk of an image.
    """
    images = _create_images(file, images_NSSC.shape)
    # One byte each first: it makes HDF5 build its tree of chunks, which would otherwise grow between them.
    for row in range(len(images_NSSC)):
        images.id.write_direct_chunk((row, 0, 0, 0), _PLACEHOLDER)
    lengths = np.empty(len(images_NSSC), CHUNK_LENGTH_DTYPE)
    for row, image in enumerate(images_NSSC):
        chunk = codec.encode(image)
        images.id.write_direct_chunk((row, 0, 0, 0), chunk)
        lengths[row] = len(chunk)
    file.create_dataset(CHUNK_LENGTHS, data=lengths)
    file.flush()
    return _where(file, lengths)


def find_chunks(file: h5py.File) -> tuple[int, ChunkTable]:
    """Where the chunks of a compressed shard start, and what else must be known of them.

    Raises
    ------
    KeyError, ValueError
        If the datasets are not as :func:`write_chunks` makes them.
    """
    images = own_dataset(file, "images")
    stored = images.id.get_create_plist()
    filters = [stored.get_filter(number)[0] for number in range(stored.get_nfilters())]
    if images.chunks != (1, *images.shape[1:]) or filters != [ZSTD_FILTER] or stored.get_external_count():
        raise ValueError(f"images has not one chunk an image, by filter {ZSTD_FILTER}")
    check_datasets(file, [CHUNK_LENGTHS])
    lengths = file[CHUNK_LENGTHS]
    if lengths.dtype != CHUNK_LENGTH_DTYPE or lengths.shape != images.shape[:1]:
        raise ValueError(f"{CHUNK_LENGTHS} is {lengths.dtype} {lengths.shape}")
    return _where(file, lengths[()])


def _create_images(file: h5py.File, shape: tuple[int, ...]) -> h5py.Dataset:
    """The dataset without values. Its filter need not be installed here: nothing is written through it."""
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((1, *shape[1:]))
    stored.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    stored.set_obj_track_times(False)
    stored.set_filter(ZSTD_FILTER, h5py.h5z.FLAG_OPTIONAL, (ZSTD_LEVEL,))
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, stored))


def _where(file: h5py.File, lengths_N: NDArray[np.uint32]) -> tuple[int, ChunkTable]:
    """Where HDF5 has the chunks, which have to lie back to back with these lengths."""
    images = file["images"].id
    start = end = int(images.get_chunk_info_by_coord((0, 0, 0, 0)).byte_offset or 0)
    for row, length in enumerate(lengths_N.tolist()):
        chunk = images.get_chunk_info_by_coord((row, 0, 0, 0))
        if (chunk.byte_offset, chunk.size, chunk.filter_mask) != (end, length, 0):
            raise ValueError(f"the chunk of image {row} does not lie behind the one before it, with its length")
        end += length
    return start, ChunkTable(end - start, int(file[CHUNK_LENGTHS].id.get_offset() or 0))
