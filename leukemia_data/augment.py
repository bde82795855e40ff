"""Random augmentation of whole batches on the device the network runs on, independent for each sample.

So far the eight views of a square that need no interpolation: flips and transposes, exact index moves. Each sample's
view is a pure function of (seed, epoch, sample number).
"""

from __future__ import annotations

import torch
from torch import Tensor

from leukemia_data.ordering import sample_bits

_VIEW_DRAW = 0
_FLIP_ROWS, _FLIP_COLUMNS, _TRANSPOSE = 1, 2, 4


def square_views(images_BHWC: Tensor, codes_B: Tensor) -> Tensor:
    """Turn each square image into one of its eight exact views.

    Parameters
    ----------
    images_BHWC : Tensor of shape (B, S, S, C), any dtype
        Not changed.
    codes_B : Tensor of shape (B,), int64
        0..7 on the same device: bit 0 flips top and bottom, bit 1 left and right, bit 2 then swaps rows and columns.

    Returns
    -------
    Tensor of shape (B, S, S, C)
    """
    codes = codes_B.view(-1, 1, 1, 1)
    images = torch.where((codes & _FLIP_ROWS) > 0, images_BHWC.flip(1), images_BHWC)
    images = torch.where((codes & _FLIP_COLUMNS) > 0, images.flip(2), images)
    return torch.where((codes & _TRANSPOSE) > 0, images.transpose(1, 2), images)


def random_square_views(images_BHWC: Tensor, samples_B: Tensor, seed: int, epoch: int) -> Tensor:
    """Give each sample the view that seed, epoch and its number choose, each of the eight equally likely.

    Parameters
    ----------
    images_BHWC : Tensor of shape (B, S, S, C)
    samples_B : Tensor of shape (B,), int64
        Sample numbers, on the CPU.
    """
    bits_B = sample_bits(samples_B.numpy(), seed, epoch, _VIEW_DRAW)
    codes_B = torch.from_numpy((bits_B >> 61).astype("int64"))
    return square_views(images_BHWC, codes_B.to(images_BHWC.device, non_blocking=True))
