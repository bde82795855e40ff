"""Groups of samples that must stay in one part."""

from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.splitting.subject_groups import linked_groups, majority_labels, near_ties, numbered_by_content

HEM, ALL = 0, 1


def test_groups_by_hand(make_table):
    # A-B share pixels 7, B-C share 8: one chain of three. D stands alone. "" is nobody, twice, once linked to D.
    subjects = ["A", "B", "B", "C", "D", "", "", "C"]
    pixels = [7, 7, 8, 8, 1, 2, 1, 3]
    groups = linked_groups(make_table(subjects, [ALL] * 8, pixels=pixels))
    assert groups.tolist() == [0, 0, 0, 0, 1, 2, 1, 0]


def test_a_subject_called_like_a_sample_s_number_is_not_that_sample(make_table):
    assert linked_groups(make_table(["1", "", "2"], [ALL] * 3)).tolist() == [0, 1, 2]


def test_near_identical_images_tie_subjects_as_identical_ones_do(make_table, rng):
    #           A-B by turned looks; B-C by identical pixels; D has no look, and neither has E
    looks = rng.integers(-50, 51, (6, 64)).astype(np.int8)
    looks[1] = looks[0].reshape(8, 8).T.reshape(64)
    looks[4:] = 0
    table = make_table(["A", "B", "B", "C", "D", "E"], [ALL] * 6, pixels=[1, 2, 3, 3, 5, 6], looks=looks)
    assert linked_groups(table).tolist() == [0, 0, 0, 0, 1, 2]


def test_ties_by_near_identical_images_leave_those_of_one_subject_out(make_table, rng):
    looks = rng.integers(-50, 51, (7, 64)).astype(np.int8)
    looks[1], looks[3], looks[5] = looks[0], looks[2], looks[4]
    table = make_table(["A", "A", "B", "C", "", "", "D"], [ALL] * 7, looks=looks)
    assert near_ties(table).tolist() == [[2, 2], [3, 2], [4, 4], [5, 4]]
    assert near_ties(table.take([0, 1, 6])).tolist() == []


def linked_one_by_one(subjects: list[str], pixels: list[int]) -> list[int]:
    """Groups by their definition: go from sample to sample for as long as one more shares a subject or pixels."""
    groups, number = [-1] * len(subjects), 0
    for start in range(len(subjects)):
        if groups[start] >= 0:
            continue
        waiting = [start]
        while waiting:
            here = waiting.pop()
            if groups[here] < 0:
                groups[here] = number
                waiting += [
                    other
                    for other in range(len(subjects))
                    if pixels[other] == pixels[here] or (subjects[here] and subjects[other] == subjects[here])
                ]
        number += 1
    return groups


@pytest.mark.parametrize("seed", range(12))
def test_groups_are_those_of_going_from_sample_to_sample(make_table, seed):
    random = np.random.default_rng(seed)
    num_samples, num_subjects, num_pixels = 60, int(random.integers(2, 40)), int(random.integers(30, 400))
    subjects = ["" if n == 0 else f"p{n}" for n in random.integers(0, num_subjects, num_samples).tolist()]
    pixels = random.integers(0, num_pixels, num_samples).tolist()
    table = make_table(subjects, [ALL] * num_samples, pixels=pixels)
    assert linked_groups(table).tolist() == linked_one_by_one(subjects, pixels)


@pytest.mark.parametrize("seed", range(4))
def test_digests_have_the_order_of_their_bytes(make_table, seed):
    random = np.random.default_rng(seed)
    table = make_table([f"s{n}" for n in range(50)], [ALL] * 50)
    table.pixel_digests[:] = random.choice([0, 1, 127, 128, 255], (50, 16))
    table.pixel_digests[:, 15] = random.permutation(50)
    groups = random.integers(0, 9, 50)
    digests = [digest.tobytes() for digest in table.pixel_digests]
    smallest = {group: min(d for d, g in zip(digests, groups, strict=True) if g == group) for group in set(groups)}
    in_order = sorted(smallest, key=smallest.__getitem__)
    assert numbered_by_content(groups, table).tolist() == [in_order.index(group) for group in groups]


def test_groups_are_numbered_by_their_smallest_digest(make_table):
    # Digests are little-endian bytes of these numbers: group 5 holds 3 and 9, group 2 holds 1, group 7 holds 4.
    table = make_table(["a", "b", "c", "a"], [ALL] * 4, pixels=[9, 1, 4, 3])
    assert numbered_by_content(np.array([5, 2, 7, 5]), table).tolist() == [1, 0, 2, 1]


def test_the_most_frequent_label_of_each_group():
    groups = np.array([0, 0, 0, 1, 1, 2])
    labels = np.array([ALL, ALL, HEM, ALL, HEM, ALL], np.int16)
    assert majority_labels(groups, labels).tolist() == [ALL, HEM, ALL]
