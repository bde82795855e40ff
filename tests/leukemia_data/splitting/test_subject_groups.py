"""Samples that must stay together."""

from __future__ import annotations

import numpy as np

from leukemia_data.splitting.subject_groups import linked_groups, majority_labels, numbered_by_content

HEM, ALL = 0, 1


def test_groups_by_hand(make_table):
    # A-B share pixels 7, B-C share 8: one chain of three. D stands alone. "" is nobody, twice, once linked to D.
    subjects = ["A", "B", "B", "C", "D", "", "", "C"]
    pixels = [7, 7, 8, 8, 1, 2, 1, 3]
    groups = linked_groups(make_table(subjects, [ALL] * 8, pixels=pixels))
    assert groups.tolist() == [0, 0, 0, 0, 1, 2, 1, 0]


def test_a_subject_called_like_a_sample_s_number_is_not_that_sample(make_table):
    assert linked_groups(make_table(["1", "", "2"], [ALL] * 3)).tolist() == [0, 1, 2]


def test_groups_are_numbered_by_their_smallest_digest(make_table):
    # Digests are little-endian bytes of these numbers: group 5 holds 3 and 9, group 2 holds 1, group 7 holds 4.
    table = make_table(["a", "b", "c", "a"], [ALL] * 4, pixels=[9, 1, 4, 3])
    assert numbered_by_content(np.array([5, 2, 7, 5]), table).tolist() == [1, 0, 2, 1]


def test_the_most_frequent_label_of_each_group():
    groups = np.array([0, 0, 0, 1, 1, 2])
    labels = np.array([ALL, ALL, HEM, ALL, HEM, ALL], np.int16)
    assert majority_labels(groups, labels).tolist() == [ALL, HEM, ALL]
