"""Whether an error says that memory ran out: each device and library has its own way to say so."""

from __future__ import annotations

import errno
import re

import torch

from leukemia_data.errors import LeukemiaError

# CUDA and MPS; torch on the CPU; the system; cuDNN and cuBLAS; C++.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
)
_WANTED = re.compile(r"tried to allocate ([\d.]+ bytes|[\d.]+ ?[kMGT]?i?B)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of this machine.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB)"))
    True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Errors of this project's own have said what to do.
    if not isinstance(error, RuntimeError) or isinstance(error, LeukemiaError):
        return False
    return any(sign in str(error).lower() for sign in _SIGNS)


def wanted_memory(error: BaseException) -> str | None:
    """How much was asked for when it ran out, in the error's own words; None where it does not say.

    >>> wanted_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"))
    '2.00 GiB'
    """
    found = _WANTED.search(str(error))
    return found[1] if found else None
