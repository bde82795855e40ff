"""Devices: choice, precision, compilation, and errors of memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leukemia_data.errors import LeukemiaError, RunError, UsageError


def autocast_dtype(device: torch.device, amp: bool) -> torch.dtype | None:
    """Return the 16-bit dtype of mixed precision on `device`, or None for plain float32."""
    if not amp or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, amp: bool) -> torch.autocast:
    """Return the context of a forward pass on `device`; it does nothing off CUDA."""
    dtype = autocast_dtype(device, amp)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def gradient_scaler(device: torch.device, amp: bool) -> torch.amp.GradScaler:
    """Return the scaler of a backward pass on `device`; it does nothing except for float16."""
    return torch.amp.GradScaler(device.type, enabled=autocast_dtype(device, amp) is torch.float16)


# CUDA and MPS; torch on the CPU; the system (two); cuDNN and cuBLAS; C++.
_SIGNS = re.compile(
    "out of memory|can't allocate memory|cannot allocate memory|not enough memory|alloc_failed|bad_alloc"
)
_WANTED = re.compile(r"tried to allocate ([\d.]+ bytes|[\d.]+ ?[kMGT]?i?B)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device or this machine ran out of memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB)"))
    True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Errors of this project already say what to do.
    if not isinstance(error, RuntimeError) or isinstance(error, LeukemiaError):
        return False
    return _SIGNS.search(str(error).lower()) is not None


def wanted_memory(error: BaseException) -> str | None:
    """Return the size of the failed allocation as the error's message has it, or None.

    >>> wanted_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"))
    '2.00 GiB'
    """
    found = _WANTED.search(str(error))
    return found[1] if found else None


Forward = Callable[[Tensor], Tensor]
"""Images (B,3,S,S) in, logits (B,K) out."""
DEFAULT_BACKEND = "inductor"


def compiled_forward(network: nn.Module, backend: str = DEFAULT_BACKEND) -> Forward:
    """Return a function that runs `network` compiled, sharing its parameters and buffers.

    Each batch size is compiled at its first call, which may take minutes: drop a smaller last batch in training.

    Parameters
    ----------
    network : torch.nn.Module
        On its device; its mode may change later.
    backend : str
        One of ``torch.compiler.list_backends()``, or ``eager``, which traces the network but compiles nothing.

    Raises
    ------
    RunError
        If this machine cannot compile, now or at a call.
    """
    with _compiler_errors():
        compiled: Forward = torch.compile(network, backend=backend, dynamic=False)

    @_compiler_errors()
    def forward(images_BCHW: Tensor) -> Tensor:
        return compiled(images_BCHW)

    return forward


@contextmanager
def _compiler_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch loads _dynamo, which takes a second, at this access.
        if not (isinstance(error, torch._dynamo.exc.TorchDynamoException) or "torch.compile is not" in str(error)):
            raise
        # The next paragraph is advice to developers of torch.
        reason = " ".join(str(error).strip().partition("\n\n")[0].split()).rstrip(".")
        raise RunError(
            f"the network cannot be compiled on this machine: {reason}. torch.compile "
            "needs a C++ compiler (g++, clang or MSVC), on CUDA also Triton: install it, or train without compiling"
        ) from error


def choose_device(name: str) -> torch.device:
    """Return a torch device by name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises
    ------
    UsageError
        If this machine has no such device.
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
