"""How well a few numbers of each image predict its class: a shallow tree, cross-validated, with an interval.

The interval of each class's recall is Wilson's (1927); that of their mean joins them by MOVER (Zou and Donner 2008),
which keeps the coverage of intervals that are not symmetric. Both hold at recalls of 0 and 1, where a bootstrap of a
dozen images says that there is no doubt at all. The interval is one of 99 %: where people have cameras of their own,
4 to 14 a class, chance puts the lower end of one of 95 % above chance in up to 7 % of simulated sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.scanning.shallow_tree import Tree, grow_tree

MIN_GROUPS = 3
"""Groups of each class from which folds are made of whole groups."""
_MAX_FOLDS = 5
_REPEATS = 5
_MANY = 4000
"""Samples from which one division into folds is as good as several."""
_MIN_DEPTH, _MAX_DEPTH = 2, 4
_MIN_LEAF = 2
_Z = 2.5758293035489004
_LEAST_SHARE_OF_GAIN = 0.1


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """How well features predict the class of samples that the model has not seen.

    Attributes
    ----------
    balanced_accuracy, low, high
        Mean recall of the classes, 0 ... 1, and its 99 % interval. Each group of a class counts the same.
    features
        Columns that decide, the most important first; empty where none does.
    """

    balanced_accuracy: float
    low: float
    high: float
    features: tuple[int, ...]


def predict_classes(
    features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], *, seed: int = 0
) -> ClassPrediction:
    """Cross-validate a shallow tree on these numbers.

    Parameters
    ----------
    features_NF : ndarray of shape (n, f), float64
        Finite.
    labels_N : ndarray of shape (n,), int64
        0 ... K-1, of at least two classes, each of which has some samples.
    groups_N : ndarray of shape (n,), int64
        Samples of one group are on one side of each fold, and count as one in the interval. At least two of each class.
    seed
        Of the folds.

    Returns
    -------
    ClassPrediction
        The tree has as many levels as it takes to tell the classes apart, from 2 to 4.
    """
    num_classes = int(labels_N.max()) + 1
    depth = int(np.clip(math.ceil(math.log2(num_classes)), _MIN_DEPTH, _MAX_DEPTH))
    groups_N = np.unique(groups_N, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    repeats = 1 if len(labels_N) > _MANY else _REPEATS
    hits_N = np.zeros(len(labels_N))
    for _ in range(repeats):
        hits_N += _hits(features_NF, labels_N, _folds(labels_N, groups_N, generator), depth)
    recalls, numbers = _recalls(hits_N / repeats, labels_N, groups_N)
    low, high = _interval(recalls, numbers)
    tree = grow_tree(features_NF, labels_N, max_depth=depth, min_leaf=_MIN_LEAF)
    return ClassPrediction(float(recalls.mean()), low, high, _deciding(tree))


def _hits(
    features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], folds_N: NDArray[np.int64], depth: int
) -> NDArray[np.float64]:
    """1 for each sample whose class is predicted by a tree that has not seen its fold."""
    hits_N = np.zeros(len(labels_N))
    for fold in range(int(folds_N.max()) + 1):
        held_out = folds_N == fold
        tree = grow_tree(features_NF[~held_out], labels_N[~held_out], max_depth=depth, min_leaf=_MIN_LEAF)
        hits_N[held_out] = tree.predict(features_NF[held_out]) == labels_N[held_out]
    return hits_N


def _folds(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Deal the groups of each class to the folds in turn, in a random order."""
    counts_GK = np.zeros((int(groups_N.max()) + 1, int(labels_N.max()) + 1), np.int64)
    np.add.at(counts_GK, (groups_N, labels_N), 1)
    class_G = counts_GK.argmax(axis=1)
    fewest = min(np.bincount(class_G, minlength=counts_GK.shape[1]))
    num_folds = int(np.clip(fewest, 2, _MAX_FOLDS))
    fold_G = np.zeros(len(class_G), np.int64)
    start = 0
    for label in range(counts_GK.shape[1]):
        members = generator.permutation(np.flatnonzero(class_G == label))
        fold_G[members] = (start + np.arange(len(members))) % num_folds
        start += len(members)
    return fold_G[groups_N]


def _recalls(
    hits_N: NDArray[np.float64], labels_N: NDArray[np.int64], groups_N: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean over the groups of each class of their share of hits, and how many groups it has."""
    num_classes = int(labels_N.max()) + 1
    pairs, pair_N = np.unique(groups_N * num_classes + labels_N, return_inverse=True)
    shares = np.bincount(pair_N, hits_N) / np.bincount(pair_N)
    numbers = np.bincount(pairs % num_classes, minlength=num_classes)
    return np.bincount(pairs % num_classes, shares, num_classes) / numbers, numbers


def _interval(recalls: NDArray[np.float64], numbers: NDArray[np.int64]) -> tuple[float, float]:
    """99 % interval of the mean of recalls, each of so many groups."""
    centre = (recalls + _Z**2 / (2 * numbers)) / (1 + _Z**2 / numbers)
    half = np.sqrt(recalls * (1 - recalls) / numbers + _Z**2 / (4 * numbers**2)) * _Z / (1 + _Z**2 / numbers)
    below, above = recalls - (centre - half), centre + half - recalls
    mean = recalls.mean()
    low, high = (float(np.sqrt(np.square(side).sum()) / len(recalls)) for side in (below, above))
    return float(mean) - low, float(mean) + high


def _deciding(tree: Tree) -> tuple[int, ...]:
    gains = tree.gains()
    least = _LEAST_SHARE_OF_GAIN * sum(gains.values())
    ordered: Sequence[int] = sorted(gains, key=lambda column: (-gains[column], column))
    return tuple(column for column in ordered if gains[column] > least)
