"""Near-identical images by their looks, against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from leukemia_data.records import near_looks
from leukemia_data.records.near_looks import (
    MAX_COMPARED,
    comparison_note,
    joined,
    look_correlations,
    near_groups,
    near_rows,
)

NONE = [0] * 64


def random_looks(rng: np.random.Generator, count: int) -> np.ndarray:
    values = rng.normal(0, 1, (count, 64))
    return as_looks(values)


def as_looks(values: np.ndarray) -> np.ndarray:
    return np.rint(127 * values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.int8)


def turned(look: np.ndarray, view: int) -> np.ndarray:
    """One of the eight views, written out with flips of a square."""
    square = look.reshape(8, 8)
    signs = np.array([-1, 1] * 4)
    square = square.T if view & 1 else square
    square = square * signs[:, None] if view & 2 else square
    return (square * signs if view & 4 else square).reshape(64).astype(look.dtype)


def near_copy(rng: np.random.Generator, look: np.ndarray, correlation: float) -> np.ndarray:
    noise = rng.normal(0, 1, 64)
    unit = look / np.linalg.norm(look)
    noise -= (noise @ unit) * unit
    values = correlation * unit + np.sqrt(1 - correlation**2) * noise / np.linalg.norm(noise)
    return as_looks(values[None])[0]


def groups_one_by_one(looks: np.ndarray) -> list[int]:
    """First member of each image's group, by the definition: eight views of every pair, and ties through others."""
    n = len(looks)
    near = np.zeros((n, n), bool)
    unit = [look / (np.linalg.norm(look) or 1) for look in looks.astype(float)]
    for a, b in combinations(range(n), 2):
        near[a, b] = near[b, a] = max(unit[a] @ turned(unit[b], view) for view in range(8)) >= 0.99
    groups = [-1] * n
    for start in range(n):
        waiting = [start] if groups[start] < 0 else []
        while waiting:
            here = waiting.pop()
            if groups[here] < 0:
                groups[here] = start
                waiting += np.flatnonzero(near[here]).tolist()
    return groups


@pytest.fixture
def planted(rng) -> np.ndarray:
    """Looks with exact copies, turned ones, near ones of copies, and some of images without any."""
    looks = list(random_looks(rng, 30))
    for number in range(24):
        source = looks[int(rng.integers(len(looks)))]
        if source.any():
            copy = near_copy(rng, source, float(rng.uniform(0.98, 1)))
            looks.append(turned(copy, number % 8))
        looks.append(turned(source, number % 8))
    looks += [np.zeros(64, np.int8)] * 3
    return np.array(looks)[rng.permutation(len(looks))]


@pytest.mark.parametrize("most", [20_000, 10])
def test_groups_are_those_of_comparing_every_pair(planted, monkeypatch, most):
    monkeypatch.setattr(near_looks, "MAX_COMPARED", most)
    assert near_groups(planted).tolist() == groups_one_by_one(planted)


def test_groups_in_small_blocks_and_large_runs(planted, monkeypatch):
    expected = near_groups(planted).tolist()
    monkeypatch.setattr(near_looks, "_BLOCK_ENTRIES", 100)
    monkeypatch.setattr(near_looks, "_PAIRS_AT_ONCE", 7)
    assert near_groups(planted).tolist() == expected
    monkeypatch.setattr(near_looks, "MAX_COMPARED", 10)
    monkeypatch.setattr(near_looks, "_LARGE_RUN", 2)
    monkeypatch.setattr(near_looks, "_MORE_PLANES", -4)
    assert near_groups(planted).tolist() == expected


def test_copies_of_one_image_are_one_group_without_comparing_all_pairs(rng):
    looks = np.repeat(random_looks(rng, 2), 5000, axis=0)
    assert near_groups(looks).tolist() == [0] * 5000 + [5000] * 5000


def test_many_looks_are_grouped_by_draws(rng, monkeypatch):
    monkeypatch.setattr(near_looks, "MAX_COMPARED", 100)
    looks = random_looks(rng, 3000)
    copies = np.array([turned(near_copy(rng, look, 0.998), n % 8) for n, look in enumerate(looks[:300])])
    groups = near_groups(np.concatenate([looks, copies]))
    assert (groups[:3000] == np.arange(3000)).all()
    assert (groups[3000:] == np.arange(300)).mean() >= 0.99


@pytest.mark.parametrize("count", [0, 1, 2])
def test_images_without_a_look_are_near_to_none(count):
    assert near_groups(np.zeros((count, 64), np.int8)).tolist() == list(range(count))


def test_rows_that_are_near_to_any_of_others(rng):
    known = random_looks(rng, 20)
    asked = np.array([turned(known[3], 5), near_copy(rng, known[4], 0.995), near_copy(rng, known[5], 0.98), NONE])
    asked = np.concatenate([asked, random_looks(rng, 5), known[:1], known[:1]]).astype(np.int8)
    known = np.concatenate([known, [np.zeros(64, np.int8)]])
    assert near_rows(known, asked).tolist() == [True, True, False, False, *[False] * 5, True, True]
    assert near_rows(known[:0], asked).tolist() == [False] * len(asked)
    assert near_rows(known, asked[:0]).tolist() == []


def test_near_through_another_of_b_is_not_near_to_a(rng):
    start = random_looks(rng, 1)
    chain = [start[0], near_copy(rng, start[0], 0.992)]
    chain.append(near_copy(rng, chain[1], 0.992))
    assert look_correlations(start, chain[2][None])[0] < 0.99
    assert near_rows(start, np.array(chain[1:])).tolist() == [True, False]


def test_correlations_are_those_of_the_best_view(rng):
    looks = random_looks(rng, 8)
    others = np.array([turned(look, view) for view, look in enumerate(looks)])
    assert look_correlations(looks, others) == pytest.approx(np.ones(8), abs=1e-6)
    assert look_correlations(looks[:1], np.zeros((1, 64), np.int8)).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(5))
def test_joined_is_the_smallest_of_what_is_tied(seed):
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 60, (2, 40))
    expected = list(range(60))
    for _ in range(60):
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert joined(np.arange(60), first, second).tolist() == expected


def test_the_report_says_how_images_are_compared_beyond_all_pairs() -> None:
    assert comparison_note(MAX_COMPARED) == ""
    assert f"{MAX_COMPARED + 1:,}" in comparison_note(MAX_COMPARED + 1)
