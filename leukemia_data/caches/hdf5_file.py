"""HDF5 files of a cache, opened with care.

A shard or an index holds plain datasets beside each other: contiguous, unfiltered, in the file itself. HDF5 can say
much more: values in other files, links to other places, shapes of a terabyte that nobody wrote. Whoever reads a
dataset asks here first, so that none of that is followed or allocated.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from leukemia_data.errors import CacheError


@contextmanager
def open_hdf5(path: Path, what: str = "it") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without file locks (network file systems refuse them).

    Parameters
    ----------
    path
        The file.
    what
        What the block reads of it, for the message if that fails.

    Raises
    ------
    CacheError
        If the file is absent or no HDF5, or whatever HDF5 raises in the block.
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
            # h5py lets HDF5's complaints about a file through as any of these.
            raise CacheError(f"{path}: {what} cannot be read: {error}") from error


def hdf5_bytes(fill: Callable[[h5py.File], None], **settings: Any) -> bytes:  # noqa: ANN401 - h5py's own settings
    """The bytes of an HDF5 file, made in memory.

    HDF5 never writes to a disk: when it has to close a file that a full disk has cut short, it can crash the process.
    The bytes are those that it would write.

    Parameters
    ----------
    fill
        Puts datasets and attributes into the file.
    **settings
        How HDF5 lays them out, as for ``h5py.File``.
    """
    # HDF5 takes two open files of one name for the same, even where neither lies on a disk.
    name = f"{uuid.uuid4().hex}.h5"
    with h5py.File(name, "w", driver="core", backing_store=False, locking=False, **settings) as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def check_datasets(file: h5py.File, names: Iterable[str]) -> None:
    """Check that each of these is a dataset whose values lie in the file itself.

    Raises
    ------
    KeyError
        If one is absent.
    ValueError
        If one is a link, a group, spread over pieces or other files, or larger than the file.
    """
    num_bytes = Path(file.filename).stat().st_size
    for name in names:
        _check_dataset(own_dataset(file, name), name, num_bytes)


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of the file itself.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If it is a link or a group.
    """
    if name not in file:
        raise KeyError(f"there is no {name}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    return dataset


def _check_dataset(dataset: h5py.Dataset, name: str, file_bytes: int) -> None:
    stored = dataset.id.get_create_plist()
    if stored.get_layout() != h5py.h5d.CONTIGUOUS or stored.get_external_count():
        raise ValueError(f"{name} is not stored contiguously in this file")
    if dataset.dtype.hasobject or dataset.shape is None:
        raise ValueError(f"{name} has values of no fixed length")
    offset_bytes = dataset.id.get_offset()
    if dataset.size and (offset_bytes is None or offset_bytes + dataset.nbytes > file_bytes):
        raise ValueError(f"{name} has no room in the file for its {dataset.shape} values")
