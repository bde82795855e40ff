"""The random parameters of an augmentation: sample numbers in, one small table of floats out.

Every random decision has a number of its own (:class:`Draw`), and its outcome is a pure function of (seed, epoch,
sample, decision): independent of batch size, order, threads, ranks, device, and of which other operations are on.

The table has one row a sample. :class:`Columns` says where its numbers stand; ``augment_ops`` says what they do.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from leukemia_data.augmenting.augmentation import Augmentation, Blur, Chance, Color, Cutout, Noise, Range
from leukemia_data.streams.ordering import sample_bits, unit_interval

FloatArray = NDArray[np.float64]

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
NOISE_STEP = 16
MIN_NOISE_VALUES = 1 << 22

# The draw of `sample_bits` that is augmentation's; its decisions take this many counters a sample.
_STREAM = 0
_COUNTERS_A_SAMPLE = 64
# NTSC's Y, I and Q in terms of R, G and B; the rows of I and Q sum to 0, so that greys have no colour.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB_OF_YIQ = np.linalg.inv(_YIQ)
_FLIP_X, _FLIP_Y, _SWAP = np.diag([-1.0, 1.0]), np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
_QUARTERS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.float64)


class Draw(IntEnum):
    """Numbers of the random decisions. Append only: a changed number changes what runs with old seeds see."""

    FLIP_HORIZONTAL = 0
    FLIP_VERTICAL = 1
    TRANSPOSE = 2
    QUARTER_TURNS = 3
    NUM_QUARTERS = 4
    ROTATE = 5
    ANGLE = 6
    SCALE = 7
    FACTOR = 8
    TRANSLATE = 9
    SHIFT_X = 10
    SHIFT_Y = 11
    COLOR = 12
    BRIGHTNESS = 13
    CONTRAST = 14
    SATURATION = 15
    HUE = 16
    BLUR = 17
    SIGMA = 18
    NOISE = 19
    NOISE_START = 20
    NOISE_SIGN = 21
    CUTOUT = 22
    CUTOUT_TOP = 23
    CUTOUT_LEFT = 24


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
        All that follows: the weights of the blur's kernel in one direction; 0 ... 0 1 0 ... 0 for none.
    """

    AFFINE = slice(0, 6)
    COLOR = slice(6, 15)
    GREY = slice(15, 18)
    NOISE_LEVEL = 18
    NOISE_START = 19
    CUTOUT = slice(20, 22)
    BLUR = slice(22, None)


class _Draws:
    """All random numbers of a batch of samples, uniform in [0, 1), float64."""

    def __init__(self, samples_B: NDArray[np.int64], seed: int, epoch: int) -> None:
        counters_BD = samples_B[:, None] * _COUNTERS_A_SAMPLE + np.arange(len(Draw))
        self._uniform_DB: FloatArray = unit_interval(sample_bits(counters_BD, seed, epoch, _STREAM).T)

    def happens(self, operation: Chance | None, draw: Draw) -> NDArray[np.bool_]:
        """Which samples an operation is applied to."""
        chance = 0.0 if operation is None else operation.p
        return np.asarray(self._uniform_DB[draw] < chance)

    def within(self, limits: Range, draw: Draw) -> FloatArray:
        """Numbers uniform in [low, high)."""
        low, high = limits
        return np.asarray(low + (high - low) * self._uniform_DB[draw])

    def below(self, count: int, draw: Draw) -> FloatArray:
        """Whole numbers uniform in 0..count-1."""
        return np.asarray(np.floor(self._uniform_DB[draw] * count))


