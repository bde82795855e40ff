"""A decision tree of a few levels, grown greedily by the Gini impurity with balanced class weights.

It is CART (Breiman et al. 1984) as scikit-learn's ``DecisionTreeClassifier`` grows it, which the tests compare it with.
Loading scikit-learn takes two seconds, longer than a whole scan, and a few hundred frames need nothing of what it has
beyond this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_GAIN = 1e-9


@dataclass(frozen=True, slots=True)
class Tree:
    """A node: a leaf with its label, or a column, a threshold and two nodes below it.

    Attributes
    ----------
    label
        The answer, for samples that go no deeper.
    column, threshold
        Samples whose value is at most the threshold go to `low`, the others to `high`; -1 of a leaf.
    gain
        By how much the split lowers the impurity, as a share of that of all samples.
    """

    label: int
    column: int = -1
    threshold: float = 0.0
    gain: float = 0.0
    low: Tree | None = None
    high: Tree | None = None

    def predict(self, features_NF: NDArray[np.float64]) -> NDArray[np.int64]:
        """The label of each row, shape (n,), int64."""
        if self.low is None or self.high is None:
            return np.full(len(features_NF), self.label, np.int64)
        is_low = features_NF[:, self.column] <= self.threshold
        labels = np.empty(len(features_NF), np.int64)
        labels[is_low] = self.low.predict(features_NF[is_low])
        labels[~is_low] = self.high.predict(features_NF[~is_low])
        return labels

    def gains(self) -> dict[int, float]:
        """Columns that decide, with what their splits gain together."""
        if self.low is None or self.high is None:
            return {}
        total = {self.column: self.gain}
        for below in (self.low, self.high):
            for column, gain in below.gains().items():
                total[column] = total.get(column, 0.0) + gain
        return total


def grow_tree(features_NF: NDArray[np.float64], labels_N: NDArray[np.int64], *, max_depth: int, min_leaf: int) -> Tree:
    """Grow a tree.

    Parameters
    ----------
    features_NF : ndarray of shape (n, f), float64
        Finite. Of columns that split equally well the first is taken.
    labels_N : ndarray of shape (n,), int64
        0 ... K-1. Each class weighs the same, however many samples it has.
    max_depth
        Splits between the root and a leaf, at most.
    min_leaf
        Samples of a leaf, at least.
    """
    counts_K = np.bincount(labels_N)
    weights_K = np.divide(1.0, counts_K, out=np.zeros(len(counts_K)), where=counts_K > 0)
    weights_NK = np.eye(len(counts_K))[labels_N] * weights_K
    return _grow(features_NF, weights_NK, max_depth, min_leaf, float(_impurity(weights_NK.sum(axis=0))))


def _grow(
    features_NF: NDArray[np.float64], weights_NK: NDArray[np.float64], max_depth: int, min_leaf: int, whole: float
) -> Tree:
    sums_K = weights_NK.sum(axis=0)
    # Rounded, so that of equal classes the first is taken, whatever the order of their sums.
    label, impurity = int(np.round(sums_K, 9).argmax()), float(_impurity(sums_K))
    if max_depth == 0 or len(features_NF) < 2 * min_leaf or impurity <= _LEAST_GAIN * whole:
        return Tree(label)
    column, threshold, left = _best_split(features_NF, weights_NK, min_leaf)
    # As scikit-learn does, a split that gains nothing is made if one below it may.
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
    """Column, threshold and what impurity is left; column -1 where no column can be split."""
    order_NF = np.argsort(features_NF, axis=0, kind="stable")
    sorted_NF = np.take_along_axis(features_NF, order_NF, axis=0)
    low_NFK = np.cumsum(weights_NK[order_NF], axis=0)[:-1]
    left_NF = _impurity(low_NFK) + _impurity(weights_NK.sum(axis=0) - low_NFK)
    number_N1 = np.arange(1, len(features_NF))[:, None]
    is_split_NF = sorted_NF[1:] > sorted_NF[:-1]
    is_split_NF &= (number_N1 >= min_leaf) & (len(features_NF) - number_N1 >= min_leaf)
    if not is_split_NF.any():
        return -1, 0.0, 0.0
    # Rounded, so that columns that split alike are equal, whatever the order of their sums.
    left_FN = np.where(is_split_NF, np.round(left_NF, 12), np.inf).T
    column, place = np.unravel_index(int(left_FN.argmin()), left_FN.shape)
    threshold = (sorted_NF[place, column] + sorted_NF[place + 1, column]) / 2
    return int(column), float(threshold), float(left_FN[column, place])


def _impurity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gini impurity times the weight, of weights by class in the last axis."""
    total = sums.sum(axis=-1)
    squares = np.square(sums).sum(axis=-1)
    return np.asarray(total - np.divide(squares, total, out=np.zeros_like(total), where=total > 0))
