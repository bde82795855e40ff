"""Leaks between the parts of a split."""

from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.auditing.audit import audit_images
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import Sides
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import check_leaks, is_disjoint_stamp
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED

HEM, ALL = 0, 1
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


def test_near_identical_images_are_counted_apart_from_identical_ones(make_table, rng):
    looks = rng.integers(-50, 51, (8, 64)).astype(np.int8)
    # 0 is near 1 across parts; 2 is identical to 3 across parts; 4 is near 5 in one part; 6 near 7 with two labels.
    for number in (1, 3, 5, 7):
        looks[number] = looks[number - 1]
    codes = np.array([TRAIN, TEST, TRAIN, TEST, TRAIN, TRAIN, VALID, VALID], np.int8)
    subjects = [str(n) for n in range(8)]
    table = make_table(subjects, [ALL] * 7 + [HEM], pixels=[0, 1, 2, 2, 4, 5, 6, 7], looks=looks)
    leaks = check_leaks(codes, table)
    assert (leaks.shared_images, leaks.near_images, leaks.near_contradictions) == (1, 1, 1)
    assert leaks.stamp == (
        "PATIENT-MIXED (1 identical image on both sides, 1 near-identical image on both sides, "
        "1 near-identical image with several labels)"
    )


def test_a_group_of_near_and_identical_images_counts_as_both(make_table, rng):
    looks = np.repeat(rng.integers(-50, 51, (1, 64)), 3, axis=0)
    table = make_table(["1", "2", "3"], [ALL] * 3, pixels=[1, 1, 2], looks=looks)
    leaks = check_leaks(np.array([TRAIN, TEST, TEST], np.int8), table)
    assert (leaks.shared_images, leaks.near_images) == (1, 1)
    inside = check_leaks(np.array([TRAIN, TRAIN, UNUSED], np.int8), table)
    assert inside.is_disjoint


# --- subjects that may be none, and contradictions ------------------------------------------------------------

CONFIRMED = SubjectsFound(sources=("folders",), count=2, is_confirmed=True)
READ = SubjectsFound(sources=("C-NMC file names", "column patient"), count=2)


def test_subjects_of_several_classes_are_subjects_only_by_option(make_table):
    table = make_table(["1", "1", "2", "3"], [ALL, HEM, ALL, HEM])
    codes = np.array([TRAIN, TRAIN, VALID, VALID], np.int8)
    for subjects in (None, READ):
        leaks = check_leaks(codes, table, subjects)
        assert (leaks.doubtful_subjects, leaks.is_disjoint) == (1, False)
        assert leaks.stamp == "PATIENT-MIXED (1 subject with images of several classes)"
    confirmed = check_leaks(codes, table, CONFIRMED)
    assert (confirmed.doubtful_subjects, confirmed.is_disjoint) == (0, True)
    assert confirmed.stamp == "subject-disjoint (subjects from folders)"


def test_a_subject_is_doubtful_whichever_of_its_images_are_used(make_table):
    table = make_table(["1", "1", "2"], [ALL, HEM, HEM])
    assert not check_leaks(np.array([TRAIN, UNUSED, VALID], np.int8), table).is_disjoint


def test_images_without_a_label_or_a_subject_contradict_nothing(make_table):
    table = make_table(["1", "1", "", ""], [ALL, -1, ALL, HEM], pixels=[1, 2, 3, 4])
    leaks = check_leaks(np.array([TRAIN, TRAIN, UNUSED, UNUSED], np.int8), table)
    assert (leaks.doubtful_subjects, leaks.contradictory_images, leaks.is_disjoint) == (0, 0, True)


def test_identical_images_with_several_labels_are_no_clean_split(make_table):
    table = make_table(["1", "2", "3"], [ALL, HEM, HEM], pixels=[7, 7, 8])
    leaks = check_leaks(np.array([TRAIN, TRAIN, VALID], np.int8), table, CONFIRMED)
    assert (leaks.contradictory_images, leaks.is_disjoint) == (1, False)
    assert leaks.stamp == "PATIENT-MIXED (1 image with several labels)"
    unlabelled = make_table(["1", "2", "3"], [ALL, -1, HEM], pixels=[7, 7, 8])
    assert check_leaks(np.array([TRAIN, TRAIN, VALID], np.int8), unlabelled).is_disjoint


@pytest.mark.parametrize(
    ("subjects", "stamp"),
    [
        (None, "subject-disjoint"),
        (SubjectsFound(), "subject-disjoint"),
        (READ, "subject-disjoint (subjects from C-NMC file names; column patient)"),
        (CONFIRMED, "subject-disjoint (subjects from folders)"),
    ],
)
def test_the_stamp_says_where_the_subjects_came_from(make_table, subjects, stamp):
    leaks = check_leaks(np.array([TRAIN, VALID], np.int8), make_table(["1", "2"], [ALL, HEM]), subjects)
    assert leaks.stamp == stamp
    assert is_disjoint_stamp(leaks.stamp)
    mixed = check_leaks(np.array([TRAIN, VALID], np.int8), make_table(["1", "1"], [ALL, ALL]), subjects)
    assert not is_disjoint_stamp(mixed.stamp)


@pytest.mark.parametrize("names", [("P1", "p1"), ("patient_1", "Patient 01"), ("1", "1.0"), ("1", "01")])
def test_a_person_who_is_written_in_two_ways_is_not_two(make_table, names):
    codes, table = np.array([TRAIN, TEST], np.int8), make_table(list(names), [ALL, ALL])
    leaks = check_leaks(codes, table)
    assert (leaks.alike_subjects, leaks.is_disjoint) == (1, False)
    assert leaks.stamp == "PATIENT-MIXED (1 subject written in several ways)"
    assert check_leaks(codes, table, CONFIRMED).is_disjoint
    assert check_leaks(codes, make_table(["1", "H1"], [ALL, ALL])).is_disjoint


@pytest.mark.parametrize("seed", range(60))
def test_what_the_audit_calls_wrong_or_a_leak_is_not_stamped_disjoint(make_table, seed):
    """Random small sources: the audit's leaks equal those of a training's check."""
    rng = np.random.default_rng(seed)
    num = 6
    subjects = [str(number) for number in rng.integers(1, 5, num)]
    if seed % 7 == 0:
        subjects[0] = f"0{subjects[0]}"
    labels = [int(subject) % 2 for subject in subjects] if seed % 3 else rng.integers(0, 2, num).tolist()
    pixels = rng.permutation(num) if seed % 2 else rng.integers(0, 3 * num, num)
    codes = rng.integers(0, 3, num).astype(np.int8)
    if seed % 5 == 0:
        codes[rng.integers(num)] = UNUSED
    is_confirmed = seed % 4 == 0
    found = SubjectsFound(sources=("column subject",), count=4, is_confirmed=is_confirmed)
    leaks = check_leaks(codes, make_table(subjects, labels, pixels=pixels.tolist()), found)
    images = [
        AuditImage(
            name=str(number),
            class_name=["hem", "all"][labels[number]],
            subject=subjects[number],
            pixel_digest=int(pixels[number]).to_bytes(16, "little"),
        )
        for number in range(num)
    ]
    sides = Sides("training", "parts", tuple("" if code == UNUSED else SPLIT_NAMES[code] for code in codes.tolist()))
    report = audit_images(images, [sides], are_confirmed=is_confirmed)
    bad = [check.key for check in report.checks if check.verdict in ("WRONG", "LEAK")]
    assert leaks.is_disjoint == (not bad)
