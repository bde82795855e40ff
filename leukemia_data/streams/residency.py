"""Where a stream stores its pixels: on disk, in memory, or on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Condition
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.errors import UsageError
from leukemia_data.files.limits import free_ram_bytes
from leukemia_data.records.sample_table import PixelReader
from leukemia_data.streams.batch import to_device

MAPPED, RAM, DEVICE, AUTO = "mapped", "ram", "device", "auto"
RESIDENCIES = (AUTO, MAPPED, RAM, DEVICE)

# Fractions of free memory for `auto`: the rest is for the network, activations and optimizer, or other programs.
_DEVICE_FRACTION = 0.4
_RAM_FRACTION = 0.25
# Fraction of free memory for `ram`.
_MAX_FRACTION = 0.8
# Up to torch 2.13 taking rows of a tensor of more elements gives zeros on MPS, without an error (pytorch #188756).
_MAX_MPS_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Residency:
    """Where the pixels are stored, and the reason as a sentence."""

    kind: str
    reason: str

    def with_unmapped(self, num_shards: int) -> Residency:
        """Return the same with a note that `num_shards` could not be mapped."""
        return replace(self, reason=f"{self.reason}; {num_shards} shards cannot be mapped there and are read instead")


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device now; None for the CPU and for devices that do not report it."""
    if device.type == "cuda":
        # What torch keeps for itself, as after an earlier run in this process, counts as used there.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(kept)
    if device.type == "mps":
        return max(int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory()), 0)
    return None


def max_bytes(device: torch.device) -> int | None:
    """Return the maximal size of a split in one tensor of a device, regardless of free memory; None for no limit."""
    return _MAX_MPS_BYTES if device.type == "mps" else None


def choose_residency(
    wanted: str,
    split_bytes: int,
    *,
    device_free_bytes: int | None,
    ram_free_bytes: int,
    device_max_bytes: int | None = None,
    num_processes: int = 1,
    other_bytes: int = 0,
) -> Residency:
    """Choose where to store a split.

    Parameters
    ----------
    wanted
        One of :data:`RESIDENCIES`. ``auto`` is the device if the split fills at most 40 % of its free memory, else
        this process's memory if it fills at most 25 % of that, else maps.
    split_bytes
        Size of the split's pixels.
    device_free_bytes, device_max_bytes, ram_free_bytes
        From :func:`free_bytes`, None if the network runs on the CPU; from :func:`max_bytes` and
        :func:`leukemia_data.files.limits.free_ram_bytes`.
    num_processes
        Number of processes of this machine with their own copy.
    other_bytes
        Size of another split's pixels, in a tensor of its own, that must fit beside it.

    Raises
    ------
    UsageError
        If the name is unknown, or the split does not fit where it is wanted.
    """
    if wanted not in RESIDENCIES:
        raise UsageError(f"unknown residency {wanted!r}: use {', '.join(RESIDENCIES)}")
    ram_bytes = ram_free_bytes // num_processes
    is_too_large = device_max_bytes is not None and split_bytes > device_max_bytes
    split_bytes += other_bytes
    if wanted == AUTO:
        return _choose_freely(split_bytes, None if is_too_large else device_free_bytes, ram_bytes)
    if wanted == MAPPED:
        return Residency(MAPPED, f"{_text(split_bytes)} mapped from disk, as requested")
    if wanted == RAM:
        return _checked(RAM, split_bytes, int(ram_bytes * _MAX_FRACTION), "of this machine's free memory")
    if device_free_bytes is None:
        raise UsageError("residency 'device' needs a CUDA or MPS device; use ram, mapped or auto on the CPU")
    if device_max_bytes is not None and is_too_large:
        return _checked(DEVICE, split_bytes - other_bytes, device_max_bytes, "that one tensor can hold on this device")
    return _checked(DEVICE, split_bytes, device_free_bytes, "of free memory on the device")


def residency_on(
    device: torch.device,
    wanted: str,
    split_bytes: int,
    num_processes: int,
    *,
    other_bytes: int = 0,
    taken_ram_bytes: int = 0,
) -> Residency:
    """Return the result of :func:`choose_residency` for this machine's and a device's memory.

    Of this machine's free memory `taken_ram_bytes` will be used otherwise.
    """
    return choose_residency(
        wanted,
        split_bytes,
        device_free_bytes=free_bytes(device),
        device_max_bytes=max_bytes(device),
        ram_free_bytes=max(free_ram_bytes() - taken_ram_bytes, 0),
        num_processes=num_processes,
        other_bytes=other_bytes,
    )


