"""Devices: choice, precision, compilation, and errors of memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from leukemia_data.errors import LeukemiaError, RunError, UsageError
from leukemia_data.lazy_imports import torch
from leukemia_data.registry import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leukemia_models.devices.distributed import Ranks


AUTO, FP32, BF16, FP16 = "auto", "fp32", "bf16", "fp16"
PRECISIONS = (AUTO, FP32, BF16, FP16)
AMP = "amp"
"""The precision of runs that version 0.1 began with ``--amp``: 16 bits on CUDA, float32 elsewhere."""


MIN_BF16_PX = 32
"""Smallest images to train on in bfloat16 on CPUs.

With smaller ones a layer's input is a single pixel, and oneDNN leaves parts of the gradient of a 3x3 convolution of
stride 2 uninitialised there (torch 2.14, AVX512-BF16 and AMX).
"""


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether `device` has bfloat16 arithmetic of its own: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        # It answers for the current device.
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_computes_in_bf16()


def all_compute_in_bf16(device: torch.device, ranks: Ranks) -> bool:
    """Return whether the devices of all ranks, which must all call this, compute in bfloat16."""
    return bool(ranks.all_gather_numbers(computes_in_bf16(device)).all())


def _cpu_computes_in_bf16() -> bool:
    # Releases of torch before get_capabilities have a private function for AVX512 only.
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is None:
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    found = ask()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def decide_precision(
    name: str, device: torch.device, *, has_bf16: bool | None = None, size_px: int = MIN_BF16_PX
) -> str:
    """Return the precision of a new run on `device`: ``fp32``, ``bf16`` or ``fp16``.

    Parameters
    ----------
    name : str
        One of :data:`PRECISIONS`, or :data:`AMP`. ``auto`` is bfloat16 where the device computes in it, else float32.
    has_bf16 : bool, optional
        Whether the devices of all processes that train together compute in bfloat16; None asks `device` alone.
    size_px : int
        Side of the smallest images to train on, see :data:`MIN_BF16_PX`.

    Raises
    ------
    UsageError
        If the name is unknown, a device would emulate that precision, or has none for images of this size.
    """
    if device.type == "cpu" and size_px < MIN_BF16_PX and name in (AUTO, BF16):
        if name == BF16:
            raise UsageError(
                f"--precision {BF16}: on a CPU its gradients are wrong for images below {MIN_BF16_PX} px, and these "
                f"have {size_px} px; use --precision {FP32}"
            )
        return FP32
    if name == AUTO:
        return BF16 if (computes_in_bf16(device) if has_bf16 is None else has_bf16) else FP32
    if name == AMP:
        return precision_name(device, AMP)
    require_precision(name, device, has_bf16=has_bf16)
    return name


def require_precision_name(name: str) -> None:
    """Raise UsageError unless there is this precision."""
    if name not in (*PRECISIONS, AMP):
        raise UsageError(
            f"unknown precision {name!r}{did_you_mean(name, PRECISIONS)}; known are {', '.join(PRECISIONS)}"
        )


def require_precision(name: str, device: torch.device, *, has_bf16: bool | None = None) -> None:
    """Raise UsageError unless `device`, with `has_bf16` all of them, computes in this precision without emulation."""
    require_precision_name(name)
    has_own = name != BF16 or computes_in_bf16(device)
    if not has_own or (name == BF16 and has_bf16 is False):
        which = device if not has_own else "the device of another process"
        raise UsageError(
            f"--precision {BF16}: {which} has no arithmetic of 16 bits and would emulate it, which is slower than 32 "
            f"bits; use --precision {FP32}"
        )
    if name == FP16 and device.type != "cuda":
        raise UsageError(f"--precision {FP16}: only CUDA trains in it, and this is {device}; use --precision {FP32}")


def has_precision(name: str, device: torch.device, *, has_bf16: bool | None = None) -> bool:
    """Return whether :func:`require_precision` raises nothing."""
    try:
        require_precision(name, device, has_bf16=has_bf16)
    except UsageError:
        return False
    return True


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """Return the 16-bit dtype of a decided precision on `device`, or None for float32."""
    if precision == AMP:
        if device.type != "cuda":
            return None
        return torch.bfloat16 if computes_in_bf16(device) else torch.float16
    return {FP32: None, BF16: torch.bfloat16, FP16: torch.float16}[precision]


def precision_name(device: torch.device, precision: str) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``: what a decided precision is on `device`."""
    return {None: FP32, torch.bfloat16: BF16, torch.float16: FP16}[autocast_dtype(device, precision)]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass on `device`; it does nothing in float32."""
    dtype = autocast_dtype(device, precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Return the scaler of a backward pass on `device`; it does nothing except for float16."""
    return torch.amp.GradScaler(device.type, enabled=autocast_dtype(device, precision) is torch.float16)


@contextmanager
def convolutions(device: torch.device, *, tf32: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """Let CUDA's convolutions round to TF32, and cuDNN try its algorithms, for the block; other devices do neither."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    # Since torch 2.9 the older flag is deprecated, and must not be mixed with this one.
    flags, name, value = (
        (cudnn.conv, "fp32_precision", "tf32" if tf32 else "ieee")
        if hasattr(cudnn, "conv")
        else (cudnn, "allow_tf32", tf32)
    )
    before = getattr(flags, name), cudnn.benchmark
    setattr(flags, name, value)
    cudnn.benchmark = cudnn_benchmark
    try:
        yield
    finally:
        setattr(flags, name, before[0])
        cudnn.benchmark = before[1]


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


Forward = Callable[["Tensor"], "Tensor"]
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


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a CUDA device the current one for the block: some functions of torch ask only for it."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


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
