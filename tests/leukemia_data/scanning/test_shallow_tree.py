"""The shallow tree compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from leukemia_data.scanning.class_prediction import Tree, grow_tree


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("max_depth", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_tree_that_scikit_learn_grows(num_classes, max_depth, seed):
    rng = np.random.default_rng(seed)
    # Numbers of samples by which no two splits or labels are equally good: of such, scikit-learn takes one at random.
    labels = np.repeat(np.arange(num_classes), [211, 307, 401, 503, 601][:num_classes])
    features = rng.normal(size=(len(labels), 4)) + labels[:, None] * [0.9, 0.5, 0.0, 0.0]
    options = {"max_depth": max_depth, "min_samples_leaf": 20, "class_weight": "balanced", "random_state": 0}
    other = DecisionTreeClassifier(**options).fit(features, labels)
    tree = grow_tree(features, labels, max_depth=max_depth, min_leaf=20)
    assert (tree.column, tree.threshold) == (other.tree_.feature[0], pytest.approx(other.tree_.threshold[0]))
    gains = np.zeros(4)
    for column, gain in tree.gains().items():
        gains[column] = gain
    assert gains / gains.sum() == pytest.approx(other.feature_importances_)
    leaves = other.tree_.value[other.apply(features), 0]
    # Where a leaf has two classes of the same weight, either is right.
    is_clear = np.sort(leaves, axis=1)[:, -1] - np.sort(leaves, axis=1)[:, -2] > 1e-9
    assert np.array_equal(tree.predict(features)[is_clear], other.predict(features)[is_clear])
    assert is_clear.mean() > 0.5


def test_the_first_of_equal_columns_is_taken_and_constant_ones_never():
    labels = np.repeat([0, 1], 5)
    wide = np.stack([np.ones(10), labels * 3.0, labels * 7.0, -labels * 1.0], axis=1)
    tree = grow_tree(wide, labels, max_depth=3, min_leaf=1)
    assert (tree.column, tree.threshold, tree.gain) == (1, 1.5, pytest.approx(1.0))
    assert tree.predict(wide).tolist() == labels.tolist()
    assert grow_tree(np.ones((10, 2)), labels, max_depth=3, min_leaf=1) == Tree(0)


def test_a_class_of_few_samples_weighs_as_much_as_another():
    labels = np.array([0] * 90 + [1] * 10)
    features = np.array([0.0] * 70 + [1.0] * 20 + [1.0] * 9 + [0.0])[:, None]
    tree = grow_tree(features, labels, max_depth=1, min_leaf=1)
    assert tree.predict(np.array([[0.0], [1.0]])).tolist() == [0, 1]
