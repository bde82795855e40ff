from __future__ import annotations

import colorsys

import numpy as np
import pytest

from leukemia_data.augmenting.appearance import (
    NOISE_STEP,
    Blur,
    Color,
    Cutout,
    Noise,
    make_noise_bank,
    num_noise_values,
)
from leukemia_data.augmenting.augment import Columns, draw_parameters
from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.augmenting.geometry import Rotate, Scale, Translate
from leukemia_data.augmenting.operation import Chance

SAMPLES = np.arange(8000)
HALF, ALWAYS = Chance(p=0.5), Chance(p=1.0)


def parameters(
    seed: int = 1, epoch: int = 2, size_px: int = 64, samples: np.ndarray = SAMPLES, **operations
) -> np.ndarray:
    return draw_parameters(Augmentation(name="test", **operations), samples, seed, epoch, size_px)


def affine(**operations) -> np.ndarray:
    return parameters(**operations)[:, Columns.AFFINE].reshape(-1, 2, 3)


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Twenty equal bins; 19 degrees of freedom: 43.8 is exceeded once in a thousand."""
    assert values.min() >= low
    assert values.max() <= high
    assert chi_square(np.histogram(values, 20, (low, high))[0]) < 43.8


# --- what draws depend on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flips", "report-a", "report-b"])
def test_a_samples_draws_do_not_depend_on_the_batch_or_order(name):
    augmentation = load_augmentation(name)
    samples = np.array([50, 3, 10**12, 7, 8, 12, 0, 41])
    together = draw_parameters(augmentation, samples, 4, 2, 64)
    order = np.array([3, 1, 7, 0])
    assert np.array_equal(draw_parameters(augmentation, samples[order], 4, 2, 64), together[order])
    for sample, row in zip(samples, together, strict=True):
        assert np.array_equal(draw_parameters(augmentation, np.array([sample]), 4, 2, 64)[0], row)


def test_epochs_and_seeds_draw_anew():
    rows = [affine(rotate=Rotate(p=1.0, degrees=90.0), seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    for first in range(4):
        for second in range(first):
            assert abs(np.corrcoef(rows[first][:, 0, 1], rows[second][:, 0, 1])[0, 1]) < 0.04


def test_an_operation_more_changes_no_other_ones_draws():
    rotate = Rotate(p=0.5, degrees=90.0)
    alone = parameters(rotate=rotate)
    others = {"noise": Noise(p=0.5, variance=9.0), "cutout": Cutout(p=0.5, fraction=0.2), "color": Color(p=0.5)}
    assert np.array_equal(parameters(rotate=rotate, **others)[:, Columns.AFFINE], alone[:, Columns.AFFINE])


def test_draws_are_pinned():
    # Resumed runs need the same draws for a seed.
    table = draw_parameters(load_augmentation("report-a"), np.array([0, 1, 10_660]), 5, 7, 224)
    pinned = [
        [-0.950805, 0.309790, 0.309790, 1.035551, 0.199844, -0.100185],
        [-0.999983, 0.005857, -0.005857, 1.010126, 0.650400, -0.674052],
        [-0.954494, 0.298229, -0.298229, 0.801715, 0.215048, -0.458001],
    ]
    assert np.allclose(table[:, [0, 1, 3, 6, 7, 15]], pinned, atol=2e-6)
    table = draw_parameters(load_augmentation("report-b"), np.array([0, 1, 10_660]), 5, 7, 224)
    assert table[:, Columns.NOISE_START].tolist() == [3326848, 1603072, 138960]
    assert table[:, Columns.CUTOUT].tolist() == [[150, 112], [66, 105], [224, 224]]


def test_no_samples_draw_nothing():
    assert draw_parameters(load_augmentation("report-b"), np.zeros(0, np.int64), 0, 0, 64).shape == (0, 25)


def test_parameters_are_one_small_table_of_floats():
    table = draw_parameters(load_augmentation("report-a"), np.arange(64), 0, 0, 224)
    assert table.dtype == np.float32
    assert table.nbytes < 10_000


# --- geometry -----------------------------------------------------------------------------------------------------


def test_the_eight_views_are_equally_likely_and_exact():
    matrices = affine(flip_horizontal=HALF, flip_vertical=HALF, transpose=HALF)
    assert set(np.unique(matrices)) == {-1.0, 0.0, 1.0}
    views, counts = np.unique(matrices.reshape(-1, 6), axis=0, return_counts=True)
    assert len(views) == 8
    # Seven degrees of freedom: 24.3 is exceeded once in a thousand.
    assert chi_square(counts) < 24.3


def test_quarter_turns_are_by_90_180_and_270_degrees_equally_often():
    matrices = affine(quarter_turns=ALWAYS)
    views, counts = np.unique(matrices.reshape(-1, 6), axis=0, return_counts=True)
    assert {tuple(view) for view in views} == {(0, -1, 0, 1, 0, 0), (-1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0)}
    # Two degrees of freedom: 13.8 is exceeded once in a thousand.
    assert chi_square(counts) < 13.8


def test_angles_are_uniform_within_their_limits():
    matrices = affine(rotate=Rotate(p=1.0, degrees=30.0))
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert_uniform(angles, -30.0001, 30.0001)
    assert np.allclose(np.linalg.det(matrices[:, :, :2]), 1, atol=1e-6)


def test_chances_are_kept():
    matrices = affine(rotate=Rotate(p=0.2, degrees=90.0))
    turned = int((matrices[:, 1, 0] != 0).sum())
    # Five standard deviations of a binomial distribution.
    assert abs(turned - 1600) < 5 * (8000 * 0.2 * 0.8) ** 0.5


def test_factors_and_shifts_are_uniform():
    matrices = affine(scale=Scale(p=1.0, factor=(0.5, 2.0)), translate=Translate(p=1.0, fraction=0.25))
    factors = 1 / matrices[:, 0, 0]
    assert_uniform(factors, 0.4999, 2.0001)
    # From the centre in half sides: a quarter of the side is one half.
    for axis in (0, 1):
        assert_uniform(-matrices[:, axis, 2] * factors, -0.5001, 0.5001)
    assert abs(np.corrcoef(matrices[:, 0, 2] * factors, matrices[:, 1, 2] * factors)[0, 1]) < 0.04


# --- colour -------------------------------------------------------------------------------------------------------


def color_matrices(**ranges) -> tuple[np.ndarray, np.ndarray]:
    table = parameters(color=Color(p=1.0, **ranges), samples=np.arange(50))
    return table[:, Columns.COLOR].reshape(-1, 3, 3), table[:, Columns.GREY]


def test_brightness_is_a_factor():
    matrices, added = color_matrices(brightness=(0.5, 1.5))
    factors = matrices[:, 0, 0]
    assert np.allclose(matrices, factors[:, None, None] * np.eye(3), atol=1e-6)
    assert factors.min() < 0.6
    assert factors.max() > 1.4
    assert np.abs(added).max() < 1e-6


def test_hue_is_a_rotation_of_the_colour_plane_of_yiq(rng):
    matrices, added = color_matrices(hue=(0.1, 0.1))
    red, green, blue = rng.uniform(0, 255, (3, 100))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    in_phase = 0.5959 * red - 0.2746 * green - 0.3213 * blue
    quadrature = 0.2115 * red - 0.5227 * green + 0.3112 * blue
    turned = (in_phase + 1j * quadrature) * np.exp(-2j * np.pi * 0.1)
    result = matrices[0].astype(np.float64) @ np.stack([red, green, blue])
    assert np.allclose([0.299, 0.587, 0.114] @ result, luminance, atol=1e-3)
    assert np.allclose([0.5959, -0.2746, -0.3213] @ result, turned.real, atol=1e-3)
    assert np.allclose([0.2115, -0.5227, 0.3112] @ result, turned.imag, atol=1e-3)
    assert np.abs(added).max() < 1e-6


def test_hue_keeps_greys_and_a_full_turn_is_the_identity():
    matrices, _ = color_matrices(hue=(-0.5, 0.5))
    assert np.allclose(matrices @ np.ones(3), 1, atol=1e-5)
    half_turn = color_matrices(hue=(0.5, 0.5))[0].astype(np.float64)
    assert np.allclose(half_turn @ half_turn, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("turn", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_the_way_and_about_as_far_as_the_hue_of_hsv(turn):
    matrix = color_matrices(hue=(turn, turn))[0][0].astype(np.float64)
    for hue in np.arange(0, 1, 1 / 12):
        color = np.array(colorsys.hsv_to_rgb(hue, 0.3, 0.6))
        moved = (colorsys.rgb_to_hsv(*(matrix @ color))[0] - hue + 0.5) % 1 - 0.5
        assert 0.3 < moved / turn < 2


# --- blur, noise, cutout ------------------------------------------------------------------------------------------


def test_blur_weights_sum_to_one_and_are_one_for_no_blur():
    weights = parameters(blur=Blur(p=0.5, kernel_px=5, sigma_px=(0.5, 2.0)))[:, Columns.BLUR :]
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(weights, weights[:, ::-1])
    sharp = weights[:, 2] == 1
    assert 3700 < sharp.sum() < 4300
    assert np.array_equal(np.unique(weights[sharp], axis=0), [[0, 0, 1, 0, 0]])
    ratios = weights[~sharp, 1] / weights[~sharp, 2]
    assert_uniform((-0.5 / np.log(ratios)) ** 0.5, 0.4999, 2.0001)


def test_noise_starts_anywhere_with_either_sign():
    table = parameters(noise=Noise(p=1.0, variance=30.0), size_px=224)
    assert np.allclose(np.abs(table[:, Columns.NOISE_LEVEL]), 30**0.5, rtol=1e-6)
    assert abs((table[:, Columns.NOISE_LEVEL] > 0).sum() - 4000) < 5 * 2000**0.5
    starts = table[:, Columns.NOISE_START]
    assert (starts % NOISE_STEP == 0).all()
    assert_uniform(starts, 0, num_noise_values(224) - 3 * 224**2)


@pytest.mark.parametrize("size_px", [1, 7, 450, 837, 4096])
def test_every_window_of_noise_is_inside_the_bank(size_px):
    starts = parameters(noise=Noise(p=1.0, variance=1.0), size_px=size_px)[:, Columns.NOISE_START].astype(np.int64)
    num_values = -(-3 * size_px**2 // NOISE_STEP) * NOISE_STEP
    assert num_noise_values(size_px) % NOISE_STEP == 0
    assert starts.max() + num_values <= num_noise_values(size_px)


def test_the_bank_is_standard_normal_and_a_function_of_the_seed():
    bank = make_noise_bank(3, 64)
    assert bank.dtype == np.float32
    assert bank.shape == (num_noise_values(64),)
    assert abs(bank.mean()) < 0.003
    assert abs(bank.std() - 1) < 0.003
    # Share of a normal distribution beyond two standard deviations.
    assert abs((np.abs(bank) > 2).mean() - 0.0455) < 0.001
    assert abs(np.corrcoef(bank[:-1], bank[1:])[0, 1]) < 0.003
    assert np.array_equal(bank[:100], make_noise_bank(3, 64)[:100])
    assert not np.array_equal(bank[:100], make_noise_bank(4, 64)[:100])


def test_squares_are_anywhere_inside_the_image():
    places = parameters(cutout=Cutout(p=1.0, fraction=0.25), size_px=20)[:, Columns.CUTOUT].astype(np.int64)
    counts = np.bincount(places[:, 0] * 16 + places[:, 1])
    assert counts.size == 256
    # 255 degrees of freedom: 331 is exceeded once in a thousand.
    assert chi_square(counts) < 331


def test_no_square_is_one_outside_the_image():
    places = parameters(cutout=Cutout(p=0.5, fraction=0.25), size_px=20)[:, Columns.CUTOUT]
    outside = (places == 20).all(axis=1)
    assert 3700 < outside.sum() < 4300
    assert places[~outside].max() <= 15