def draw_parameters(
    augmentation: Augmentation, samples_B: NDArray[np.int64], seed: int, epoch: int, size_px: int
) -> NDArray[np.float32]:
    """Draw the parameters of a batch of samples.

    Parameters
    ----------
    samples_B : ndarray of shape (B,), int64
        Sample numbers.
    seed, epoch
        As for ``ordering.sample_bits``.
    size_px
        Side of the images.

    Returns
    -------
    ndarray of shape (B, 22 + kernel_px of the blur), float32
        As :class:`Columns` describes it.
    """
    draws = _Draws(samples_B, seed, epoch)
    kernel_px = 0 if augmentation.blur is None else augmentation.blur.kernel_px
    table_BP = np.zeros((len(samples_B), Columns.BLUR.start + kernel_px), np.float32)
    table_BP[:, Columns.AFFINE] = _affine(augmentation, _moves(augmentation, draws), draws).reshape(-1, 6)
    if augmentation.color is not None:
        matrix_B33, grey_B3 = _color(augmentation.color, draws)
        table_BP[:, Columns.COLOR], table_BP[:, Columns.GREY] = matrix_B33.reshape(-1, 9), grey_B3
    if augmentation.blur is not None:
        table_BP[:, Columns.BLUR] = _blur_weights(augmentation.blur, draws)
    if augmentation.noise is not None:
        table_BP[:, Columns.NOISE_LEVEL], table_BP[:, Columns.NOISE_START] = _noise(augmentation.noise, draws, size_px)
    if augmentation.cutout is not None:
        table_BP[:, Columns.CUTOUT] = _cutout(augmentation.cutout, draws, size_px)
    return table_BP


