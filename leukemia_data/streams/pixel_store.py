"""Where batches take their pixels from: maps of the shards, or an array that holds the whole split."""

from __future__ import annotations

from threading import Condition
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.caches.cache import PixelReader
from leukemia_data.streams.batch import to_device

_CHUNK_SAMPLES = 128
_ABSENT, _COMING = -1, -2


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
        self._num_taken = 0
        self._changed = Condition()

    def gather(self, numbers_B: NDArray[np.int64], out: NDArray[np.uint8]) -> object:
        """Fill `out`, (B, S, S, 3) uint8, with the samples `numbers_B`."""
        rows_B = np.searchsorted(self._numbers, numbers_B)
        places_B = self._places[rows_B]
        if (places_B < 0).any():
            self._fetch(rows_B)
            places_B = self._places[rows_B]
        if (places_B < 0).any():
            return self._reader.gather(numbers_B, out)
        # "clip" lets NumPy write to `out` without a copy in between; all places are in range.
        return np.take(self._images, places_B, axis=0, out=out, mode="clip")

    def _fetch(self, rows_B: NDArray[np.intp]) -> None:
        """Read the samples that are not here yet, beside other threads, and wait for those that others are reading.

        Where a read failed its room is lost: samples that find none are not kept.
        """
        with self._changed:
            missing = np.unique(rows_B[self._places[rows_B] == _ABSENT])
            start, stop = self._num_taken, self._num_taken + len(missing)
            if stop <= len(self._images):
                self._num_taken = stop
                self._places[missing] = _COMING
        if len(missing) and stop <= len(self._images):
            self._read(missing, start, stop)
        with self._changed:
            self._changed.wait_for(lambda: not (self._places[rows_B] == _COMING).any())

    def _read(self, rows: NDArray[np.intp], start: int, stop: int) -> None:
        is_read = False
        try:
            # All at a time: over a network each read is a wait.
            self._reader.gather(self._numbers[rows], self._images[start:stop])
            is_read = True
        finally:
            with self._changed:
                # Told last: other threads look without waiting.
                self._places[rows] = np.arange(start, stop) if is_read else _ABSENT
                self._changed.notify_all()


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
