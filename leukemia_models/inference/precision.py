"""Mixed precision on CUDA: which 16-bit type a device computes in, and the gradient scaler that goes with it.

bfloat16 has float32's range and needs no scaling; older cards know float16 only, whose small gradients vanish
unless the loss is scaled. Other devices compute in float32.
"""

from __future__ import annotations

import torch


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
