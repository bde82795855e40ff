"""Precision, compilation and memory of a device."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from leukemia_data.errors import LeukemiaError, RunError, UsageError


def autocast_dtype(device: torch.device, amp: bool) -> torch.dtype | None:
    """Return the 16-bit type to compute in on `device`, or None for plain float32."""
    if not amp or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, amp: bool) -> torch.autocast:
    """Return the context in which a network runs forward on `device`; it does nothing off CUDA."""
    dtype = autocast_dtype(device, amp)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def gradient_scaler(device: torch.device, amp: bool) -> torch.amp.GradScaler:
    """Return the scaler for the backward pass on `device`; it does nothing except for float16."""
    return torch.amp.GradScaler(device.type, enabled=autocast_dtype(device, amp) is torch.float16)


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


Forward = Callable[[Tensor], Tensor]
"""Images (B,3,S,S) in, logits (B,K) out."""
DEFAULT_BACKEND = "inductor"


def compiled_forward(network: nn.Module, backend: str = DEFAULT_BACKEND) -> Forward:
    """Return a function that runs `network` compiled, with its own parameters and buffers.

    Every size of a batch is compiled for itself, at its first call, which may take minutes: streams that train should
    drop a smaller last batch.

    Parameters
    ----------
    network : torch.nn.Module
        Where it will run; modes may change.
    backend : str
        One of ``torch.compiler.list_backends()``, or ``eager``, which traces the network but compiles nothing.

    Raises
    ------
    RunError
        Here or at a call, if this machine cannot compile.
    """
    with _compiler_errors():
        compiled: Callable[..., Any] = torch.compile(network, backend=backend, dynamic=False)

    def forward(images_BCHW: Tensor) -> Tensor:
        with _compiler_errors():
            logits_BK: Tensor = compiled(images_BCHW)
            return logits_BK

    return forward


@contextmanager
def _compiler_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch loads this part of itself, which takes a second, when it is asked for.
        if not (isinstance(error, torch._dynamo.exc.TorchDynamoException) or "torch.compile is not" in str(error)):
            raise
        # What follows is advice to developers of torch.
        reason = " ".join(str(error).strip().partition("\n\n")[0].split()).rstrip(".")
        raise RunError(
            f"the network cannot be compiled on this machine: {reason}. torch.compile "
            "needs a C++ compiler (g++, clang or MSVC), on CUDA also Triton: install it, or train without compiling"
        ) from error


def choose_device(name: str) -> torch.device:
    """``auto`` means CUDA, else Apple's MPS, else the CPU; any other name is taken as it is.

    Raises
    ------
    UsageError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r}: use auto, cpu, cuda, cuda:N or mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise UsageError(f"--device {name!r}: this machine or this build of torch has none; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name!r}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device
