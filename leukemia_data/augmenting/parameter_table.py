"""The parameters of a batch's augmentations: sample indices in, one small table of floats out, a row a sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.augmenting.blur_noise import draw_blur_weights, draw_noise
from leukemia_data.augmenting.colour import draw_color
from leukemia_data.augmenting.cutout import draw_cutout
from leukemia_data.augmenting.draws import Draws
from leukemia_data.augmenting.geometry import draw_affine


class Columns:
    """Where the parameters of a sample stand in its row.

    Attributes
    ----------
    AFFINE
        Six numbers, a 2x3 matrix row by row: from a place in the result to its place in the input, both as (x, y) from
        the centre in half sides. Flips, transposes and quarter turns alone give exactly 0, 1 and -1.
    COLOR
        Nine numbers, a 3x3 matrix row by row on (R, G, B).
    GREY
        Three numbers per channel: what is added for each grey level of the image's mean grey.
    NOISE_LEVEL
        Standard deviation of the noise in grey levels, with the sign it is taken with; 0 for none.
    NOISE_START
        Where in the bank of noise the sample's begins.
    CUTOUT
        Top row and left column of the square, in pixels; a place outside the image for none.
    BLUR
        First of the weights of the blur's kernel in one direction; 0 ... 0 1 0 ... 0 for none. Behind them stand the
        columns of a user's own operations, see :func:`custom_columns`.
    """

    AFFINE = slice(0, 6)
    COLOR = slice(6, 15)
    GREY = slice(15, 18)
    NOISE_LEVEL = 18
    NOISE_START = 19
    CUTOUT = slice(20, 22)
    BLUR = 22


def blur_columns(augmentation: Augmentation) -> slice:
    """Where the weights of the blur's kernel stand."""
    return slice(Columns.BLUR, Columns.BLUR + (0 if augmentation.blur is None else augmentation.blur.kernel_px))


def custom_columns(augmentation: Augmentation) -> list[slice]:
    """Where the columns of each of a user's own operations stand: whether it is applied, and its draws."""
    ends = np.cumsum(
        [blur_columns(augmentation).stop, *(1 + change.num_draws for change in augmentation.custom)]
    ).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def draw_parameters(
    augmentation: Augmentation, samples_B: NDArray[np.int64], seed: int, epoch: int, size_px: int
) -> NDArray[np.float32]:
    """Draw the parameters of a batch of samples.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Indices of the samples in the cache.
    seed, epoch
        As for ``ordering.sample_bits``.
    size_px
        Side of the images.

    Returns
    -------
    ndarray of shape (B, 22 + kernel_px of the blur + 1 + num_draws of each custom operation), float32
        As :class:`Columns` describes it.
    """
    draws = Draws(samples_B, seed, epoch)
    custom = [draws.of_custom(operation) for operation in augmentation.custom]
    table_BP = np.zeros((len(samples_B), blur_columns(augmentation).stop), np.float32)
    table_BP[:, Columns.AFFINE] = draw_affine(
        augmentation.moving, augmentation.rotate, augmentation.scale, augmentation.translate, draws
    ).reshape(-1, 6)
    if augmentation.color is not None:
        matrix_B33, grey_B3 = draw_color(augmentation.color, draws)
        table_BP[:, Columns.COLOR], table_BP[:, Columns.GREY] = matrix_B33.reshape(-1, 9), grey_B3
    if augmentation.blur is not None:
        table_BP[:, blur_columns(augmentation)] = draw_blur_weights(augmentation.blur, draws)
    if augmentation.noise is not None:
        table_BP[:, Columns.NOISE_LEVEL], table_BP[:, Columns.NOISE_START] = draw_noise(
            augmentation.noise, draws, size_px
        )
    if augmentation.cutout is not None:
        table_BP[:, Columns.CUTOUT] = draw_cutout(augmentation.cutout, draws, size_px)
    return np.concatenate([table_BP, *custom], axis=1, dtype=np.float32) if custom else table_BP
