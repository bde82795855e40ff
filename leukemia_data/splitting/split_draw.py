"""Distribute whole groups of samples over parts of a wanted size: pure functions of the groups and a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.splitting.subject_groups import majority_labels

_MAX_DRAWS = 200
_DRAW_BUDGET = 400_000


def assign_groups(
    groups: NDArray[np.int64],
    labels: NDArray[np.int16],
    fractions: Sequence[float],
    generator: np.random.Generator,
    too_few: Callable[[int, int], str],
) -> NDArray[np.int8]:
    """Distribute whole groups over parts, class by class, close to the wanted shares of images and of groups.

    Parameters
    ----------
    groups
        Of shape (n,): group of each sample, 0 ... g-1.
    labels
        Of shape (n,), none of them unknown; a group counts with its most frequent one.
    fractions
        Wanted share of each part; they add up to 1.
    generator
        Draws the orders that are tried.
    too_few
        The message for a label that has fewer groups than there are parts, from the label and its number of groups.

    Returns
    -------
    ndarray of shape (n,), int8
        Part of each sample. Each part has a group of each class.

    Raises
    ------
    UsageError
        If a class has fewer groups than there are parts.
    """
    class_of_group = majority_labels(groups, labels)
    sizes = np.bincount(groups, minlength=len(class_of_group))
    part_of_group = np.zeros(len(class_of_group), np.int8)
    for label in np.unique(class_of_group):
        members = np.flatnonzero(class_of_group == label)
        if len(members) < len(fractions):
            raise UsageError(too_few(int(label), len(members)))
        part_of_group[members] = _best_draw(sizes[members], np.array(fractions), generator)
    return part_of_group[groups]


def _best_draw(
    sizes: NDArray[np.int64], fractions: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int8]:
    """Try random orders of the groups and keep the assignment closest to the wanted shares."""
    num_draws = int(np.clip(_DRAW_BUDGET // len(sizes), 1, _MAX_DRAWS))
    best_cost, best = np.inf, np.zeros(len(sizes), np.int8)
    for _ in range(num_draws):
        parts = _fill_parts(sizes, fractions, generator.permutation(len(sizes)))
        image_shares = np.bincount(parts, sizes, len(fractions)) / sizes.sum()
        group_shares = np.bincount(parts, minlength=len(fractions)) / len(sizes)
        cost = float(np.abs(image_shares - fractions).sum() + np.abs(group_shares - fractions).sum())
        if cost < best_cost:
            best_cost, best = cost, parts
    return best


def _fill_parts(sizes: NDArray[np.int64], fractions: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int8]:
    """Give each group in turn to the part that lacks most images; no part stays empty."""
    lacking = (fractions * sizes.sum()).tolist()
    parts = np.zeros(len(sizes), np.int8)
    empty = set(range(len(fractions)))
    for position, group in enumerate(order.tolist()):
        candidates = empty if len(order) - position <= len(empty) else range(len(fractions))
        part = max(candidates, key=lambda p: (lacking[p], -p))
        parts[group] = part
        lacking[part] -= int(sizes[group])
        empty.discard(part)
    return parts
