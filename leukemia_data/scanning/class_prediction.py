"""Predict classes from a few features of each image: a shallow tree, cross-validated by subject."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MIN_GAIN = 1e-9


@dataclass(frozen=True, slots=True)
class Tree:
    """A node: a leaf with its label, or a column, a threshold and two nodes below it.

    Attributes
    ----------
    label
        Prediction at this node.
    column, threshold
        Samples with values up to the threshold go to `low`, others to `high`; -1 for a leaf.
    gain
        Decrease of the impurity, relative to that of all samples.
    """

    label: int
    column: int = -1
    threshold: float = 0.0
    gain: float = 0.0
    low: Tree | None = None
    high: Tree | None = None

    def predict(self, features_NF: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the predicted label of each row, shape (n,), int64."""
        if self.low is None or self.high is None:
            return np.full(len(features_NF), self.label, np.int64)
        is_low = features_NF[:, self.column] <= self.threshold
        labels = np.empty(len(features_NF), np.int64)
        labels[is_low] = self.low.predict(features_NF[is_low])
        labels[~is_low] = self.high.predict(features_NF[~is_low])
        return labels

    def gains(self) -> dict[int, float]:
        """Return the total gain of each used column."""
        if self.low is None or self.high is None:
            return {}
        total = {self.column: self.gain}
        for below in (self.low, self.high):
            for column, gain in below.gains().items():
                total[column] = total.get(column, 0.0) + gain
        return total


def grow_tree(features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], *, max_depth: int, min_leaf: int) -> Tree:
    """Grow a tree of at most `max_depth` splits on a way, with at least `min_leaf` samples per leaf.

    Parameters
    ----------
    features_NF : ndarray of shape (n, f), float64
        Finite. The first of equally good columns is used.
    labels_N : ndarray of shape (n,), int64
        0 ... K-1. Classes have equal total weight.
    """
    counts_K = np.bincount(labels_N)
    weights_K = np.divide(1.0, counts_K, out=np.zeros(len(counts_K)), where=counts_K > 0)
    weights_NK = np.eye(len(counts_K))[labels_N] * weights_K
    return _grow(features_NF, weights_NK, max_depth, min_leaf, float(_impurity(weights_NK.sum(axis=0))))


def _grow(
    features_NF: NDArray[np.float64], weights_NK: NDArray[np.float64], max_depth: int, min_leaf: int, whole: float
) -> Tree:
    sums_K = weights_NK.sum(axis=0)
    # Rounded, so that the first of equal classes wins regardless of summation order.
    label, impurity = int(np.round(sums_K, 9).argmax()), float(_impurity(sums_K))
    if max_depth == 0 or len(features_NF) < 2 * min_leaf or impurity <= _MIN_GAIN * whole:
        return Tree(label)
    column, threshold, left = _best_split(features_NF, weights_NK, min_leaf)
    # As in scikit-learn, a split without gain is allowed, since one below it may gain.
    if column < 0:
        return Tree(label)
    is_low = features_NF[:, column] <= threshold
    low, high = (
        _grow(features_NF[side], weights_NK[side], max_depth - 1, min_leaf, whole) for side in (is_low, ~is_low)
    )
    return Tree(label, column, threshold, (impurity - left) / whole, low, high)


def _best_split(
    features_NF: NDArray[np.float64], weights_NK: NDArray[np.float64], min_leaf: int
) -> tuple[int, float, float]:
    """Column, threshold and remaining impurity; column -1 if no split is possible."""
    order_NF = np.argsort(features_NF, axis=0, kind="stable")
    sorted_NF = np.take_along_axis(features_NF, order_NF, axis=0)
    low_NFK = np.cumsum(weights_NK[order_NF], axis=0)[:-1]
    left_NF = _impurity(low_NFK) + _impurity(weights_NK.sum(axis=0) - low_NFK)
    number_N1 = np.arange(1, len(features_NF))[:, None]
    is_split_NF = sorted_NF[1:] > sorted_NF[:-1]
    is_split_NF &= (number_N1 >= min_leaf) & (len(features_NF) - number_N1 >= min_leaf)
    if not is_split_NF.any():
        return -1, 0.0, 0.0
    # Rounded, so that equivalent columns compare equal regardless of summation order.
    left_FN = np.where(is_split_NF, np.round(left_NF, 12), np.inf).T
    column, place = np.unravel_index(int(left_FN.argmin()), left_FN.shape)
    threshold = (sorted_NF[place, column] + sorted_NF[place + 1, column]) / 2
    return int(column), float(threshold), float(left_FN[column, place])


