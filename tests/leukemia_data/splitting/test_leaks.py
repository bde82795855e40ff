"""What stands on two sides of a split."""

from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import UNUSED

ALL = 1
TRAIN, VALID, TEST = 0, 1, 2


def test_leaks_are_counted(make_table):
    #            shared subject 1   2 in one part   nobody   pixels 9 in train and test, 8 only in valid
    subjects = ["1", "1", "1", "2", "2", "", "3", "4", "5"]
    pixels = [0, 1, 2, 3, 9, 9, 8, 8, 7]
    codes = np.array([TRAIN, VALID, TEST, TRAIN, TRAIN, TEST, VALID, VALID, UNUSED], np.int8)
    leaks = check_leaks(codes, make_table(subjects, [ALL] * 9, pixels=pixels))
    assert (leaks.shared_subjects, leaks.shared_images, leaks.unknown_subjects) == (1, 1, 1)
    assert leaks.stamp == (
        "PATIENT-MIXED (1 subject on both sides, 1 identical image on both sides, 1 image of an unknown subject)"
    )


def test_unused_samples_do_not_leak(make_table):
    table = make_table(["1", "1", ""], [ALL] * 3, pixels=[3, 3, 3])
    leaks = check_leaks(np.array([TRAIN, UNUSED, UNUSED], np.int8), table)
    assert leaks.is_disjoint
    assert leaks.stamp == "subject-disjoint"


@pytest.mark.parametrize(
    ("subjects", "pixels", "stamp"),
    [
        (["1", "1"], [1, 2], "PATIENT-MIXED (1 subject on both sides)"),
        (["1", "2"], [1, 1], "PATIENT-MIXED (1 identical image on both sides)"),
        (["1", ""], [1, 2], "PATIENT-MIXED (1 image of an unknown subject)"),
        (["1", "2"], [1, 2], "subject-disjoint"),
    ],
)
def test_each_leak_alone_is_stamped(make_table, subjects, pixels, stamp):
    leaks = check_leaks(np.array([TRAIN, VALID], np.int8), make_table(subjects, [ALL] * 2, pixels=pixels))
    assert leaks.stamp == stamp
    assert leaks.is_disjoint == (stamp == "subject-disjoint")


def test_identical_images_of_one_split_are_no_leak_even_across_subjects(make_table):
    table = make_table(["1", "2", "3"], [ALL] * 3, pixels=[1, 1, 2])
    assert check_leaks(np.array([TRAIN, TRAIN, VALID], np.int8), table).is_disjoint
