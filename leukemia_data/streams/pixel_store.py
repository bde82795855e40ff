"""Where batches take their pixels from: maps of the shards, or an array that holds the whole split."""

from __future__ import annotations

from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.caches.cache import PixelReader
from leukemia_data.streams.batch import to_device

_CHUNK_SAMPLES = 128
_ABSENT = -1


class PixelStore(Protocol):
    """Copies samples' pixels into a buffer, by sample number; safe to use from several threads."""

    def gather(self, numbers_B: NDArray[np.int64], out: NDArray[np.uint8]) -> object:
        """Fill `out`, (B, S, S, 3) uint8, with the samples `numbers_B`."""
        ...


class RamStore:
    """A split's pixels in memory of this process; each sample is read from disk when it is first asked for.

    Parameters
    ----------
    reader
        Where they are read from.
    numbers_N : ndarray of shape (N,), int64
        The split's samples.
    """

    def __init__(self, reader: PixelReader, numbers_N: NDArray[np.int64]) -> None:
        self._reader = reader
        self._numbers = np.unique(numbers_N)
        self._images = np.empty((len(self._numbers), reader.size_px, reader.size_px, 3), np.uint8)
        # Samples lie in the order in which they were first asked for: the first batch then touches little memory.
        self._places = np.full(len(self._numbers), _ABSENT)
        self._num_here = 0
        self._filling = Lock()

    def gather(self, numbers_B: NDArray[np.int64], out: NDArray[np.uint8]) -> object:
        """Fill `out`, (B, S, S, 3) uint8, with the samples `numbers_B`."""
        rows_B = np.searchsorted(self._numbers, numbers_B)
        places_B = self._places[rows_B]
        if (places_B == _ABSENT).any():
            places_B = self._fetch(rows_B)
        # "clip" lets NumPy write to `out` without a copy in between; all places are in range.
        return np.take(self._images, places_B, axis=0, out=out, mode="clip")

    def _fetch(self, rows_B: NDArray[np.intp]) -> NDArray[np.int64]:
        """Read the samples that are not here yet, and return where all of them lie."""
        missing = np.unique(rows_B[self._places[rows_B] == _ABSENT])
        # All at a time and beside other threads: over a network each read is a wait.
        images = self._reader.gather(self._numbers[missing])
        with self._filling:
            is_new = self._places[missing] == _ABSENT
            start, stop = self._num_here, self._num_here + int(is_new.sum())
            self._images[start:stop] = images[is_new]
            # Told last: other threads look without waiting.
            self._places[missing[is_new]] = np.arange(start, stop)
            self._num_here = stop
            return self._places[rows_B]


class DeviceStore:
    """A split's pixels in a device's memory, where batches are taken from them.

    Parameters
    ----------
    reader
        Where they are read from, once.
    numbers_N : ndarray of shape (N,), int64
        The split's samples.
    device
        Where they are kept.
    """

    def __init__(self, reader: PixelReader, numbers_N: NDArray[np.int64], device: torch.device) -> None:
        self._numbers = np.unique(numbers_N)
        shape = (len(self._numbers), reader.size_px, reader.size_px, 3)
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self._numbers), _CHUNK_SAMPLES):
            chunk = slice(start, start + _CHUNK_SAMPLES)
            self._images[chunk].copy_(torch.from_numpy(reader.gather(self._numbers[chunk])))

    def take(self, numbers_B: NDArray[np.int64]) -> Tensor:
        """The samples' pixels, (B, S, S, 3) uint8, on the device."""
        rows_B = torch.from_numpy(np.searchsorted(self._numbers, numbers_B))
        return self._images.index_select(0, to_device(rows_B, self._images.device))
