"""Where a stream keeps the pixels of its split: on disk, in this process's memory, or on the device.

``device`` holds the whole split in the device's memory, so that a batch costs the host nothing. ``ram`` holds it in
memory of this process, where no other program's files push it out and where it is copied fastest. ``mapped`` copies
each batch out of memory maps of the shards: it needs next to no memory of the process and suits sets of any size; the
operating system keeps what was read in memory that it shares between processes and can take back at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from leukemia_data.errors import UsageError

MAPPED, RAM, DEVICE, AUTO = "mapped", "ram", "device", "auto"
RESIDENCIES = (AUTO, MAPPED, RAM, DEVICE)

# Of what is free: the rest is for the network, its activations and the optimizer, or for other programs.
_DEVICE_SHARE = 0.4
_RAM_SHARE = 0.25
# Of what is free, for those who ask for it by name.
_MOST_RAM_SHARE = 0.8
# Up to torch 2.13 taking rows of a tensor of more elements gives zeros on MPS, without an error (pytorch #188756).
_MOST_MPS_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Residency:
    """Where the pixels are kept, and why, as a sentence for people."""

    kind: str
    reason: str

    def with_unmapped(self, num_shards: int) -> Residency:
        """The same, with a note that the file system could not map so many shards."""
        return replace(self, reason=f"{self.reason}; {num_shards} shards cannot be mapped there and are read instead")


def free_bytes(device: torch.device) -> int | None:
    """Memory of a device that is free now; None for the CPU and for devices that do not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return max(int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory()), 0)
    return None


def most_bytes(device: torch.device) -> int | None:
    """How large a split one tensor of a device may hold, whatever is free; None for no limit."""
    return _MOST_MPS_BYTES if device.type == "mps" else None


def choose_residency(
    wanted: str,
    split_bytes: int,
    *,
    device_free_bytes: int | None,
    ram_free_bytes: int,
    device_most_bytes: int | None = None,
    num_processes: int = 1,
) -> Residency:
    """Decide where to keep a split.

    Parameters
    ----------
    wanted
        One of :data:`RESIDENCIES`. ``auto`` takes the device if the split fills at most 40 % of its free memory, else
        this process's memory if it fills at most 25 % of what is free, else maps.
    split_bytes
        Size of the split's pixels.
    device_free_bytes
        From :func:`free_bytes`; None where the network runs on the CPU.
    ram_free_bytes
        From :func:`leukemia_data.files.free_memory.free_ram_bytes`.
    device_most_bytes
        From :func:`most_bytes`.
    num_processes
        How many processes keep the split, each for itself.

    Raises
    ------
    UsageError
        If the name is unknown, or the split does not fit where it is wanted.
    """
    if wanted not in RESIDENCIES:
        raise UsageError(f"unknown residency {wanted!r}: use {', '.join(RESIDENCIES)}")
    ram_bytes = ram_free_bytes // num_processes
    is_too_large = device_most_bytes is not None and split_bytes > device_most_bytes
    if wanted == AUTO:
        return _choose_freely(split_bytes, None if is_too_large else device_free_bytes, ram_bytes)
    if wanted == MAPPED:
        return Residency(MAPPED, f"{_text(split_bytes)} mapped from disk, as asked for")
    if wanted == RAM:
        return _checked(RAM, split_bytes, int(ram_bytes * _MOST_RAM_SHARE), "of this machine's free memory")
    if device_free_bytes is None:
        raise UsageError("residency 'device' needs a CUDA or MPS device; use ram, mapped or auto on the CPU")
    if device_most_bytes is not None and is_too_large:
        return _checked(DEVICE, split_bytes, device_most_bytes, "that one tensor can hold on this device")
    return _checked(DEVICE, split_bytes, device_free_bytes, "of free memory on the device")


def _choose_freely(split_bytes: int, device_free_bytes: int | None, ram_bytes: int) -> Residency:
    size = _text(split_bytes)
    if device_free_bytes is not None and split_bytes <= device_free_bytes * _DEVICE_SHARE:
        return Residency(DEVICE, f"{size} on the device, which has {_text(device_free_bytes)} free")
    if split_bytes <= ram_bytes * _RAM_SHARE:
        return Residency(RAM, f"{size} in this process's memory, of {_text(ram_bytes)} free")
    return Residency(MAPPED, f"{size} mapped from disk: more than a quarter of {_text(ram_bytes)} of free memory")


def _checked(kind: str, split_bytes: int, room_bytes: int, whose: str) -> Residency:
    if split_bytes > room_bytes:
        raise UsageError(
            f"residency {kind!r}: the split has {_text(split_bytes)}, more than {_text(room_bytes)} {whose}; "
            "use mapped or auto"
        )
    place = "in this process's memory" if kind == RAM else "on the device"
    return Residency(kind, f"{_text(split_bytes)} {place}, as asked for")


def _text(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
