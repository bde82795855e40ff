"""What augmentation does to all pixels alike: normalisation, the foreground, and limits.

Images are float (B, 3, S, S) in grey levels 0..255 unless a name says otherwise; the last functions end on the scale of
the network. Shapes depend on nothing but the shapes that come in, and no value decides which code runs, so a compiled
augmentation never compiles again for a batch of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HALF_LEVEL = 0.5


def foreground(images_BCHW: Tensor, black_level: float) -> Tensor:
    """1 where a pixel's brightest channel, rounded, is above the grey level `black_level`: (B, 1, S, S), same dtype."""
    red, green, blue = images_BCHW.unbind(1)
    brightest = torch.maximum(torch.maximum(red, green), blue)
    return (brightest >= black_level + _HALF_LEVEL).to(images_BCHW.dtype).unsqueeze(1)


def normalize_planes(images_BCHW: Tensor, scale_C: Tensor, offset_C: Tensor, out_BCHW: Tensor) -> None:
    """Write ``value * scale + offset`` into `out_BCHW`, with a scale and an offset for each channel."""
    torch.addcmul(offset_C[:, None, None], images_BCHW, scale_C[:, None, None], out=out_BCHW)


def normalize_pixels(images_BHWC: Tensor, scale_C: Tensor, offset_C: Tensor, out_BHWC: Tensor) -> None:
    """Write ``pixel * scale + offset`` into `out_BHWC`, float; the images may be integers."""
    batch, height_px, width_px, channels = images_BHWC.shape
    # Whole pixel rows as the inner axis: some hundred values a vector loop can run over, instead of 3.
    rows = out_BHWC.view(batch * height_px, width_px * channels)
    rows.copy_(images_BHWC.reshape(batch * height_px, width_px * channels))
    torch.addcmul(offset_C.repeat(width_px), rows, scale_C.repeat(width_px), out=rows)


def clamp_channels_(images_BCHW: Tensor, low_C: Sequence[float], high_C: Sequence[float]) -> None:
    """Limit each channel to limits of its own, in place."""
    for channel, (low, high) in enumerate(zip(low_C, high_C, strict=True)):
        images_BCHW[:, channel].clamp_(low, high)
