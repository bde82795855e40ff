"""What augmentation does to pixels: pure functions on batches, with parameters of its own for every sample.

Images are float (B, 3, S, S) in grey levels 0..255 unless a name says otherwise; the last functions end on the scale of
the network. Shapes depend on nothing but the shapes that come in, and no value decides which code runs, so a compiled
augmentation never compiles again for a batch of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from leukemia_data.augmenting.augment_draws import NOISE_STEP

_HALF_LEVEL = 0.5


def warp(images_BCHW: Tensor, affine_B23: Tensor, mode: str = "bilinear") -> Tensor:
    """Move pixels by one affine map a sample, with black where the map leaves the image.

    Parameters
    ----------
    images_BCHW : Tensor of shape (B, C, S, S), float
    affine_B23 : Tensor of shape (B, 2, 3)
        From a place in the result to its place in the input, as (x, y) from the centre in half sides.
    mode
        "bilinear", or "nearest": for flips, transposes and quarter turns, whose pixels come from one pixel each, that
        moves values without changing any. It is several times as fast as choosing between flipped copies.

    Returns
    -------
    Tensor of shape (B, C, S, S)

    Notes
    -----
    ``grid_sample`` with ``align_corners=False``, as torchvision's ``affine`` and ``rotate`` use it. The grid is the sum
    of a row and a column, fifty times cheaper than ``affine_grid``.
    """
    size_px = images_BCHW.shape[-1]
    centres_S = torch.arange(size_px, device=images_BCHW.device, dtype=images_BCHW.dtype)
    centres_S = (2 * centres_S + (1 - size_px)) / size_px
    along_x = affine_B23[:, :, 0, None, None] * centres_S
    along_y = affine_B23[:, :, 1, None] * centres_S + affine_B23[:, :, 2, None]
    grid_BHW2 = (along_x + along_y[..., None]).permute(0, 2, 3, 1)
    return functional.grid_sample(images_BCHW, grid_BHW2, mode=mode, padding_mode="zeros", align_corners=False)


def foreground(images_BCHW: Tensor, black_level: float) -> Tensor:
    """1 where a pixel's brightest channel, rounded, is above the grey level `black_level`: (B, 1, S, S), same dtype."""
    red, green, blue = images_BCHW.unbind(1)
    brightest = torch.maximum(torch.maximum(red, green), blue)
    return (brightest >= black_level + _HALF_LEVEL).to(images_BCHW.dtype).unsqueeze(1)


def outside_squares(corners_B2: Tensor, side_px: int, size_px: int) -> Tensor:
    """0 inside each sample's square of side `side_px` with the given top row and left column, 1 elsewhere.

    Returns
    -------
    Tensor of shape (B, 1, size_px, size_px), the dtype of `corners_B2`
    """
    places_S = torch.arange(size_px, device=corners_B2.device, dtype=corners_B2.dtype)
    distance_B2S = places_S - corners_B2[:, :, None]
    inside_B2S = ((distance_B2S >= 0) & (distance_B2S < side_px)).to(corners_B2.dtype)
    return 1 - inside_B2S[:, 0, None, :, None] * inside_B2S[:, 1, None, None, :]


def blur(images_BCHW: Tensor, weights_BK: Tensor) -> Tensor:
    """Filter rows and columns with one symmetric kernel a sample; borders are reflected, as torchvision does it.

    Parameters
    ----------
    images_BCHW : Tensor of shape (B, C, S, S), float
        S must be more than half of K.
    weights_BK : Tensor of shape (B, K), K odd
    """
    num_weights = weights_BK.shape[1]
    radius = num_weights // 2
    weights_KB111 = weights_BK.T[:, :, None, None, None].unbind(0)
    for axis, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        length = images_BCHW.shape[axis]
        padded = functional.pad(images_BCHW, padding, mode="reflect")
        images_BCHW = padded.narrow(axis, 0, length) * weights_KB111[0]
        for place in range(1, num_weights):
            images_BCHW.addcmul_(padded.narrow(axis, place, length), weights_KB111[place])
    return images_BCHW


