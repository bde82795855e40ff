from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.streams.ordering import (
    permuted,
    sample_bits,
    stratified,
    stratified_occurrences,
    unit_interval,
)


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return permuted(np.arange(num_samples), num_samples, seed, epoch)


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


# --- order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [*range(40), 100, 10_661, 65_536, 65_537])
def test_an_order_is_a_permutation(num_samples):
    order = epoch_order(num_samples, seed=3, epoch=5)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(num_samples))


def test_the_order_is_a_function_of_its_arguments():
    np.testing.assert_array_equal(epoch_order(1000, 3, 5), epoch_order(1000, 3, 5))


@pytest.mark.parametrize(
    ("num_samples", "digest"),
    [
        (40, "07917903c2adef7d98ee0be88dc3bf32"),
        (10_661, "44a4af2455308e27a5d4d75335f8e0e6"),
        (65_537, "cfb37bf41e66b9bb664e0cb4849df127"),
        (200_003, "cad42188e8f20e743239e7e4c199c19c"),
    ],
)
def test_orders_are_those_of_the_first_releases(num_samples, digest):
    # Runs that are resumed depend on it. The last two are put in order in several chunks.
    assert bytes_digest(epoch_order(num_samples, seed=7, epoch=3).tobytes()).hex() == digest


def test_weighted_draws_are_those_of_the_first_releases():
    weights = np.cumsum(np.arange(70_001) % 5 + 0.25)
    drawn = stratified(np.arange(70_001), weights, 7, 3)
    assert bytes_digest(drawn.tobytes()).hex() == "c756a68e64ed60732d3f12b4b7b84961"


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [epoch_order(1000, seed, epoch) for seed in range(10) for epoch in range(10)]
    for first, second in itertools.combinations(orders, 2):
        # Two unrelated permutations agree at one place on average; 12 or more has a probability below 1e-9.
        assert (first == second).sum() < 12


@pytest.mark.parametrize("seed", [2**31, 2**53 + 1, 2**63, 2**64 - 1])
def test_large_seeds_differ_from_their_neighbours(seed):
    assert not np.array_equal(epoch_order(50, seed, 0), epoch_order(50, seed - 1, 0))


# Exceeded with probability 0.001 at 5, 23 and 119 degrees of freedom. The seeds are fixed, so this never flickers.
@pytest.mark.parametrize(("num_samples", "num_orders", "limit"), [(3, 6, 20.5), (4, 24, 49.7), (5, 120, 172.7)])
def test_every_permutation_of_a_few_is_equally_likely(num_samples, num_orders, limit):
    counts = Counter(tuple(epoch_order(num_samples, seed, epoch).tolist()) for seed in range(40) for epoch in range(50))
    assert len(counts) == num_orders
    assert chi_square(np.array(list(counts.values()))) < limit


def is_odd(order: np.ndarray) -> bool:
    """Whether an odd number of swaps leads to a permutation."""
    left, num_cycles = set(range(len(order))), 0
    while left:
        place, num_cycles = next(iter(left)), num_cycles + 1
        while place in left:
            left.remove(place)
            place = int(order[place])
    return (len(order) - num_cycles) % 2 == 1


@pytest.mark.parametrize("num_samples", [7, 8, 9, 24, 25, 49])
def test_odd_permutations_are_as_likely_as_even_ones(num_samples):
    share = np.mean([is_odd(epoch_order(num_samples, 0, epoch)) for epoch in range(600)])
    # Standard deviation 0.02: four of them.
    assert abs(share - 0.5) < 0.08


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint64])
def test_numpys_integers_are_seeds_and_epochs_like_pythons(integer):
    np.testing.assert_array_equal(epoch_order(100, integer(3), integer(5)), epoch_order(100, 3, 5))
    samples = np.arange(5)
    np.testing.assert_array_equal(sample_bits(samples, integer(3), integer(5), 1), sample_bits(samples, 3, 5, 1))