def num_noise_values(size_px: int) -> int:
    """How many normal numbers the bank needs that images of this side read their noise from."""
    return max(MIN_NOISE_VALUES, -(-2 * 3 * size_px**2 // NOISE_STEP) * NOISE_STEP)


def make_noise_bank(seed: int, size_px: int) -> NDArray[np.float32]:
    """Standard normal numbers from which every sample reads a window of its own; a function of its arguments."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(num_noise_values(size_px), np.float32)


def _moves(augmentation: Augmentation, draws: _Draws) -> FloatArray:
    """Flips, transpose and quarter turns in this order, from the result's places to the input's: (B, 2, 2)."""
    identity = np.eye(2)
    flips_x = draws.happens(augmentation.flip_horizontal, Draw.FLIP_HORIZONTAL)
    flips_y = draws.happens(augmentation.flip_vertical, Draw.FLIP_VERTICAL)
    swaps = draws.happens(augmentation.transpose, Draw.TRANSPOSE)
    turns = draws.happens(augmentation.quarter_turns, Draw.QUARTER_TURNS)
    num_quarters = np.where(turns, 1 + draws.below(3, Draw.NUM_QUARTERS), 0).astype(np.int64)
    moves_B22 = np.where(flips_x[:, None, None], _FLIP_X, identity) @ np.where(
        flips_y[:, None, None], _FLIP_Y, identity
    )
    return moves_B22 @ np.where(swaps[:, None, None], _SWAP, identity) @ _QUARTERS[num_quarters]


def _affine(augmentation: Augmentation, moves_B22: FloatArray, draws: _Draws) -> FloatArray:
    """Moves, then rotation, scale and shift, as one matrix (B, 2, 3) from the result's places to the input's."""
    angles_B, factors_B = np.zeros(len(moves_B22)), np.ones(len(moves_B22))
    shifts_B2 = np.zeros((len(moves_B22), 2))
    if augmentation.rotate is not None:
        limit = augmentation.rotate.degrees
        happens = draws.happens(augmentation.rotate, Draw.ROTATE)
        angles_B = np.where(happens, np.radians(draws.within((-limit, limit), Draw.ANGLE)), 0)
    if augmentation.scale is not None:
        happens = draws.happens(augmentation.scale, Draw.SCALE)
        factors_B = np.where(happens, draws.within(augmentation.scale.factor, Draw.FACTOR), 1)
    if augmentation.translate is not None:
        # The side is two half sides long.
        limit = 2 * augmentation.translate.fraction
        shifts = [draws.within((-limit, limit), draw) for draw in (Draw.SHIFT_X, Draw.SHIFT_Y)]
        shifts_B2 = np.stack(shifts, axis=1) * draws.happens(augmentation.translate, Draw.TRANSLATE)[:, None]
    cosines, sines = np.cos(angles_B) / factors_B, np.sin(angles_B) / factors_B
    linear_B22 = moves_B22 @ np.array([[cosines, -sines], [sines, cosines]]).transpose(2, 0, 1)
    return np.concatenate([linear_B22, -linear_B22 @ shifts_B2[:, :, None]], axis=2)


def _color(color: Color, draws: _Draws) -> tuple[FloatArray, FloatArray]:
    """Brightness, contrast, saturation and hue in this order, as a matrix (B, 3, 3) and what is added per mean grey.

    Contrast blends with the image's mean grey level, which is only known on the device: its share stays a factor.
    """
    happens = draws.happens(color, Draw.COLOR)
    limits = (color.brightness, color.contrast, color.saturation)
    order = (Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION)
    brightness, contrast, saturation = (
        np.where(happens, draws.within(pair, draw), 1) for pair, draw in zip(limits, order, strict=True)
    )
    hue = np.where(happens, draws.within(color.hue, Draw.HUE), 0)
    grey_33 = np.broadcast_to(np.array(GREY_WEIGHTS), (3, 3))
    saturate_B33 = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey_33
    mix_B33 = _hue_matrices(hue) @ saturate_B33
    return mix_B33 * (brightness * contrast)[:, None, None], mix_B33.sum(axis=2) * (brightness * (1 - contrast))[
        :, None
    ]


def _hue_matrices(turns_B: FloatArray) -> FloatArray:
    """Turn the plane (I, Q) of YIQ, which leaves luminance and greys alone: (B, 3, 3); red goes to yellow first."""
    angles_B = 2 * np.pi * turns_B
    turn_B33 = np.zeros((len(turns_B), 3, 3))
    turn_B33[:, 0, 0] = 1
    turn_B33[:, 1, 1] = turn_B33[:, 2, 2] = np.cos(angles_B)
    turn_B33[:, 1, 2] = np.sin(angles_B)
    turn_B33[:, 2, 1] = -turn_B33[:, 1, 2]
    return np.asarray(_RGB_OF_YIQ @ turn_B33 @ _YIQ)


def _blur_weights(blur: Blur, draws: _Draws) -> FloatArray:
    """Gaussian weights (B, kernel_px) that sum to 1."""
    happens = draws.happens(blur, Draw.BLUR)[:, None]
    offsets = np.arange(blur.kernel_px) - blur.kernel_px // 2
    weights = np.exp(-0.5 * (offsets / draws.within(blur.sigma_px, Draw.SIGMA)[:, None]) ** 2)
    return np.asarray(np.where(happens, weights / weights.sum(axis=1, keepdims=True), offsets == 0))


def _noise(noise: Noise, draws: _Draws, size_px: int) -> tuple[FloatArray, FloatArray]:
    """Level with its sign, and where in the bank the noise begins; beginnings are multiples of NOISE_STEP."""
    sign = 1 - 2 * draws.below(2, Draw.NOISE_SIGN)
    level = np.where(draws.happens(noise, Draw.NOISE), noise.variance**0.5 * sign, 0)
    num_starts = (num_noise_values(size_px) - 3 * size_px**2) // NOISE_STEP + 1
    return level, NOISE_STEP * draws.below(num_starts, Draw.NOISE_START)


def _cutout(cutout: Cutout, draws: _Draws, size_px: int) -> FloatArray:
    """Top and left of the square (B, 2)."""
    num_places = size_px - cutout.side_px(size_px) + 1
    places = [draws.below(num_places, draw) for draw in (Draw.CUTOUT_TOP, Draw.CUTOUT_LEFT)]
    return np.where(draws.happens(cutout, Draw.CUTOUT)[:, None], np.stack(places, axis=1), size_px)