def noise_windows(bank: Tensor, starts_B: Tensor, size_px: int) -> Tensor:
    """Each sample's window of a bank of random numbers, from a start that is a multiple of NOISE_STEP.

    Returns
    -------
    Tensor of shape (B, 3, size_px, size_px)
    """
    num_values = 3 * size_px**2
    num_rows = -(-num_values // NOISE_STEP)
    first_rows_B = (starts_B / NOISE_STEP).to(torch.int64)
    rows_BR = first_rows_B[:, None] + torch.arange(num_rows, device=bank.device)
    values = bank.view(-1, NOISE_STEP).index_select(0, rows_BR.flatten())
    return values.view(len(starts_B), -1)[:, :num_values].view(-1, 3, size_px, size_px)


def recolor(
    images_BCHW: Tensor,
    matrix_B33: Tensor,
    added_B3: Tensor | None,
    where_B1HW: Tensor | None,
    offset_C: Tensor,
    out_BCHW: Tensor,
) -> None:
    """Write ``matrix @ pixel + added * where + offset`` into `out_BCHW`, one matrix and one added colour a sample.

    Parameters
    ----------
    images_BCHW, out_BCHW : Tensor of shape (B, 3, S, S), float
        The result is on the scale of the network, if matrix, added and offset lead to it.
    matrix_B33 : Tensor of shape (B, 3, 3)
    added_B3 : Tensor of shape (B, 3)
        None for nothing.
    where_B1HW : Tensor of shape (B, 1, S, S)
        Share of `added_B3` that each pixel gets; None for all of it.

    Notes
    -----
    Sums of products, not a matrix product: libraries choose the order of sums in a product by the number of matrices,
    and a sample's values must not depend on how many others are in the batch.
    """
    if added_B3 is None:
        out_BCHW.copy_(offset_C[:, None, None].expand_as(out_BCHW))
    elif where_B1HW is None:
        out_BCHW.copy_((added_B3 + offset_C)[:, :, None, None].expand_as(out_BCHW))
    else:
        torch.addcmul(offset_C[:, None, None], where_B1HW, added_B3[:, :, None, None], out=out_BCHW)
    for row, out_BHW in enumerate(out_BCHW.unbind(1)):
        for column, channel_BHW in enumerate(images_BCHW.unbind(1)):
            out_BHW.addcmul_(channel_BHW, matrix_B33[:, row, column, None, None])


def normalize_planes(images_BCHW: Tensor, scale_C: Tensor, offset_C: Tensor, out_BCHW: Tensor) -> None:
    """Write ``value * scale + offset`` into `out_BCHW`, with a scale and an offset for each channel."""
    torch.addcmul(offset_C[:, None, None], images_BCHW, scale_C[:, None, None], out=out_BCHW)


def mean_grey(images_BCHW: Tensor, weights_C: Tensor) -> Tensor:
    """Mean grey level of each image: (B,)."""
    # Rows first: a sum over a whole image would be shared out among threads, and its rounding depend on their number.
    means_BC = images_BCHW.mean(dim=3).mean(dim=2)
    return (means_BC * weights_C).sum(dim=1)


def clamp_channels_(images_BCHW: Tensor, low_C: Sequence[float], high_C: Sequence[float]) -> None:
    """Limit each channel to limits of its own, in place."""
    for channel, (low, high) in enumerate(zip(low_C, high_C, strict=True)):
        images_BCHW[:, channel].clamp_(low, high)


def normalize_pixels(images_BHWC: Tensor, scale_C: Tensor, offset_C: Tensor, out_BHWC: Tensor) -> None:
    """Write ``pixel * scale + offset`` into `out_BHWC`, float; the images may be integers."""
    batch, height_px, width_px, channels = images_BHWC.shape
    # Whole pixel rows as the inner axis: some hundred values a vector loop can run over, instead of 3.
    rows = out_BHWC.view(batch * height_px, width_px * channels)
    rows.copy_(images_BHWC.reshape(batch * height_px, width_px * channels))
    torch.addcmul(offset_C.repeat(width_px), rows, scale_C.repeat(width_px), out=rows)