@pytest.mark.parametrize("num_samples", [9, 100, 1000])
def test_pairs_of_neighbours_are_independent(num_samples):
    """Where the first two positions go, and two in the middle, on a grid of 3 by 3 thirds."""
    for first in (0, num_samples // 2):
        pairs = [permuted(np.array([first, first + 1]), num_samples, 0, epoch) for epoch in range(1500)]
        thirds = np.array(pairs) * 3 // num_samples
        counts = np.bincount(3 * thirds[:, 0] + thirds[:, 1], minlength=9)
        sizes = np.bincount(np.arange(num_samples) * 3 // num_samples)
        together = np.outer(sizes, sizes) - np.diag(sizes)
        expected = 1500 * together.ravel() / (num_samples * (num_samples - 1))
        # 8 degrees of freedom: 26.1 is exceeded with probability 0.001.
        assert ((counts - expected) ** 2 / expected).sum() < 26.1


def test_any_part_of_an_order_is_that_of_the_whole():
    whole = epoch_order(10_661, 3, 5)
    for part in (np.array([10_660, 0, 5, 5]), np.arange(4000, 4064), np.array([], np.int64)):
        np.testing.assert_array_equal(permuted(part, 10_661, 3, 5), whole[part])


def test_no_order_has_runs_of_neighbours():
    order = epoch_order(100_000, 0, 0)
    # The mean distance of two uniform numbers below n is n/3, its standard deviation over 100,000 steps 0.00075 n.
    assert abs(np.abs(np.diff(order)).mean() / 100_000 - 1 / 3) < 0.004
    assert 0.49 < (np.diff(order) > 0).mean() < 0.51


def test_every_sample_comes_first_equally_often():
    firsts = np.bincount([epoch_order(20, 1, epoch)[0] for epoch in range(1500)], minlength=20)
    # 19 degrees of freedom: 43.8 is exceeded with probability 0.001.
    assert chi_square(firsts) < 43.8


# --- weights --------------------------------------------------------------------------------------------------


def drawn_counts(weights: list[float], num_epochs: int, seed: int = 1) -> np.ndarray:
    """Epochs by samples: how often each sample came."""
    cumulative, positions = np.cumsum(weights), np.arange(len(weights))
    rows = [stratified(positions, cumulative, seed, epoch) for epoch in range(num_epochs)]
    return np.array([np.bincount(row, minlength=len(weights)) for row in rows])


def test_equal_weights_give_every_sample_once():
    assert (drawn_counts([0.1] * 50, 20) == 1).all()


def test_samples_come_in_proportion_to_their_weights():
    weights = np.array([1.0, 2.0, 3.0, 0.0, 0.5, 3.5])
    counts = drawn_counts(weights.tolist(), 2000)
    expected = weights / weights.sum() * 6
    # The variance of a stratified count is below 1/2: five standard errors of the mean.
    assert np.abs(counts.mean(axis=0) - expected).max() < 5 * 0.71 / 2000**0.5
    assert np.abs(counts - expected).max() < 2
    assert counts[:, 3].sum() == 0


def test_weighted_order_is_mixed_and_a_function_of_its_arguments():
    cumulative = np.cumsum([1.0] * 90 + [9.0] * 10)
    drawn = stratified(np.arange(100), cumulative, 3, 4)
    np.testing.assert_array_equal(drawn, stratified(np.arange(100), cumulative, 3, 4))
    np.testing.assert_array_equal(drawn[[5, 99]], stratified(np.array([5, 99]), cumulative, 3, 4))
    assert not np.array_equal(drawn, stratified(np.arange(100), cumulative, 3, 5))
    halves = (drawn[:50] >= 90).sum(), (drawn[50:] >= 90).sum()
    assert min(halves) > 15


def test_samples_of_no_weight_at_the_end_never_come():
    assert (drawn_counts([1.0, 1.0, 0.0, 0.0], 500)[:, 2:] == 0).all()


@pytest.mark.parametrize("num_samples", [1, 2, 7, 100, 3000])
@pytest.mark.parametrize(
    "weigh",
    [
        lambda rng, num: np.full(num, 0.1),
        lambda rng, num: rng.random(num),
        lambda rng, num: rng.random(num) ** 20,
        lambda rng, num: rng.integers(0, 3, num) / 7 + (np.arange(num) == num // 2),
    ],
    ids=["equal", "uniform", "heavy", "thirds and zeros"],
)
def test_draws_of_a_sample_in_an_epoch_have_occurrences_of_their_own(rng, weigh, num_samples):
    cumulative, positions = np.cumsum(weigh(rng, num_samples)), np.arange(num_samples)
    for epoch in range(5):
        rows = stratified(positions, cumulative, 1, epoch)
        occurrences = stratified_occurrences(positions, rows, cumulative, 1, epoch)
        assert occurrences.dtype == np.int64
        assert len(set(zip(rows.tolist(), occurrences.tolist(), strict=True))) == num_samples
        assert 0 <= occurrences.min() <= occurrences.max() < num_samples
        some = rng.permutation(num_samples)[:20]
        np.testing.assert_array_equal(stratified_occurrences(some, rows[some], cumulative, 1, epoch), occurrences[some])


def test_occurrences_count_the_slots_of_a_sample():
    # Slots of 2: the samples hold 0 to 1, 1 to 7 and 7 to 8, so that the second one is drawn in slots 0 to 3.
    cumulative, positions = np.array([1.0, 7.0, 8.0, 8.0]), np.arange(4)
    seen = set()
    for epoch in range(30):
        rows = stratified(positions, cumulative, 0, epoch)
        occurrences = stratified_occurrences(positions, rows, cumulative, 0, epoch)
        slots = permuted(positions, 4, 0, epoch)
        first_slots = np.array([0, 0, 3, 9])
        np.testing.assert_array_equal(occurrences, slots - first_slots[rows])
        seen |= set(zip(rows.tolist(), occurrences.tolist(), strict=True))
    assert seen == {(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)}


def test_unit_interval_is_half_open():
    numbers = unit_interval(np.array([0, 2**64 - 1, 2**63], np.uint64))
    assert numbers.tolist() == [0.0, 1 - 2**-53, 0.5]


# --- bits -----------------------------------------------------------------------------------------------------


def test_bits_of_a_sample_do_not_depend_on_the_others_in_the_batch():
    whole = sample_bits(np.arange(1000), seed=1, epoch=2, draw=3)
    assert whole.dtype == np.uint64
    some = np.array([999, 0, 500, 500])
    np.testing.assert_array_equal(sample_bits(some, seed=1, epoch=2, draw=3), whole[some])
    for sample in (0, 1, 999):
        assert sample_bits(np.array([sample]), seed=1, epoch=2, draw=3)[0] == whole[sample]
    assert len(sample_bits(np.array([], np.int64), seed=1, epoch=2, draw=3)) == 0


def test_seed_epoch_draw_and_sample_all_count():
    rows = [
        sample_bits(np.arange(50), seed, epoch, draw)
        for seed, epoch, draw in itertools.product((0, 1, 2**63, 2**64 - 1), range(5), range(5))
    ]
    assert len(np.unique(np.concatenate(rows))) == 100 * 50


@pytest.mark.parametrize("shift", [0, 8, 29, 61])
def test_the_eight_codes_of_three_bits_are_equally_likely(shift):
    codes = sample_bits(np.arange(80_000), 0, 0, 0) >> np.uint64(shift) & np.uint64(7)
    # 7 degrees of freedom: 24.3 is exceeded with probability 0.001.
    assert chi_square(np.bincount(codes.astype(int), minlength=8)) < 24.3


def codes_of(seed: int, epoch: int, draw: int) -> np.ndarray:
    return (sample_bits(np.arange(64_000), seed, epoch, draw) & np.uint64(7)).astype(int)


@pytest.mark.parametrize("other", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)])
def test_codes_of_other_epochs_draws_and_seeds_are_independent(other):
    joint = np.bincount(8 * codes_of(0, 0, 0) + codes_of(*other), minlength=64)
    # 63 degrees of freedom: 103.4 is exceeded with probability 0.001.
    assert chi_square(joint) < 103.4


def test_neighbouring_samples_have_independent_codes():
    codes = codes_of(0, 0, 0)
    assert chi_square(np.bincount(8 * codes[:-1] + codes[1:], minlength=64)) < 103.4


def test_every_bit_is_set_half_of_the_time():
    bits = sample_bits(np.arange(40_000), 7, 7, 7)
    shares = [float((bits >> np.uint64(k) & np.uint64(1)).mean()) for k in range(64)]
    # Standard deviation 0.0025: four of them.
    assert max(abs(share - 0.5) for share in shares) < 0.01


def test_bits_are_pinned():
    """The finalizer of SplitMix64 on a counter, written out with Python's whole numbers."""
    mask = 2**64 - 1
    gamma = 0x9E3779B97F4A7C15

    def finalize(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    # The published first outputs of SplitMix64 from state 0 (its state grows by gamma before each output).
    assert finalize(gamma) == 0xE220A8397B1DCDAF
    stream = 5
    for value in (11, 3):
        stream = finalize((stream + gamma) & mask) ^ value
    stream = finalize((stream + gamma) & mask)
    expected = [finalize((sample * gamma + stream) & mask) for sample in (0, 1, 12345, 2**40)]
    assert sample_bits(np.array([0, 1, 12345, 2**40]), seed=5, epoch=11, draw=3).tolist() == expected