def _impurity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gini impurity times the total weight, for class weights in the last axis."""
    total = sums.sum(axis=-1)
    squares = np.square(sums).sum(axis=-1)
    return np.asarray(total - np.divide(squares, total, out=np.zeros_like(total), where=total > 0))


MIN_GROUPS = 3
"""Minimal groups per class for folds of whole groups."""
_MAX_FOLDS = 5
_REPEATS = 5
_MANY = 4000
"""Number of samples above which one division into folds is enough."""
_MIN_DEPTH, _MAX_DEPTH = 2, 4
_MIN_LEAF = 2
_Z = 2.5758293035489004
_MIN_SHARE_OF_GAIN = 0.1


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """Cross-validated prediction of classes from features.

    Attributes
    ----------
    balanced_accuracy, low, high
        Mean recall of the classes, 0 ... 1, and its 99 % interval. Groups of a class have equal weight.
    features
        Used columns, most important first.
    """

    balanced_accuracy: float
    low: float
    high: float
    features: tuple[int, ...]


def predict_classes(
    features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], *, seed: int = 0
) -> ClassPrediction:
    """Cross-validate a shallow tree.

    Parameters
    ----------
    features_NF : ndarray of shape (n, f), float64
        Finite.
    labels_N : ndarray of shape (n,), int64
        0 ... K-1, of at least two classes, each with samples.
    groups_N : ndarray of shape (n,), int64
        Samples of a group are in the same fold, and count as one in the interval. At least two per class.
    seed
        Of the folds.

    Returns
    -------
    ClassPrediction
        Of a tree of 2 to 4 levels, depending on the number of classes.
    """
    num_classes = int(labels_N.max()) + 1
    depth = int(np.clip(math.ceil(math.log2(num_classes)), _MIN_DEPTH, _MAX_DEPTH))
    groups_N = np.unique(groups_N, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    repeats = 1 if len(labels_N) > _MANY else _REPEATS
    hits_N = np.zeros(len(labels_N))
    for _ in range(repeats):
        hits_N += _hits(features_NF, labels_N, _folds(labels_N, groups_N, generator), depth)
    recalls, low, high = _recalls(hits_N / repeats, labels_N, groups_N)
    tree = grow_tree(features_NF, labels_N, max_depth=depth, min_leaf=_MIN_LEAF)
    return ClassPrediction(float(recalls.mean()), low, high, _deciding(tree))


def _hits(
    features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], folds_N: NDArray[np.int64], depth: int
) -> NDArray[np.float64]:
    """1 for each sample that a tree trained on the other folds predicts correctly."""
    hits_N = np.zeros(len(labels_N))
    for fold in range(int(folds_N.max()) + 1):
        held_out = folds_N == fold
        tree = grow_tree(features_NF[~held_out], labels_N[~held_out], max_depth=depth, min_leaf=_MIN_LEAF)
        hits_N[held_out] = tree.predict(features_NF[held_out]) == labels_N[held_out]
    return hits_N


def _folds(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Assign the groups of each class to folds round-robin, in random order."""
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
) -> tuple[NDArray[np.float64], float, float]:
    """Mean hit rate over the groups of each class, and the 99 % interval of their mean."""
    num_classes = int(labels_N.max()) + 1
    pairs, pair_N = np.unique(groups_N * num_classes + labels_N, return_inverse=True)
    shares = np.bincount(pair_N, hits_N) / np.bincount(pair_N)
    numbers = np.bincount(pairs % num_classes, minlength=num_classes)
    recalls = np.bincount(pairs % num_classes, shares, num_classes) / numbers
    centre = (recalls + _Z**2 / (2 * numbers)) / (1 + _Z**2 / numbers)
    half = np.sqrt(recalls * (1 - recalls) / numbers + _Z**2 / (4 * numbers**2)) * _Z / (1 + _Z**2 / numbers)
    below, above = recalls - (centre - half), centre + half - recalls
    mean = float(recalls.mean())
    low, high = (float(np.sqrt(np.square(side).sum()) / len(recalls)) for side in (below, above))
    return recalls, mean - low, mean + high


def _deciding(tree: Tree) -> tuple[int, ...]:
    """Columns above a tenth of the total gain, most important first."""
    gains = tree.gains()
    least = _MIN_SHARE_OF_GAIN * sum(gains.values())
    return tuple(sorted((c for c in gains if gains[c] > least), key=lambda column: (-gains[column], column)))
