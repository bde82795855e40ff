"""The device that a run computes on."""

from __future__ import annotations

import torch

from leukemia_data.errors import UsageError


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