def _choose_freely(split_bytes: int, device_free_bytes: int | None, ram_bytes: int) -> Residency:
    size = _text(split_bytes)
    if device_free_bytes is not None and split_bytes <= device_free_bytes * _DEVICE_FRACTION:
        return Residency(DEVICE, f"{size} on the device, which has {_text(device_free_bytes)} free")
    if split_bytes <= ram_bytes * _RAM_FRACTION:
        return Residency(RAM, f"{size} in this process's memory, of {_text(ram_bytes)} free")
    return Residency(MAPPED, f"{size} mapped from disk: more than a quarter of {_text(ram_bytes)} of free memory")


def _checked(kind: str, split_bytes: int, room_bytes: int, of_what: str) -> Residency:
    if split_bytes > room_bytes:
        raise UsageError(
            f"residency {kind!r}: the split has {_text(split_bytes)}, more than {_text(room_bytes)} "
            f"{of_what}; use mapped or auto"
        )
    place = "in this process's memory" if kind == RAM else "on the device"
    return Residency(kind, f"{_text(split_bytes)} {place}, as requested")


def _text(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


_CHUNK_SAMPLES = 128
_ABSENT, _COMING = -1, -2


class PixelStore(Protocol):
    """Copies samples' pixels into a buffer, by sample index; thread-safe."""

    def gather(self, indices_B: NDArray[np.int64], out: NDArray[np.uint8]) -> object:
        """Fill `out`, (B, S, S, 3) uint8, with the samples `indices_B`."""


class RamStore:
    """A split's pixels in memory of this process; each sample is read from disk at its first use."""

    def __init__(self, reader: PixelReader, indices_N: NDArray[np.int64]) -> None:
        self._reader = reader
        self._samples = np.unique(indices_N)
        self._images = np.empty((len(self._samples), reader.size_px, reader.size_px, 3), np.uint8)
        # Rows of `_images`, in the order of first use: the first batch touches little memory then.
        self._places = np.full(len(self._samples), _ABSENT)
        self._num_taken = 0
        self._changed = Condition()

    def gather(self, indices_B: NDArray[np.int64], out: NDArray[np.uint8]) -> object:
        """Fill `out`, (B, S, S, 3) uint8, with the samples `indices_B`."""
        rows_B = np.searchsorted(self._samples, indices_B)
        if (self._places[rows_B] < 0).any():
            self._fetch(rows_B)
        places_B = self._places[rows_B]
        if (places_B < 0).any():
            return self._reader.gather(indices_B, out)
        # "clip" avoids an intermediate copy; all places are in range.
        return np.take(self._images, places_B, axis=0, out=out, mode="clip")

    def _fetch(self, rows_B: NDArray[np.intp]) -> None:
        """Read absent samples, and wait for those that other threads are reading.

        A failed read loses its room: samples without room are not kept.
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
        places = np.full(len(rows), _ABSENT)
        try:
            # All at once, since each read may be a request.
            self._reader.gather(self._samples[rows], self._images[start:stop])
            places = np.arange(start, stop)
        finally:
            with self._changed:
                # Set last: other threads read it without a lock.
                self._places[rows] = places
                self._changed.notify_all()


class DeviceStore:
    """A split's pixels in a device's memory, read once; batches are taken from them."""

    def __init__(self, reader: PixelReader, indices_N: NDArray[np.int64], device: torch.device) -> None:
        self._samples = np.unique(indices_N)
        shape = (len(self._samples), reader.size_px, reader.size_px, 3)
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self._samples), _CHUNK_SAMPLES):
            chunk = slice(start, start + _CHUNK_SAMPLES)
            self._images[chunk].copy_(torch.from_numpy(reader.gather(self._samples[chunk])))

    def take(self, indices_B: NDArray[np.int64]) -> Tensor:
        """Return the samples' pixels, (B, S, S, 3) uint8, on the device."""
        rows_B = torch.from_numpy(np.searchsorted(self._samples, indices_B))
        return self._images.index_select(0, to_device(rows_B, self._images.device))


def open_store(
    kind: str, reader: PixelReader, indices_N: NDArray[np.int64], device: torch.device
) -> PixelStore | DeviceStore:
    """Return the pixels of a split, shape (N,), in the place that a residency names."""
    if kind == DEVICE:
        return DeviceStore(reader, indices_N, device)
    return RamStore(reader, indices_N) if kind == RAM else reader
