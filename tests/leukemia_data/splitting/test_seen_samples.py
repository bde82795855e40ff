"""Samples that weights have seen, and their intersection with another split."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.reading import CNMC_NAMING
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.seen_samples import (
    NOTHING_SEEN,
    NOTHING_SEEN_BEFORE,
    UNKNOWN_ORIGIN,
    Naming,
    SeenBefore,
    SeenSamples,
    SeenSource,
    joined,
    meets,
    row_keys,
    samples_of_split,
    text_keys,
)
from leukemia_data.splitting.split_spec import UNUSED

ALL = 1
TRAIN, VALID, TEST = 0, 1, 2
LAB, OTHER_LAB = Naming("lab", "folder level 1"), Naming("elsewhere", "folder level 1")


def codes_of(*parts: int) -> np.ndarray:
    return np.array(parts, np.int8)


@pytest.fixture
def earlier(make_table) -> SampleTable:
    return make_table(["1", "1", "2", "3"], [ALL] * 4, pixels=[1, 2, 3, 4])


@pytest.fixture
def seen(earlier: SampleTable) -> SeenSamples:
    """Trained on subject 1, chosen by 2, tested on 3."""
    return samples_of_split(earlier, codes_of(TRAIN, TRAIN, VALID, TEST), LAB)


def test_the_same_split_meets_nothing(earlier: SampleTable, seen: SeenSamples) -> None:
    assert meets(seen, earlier, codes_of(TRAIN, TRAIN, VALID, TEST), LAB) == NOTHING_SEEN_BEFORE


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((TEST, TEST, VALID, TRAIN), SeenBefore(subjects=1, images=2, num_samples=2)),  # trained on, now tested
        ((VALID, VALID, TRAIN, TEST), SeenBefore(subjects=1, images=2, num_samples=2)),  # trained on, now validated
        ((TRAIN, TRAIN, TEST, VALID), SeenBefore(subjects=1, images=1, num_samples=1)),  # chosen by, now tested
        ((TRAIN, TRAIN, VALID, VALID), NOTHING_SEEN_BEFORE),  # chosen by, may choose again
        ((UNUSED, UNUSED, UNUSED, TEST), NOTHING_SEEN_BEFORE),
    ],
)
def test_what_was_seen_must_not_be_held_out(
    parts: tuple[int, ...], expected: SeenBefore, earlier: SampleTable, seen: SeenSamples
) -> None:
    found = meets(seen, earlier, codes_of(*parts), LAB)
    assert found == expected
    assert found.is_leak == (expected != NOTHING_SEEN_BEFORE)
    leaks = check_leaks(codes_of(*parts), earlier, None, found)
    assert (leaks.start_subjects, leaks.start_images) == (expected.subjects, expected.images)
    assert leaks.stamp.startswith("PATIENT-MIXED") or not found.is_leak


def test_renamed_subjects_are_found_by_one_image(make_table, seen: SeenSamples) -> None:
    """Image 2 was trained on: its subjects, and subjects that share an image with them, were seen."""
    renamed = make_table(["a", "a", "b", "b", "c"], [ALL] * 5, pixels=[2, 50, 50, 60, 70])
    found = meets(seen, renamed, codes_of(TEST, TEST, TEST, TEST, TEST), OTHER_LAB)
    assert found == SeenBefore(subjects=2, images=1, num_samples=4)


def test_a_seen_image_in_another_part_marks_its_subject_as_seen(make_table, seen: SeenSamples) -> None:
    table = make_table(["a", "a"], [ALL] * 2, pixels=[1, 50])
    assert meets(seen, table, codes_of(UNUSED, TEST), OTHER_LAB) == SeenBefore(subjects=1, num_samples=1)


@pytest.mark.parametrize(
    ("own", "other", "same_people"),
    [
        (LAB, LAB, True),
        (LAB, OTHER_LAB, False),
        (LAB, replace(LAB, subjects_from="column 'patient'"), False),
        (Naming("a", CNMC_NAMING), Naming("b", CNMC_NAMING), True),
        (Naming("a", ""), Naming("b", ""), False),
    ],
)
def test_names_count_where_both_sources_name_the_same_people(
    own: Naming, other: Naming, same_people: bool, make_table
) -> None:
    seen = samples_of_split(make_table(["1"], [ALL], pixels=[1]), codes_of(TRAIN), own)
    found = meets(seen, make_table(["1", "2"], [ALL] * 2, pixels=[7, 8]), codes_of(TEST, TEST), other)
    assert found == (SeenBefore(subjects=1, num_samples=1) if same_people else SeenBefore(namesakes=1))
    leaks = check_leaks(codes_of(TEST, TEST), make_table(["1", "2"], [ALL] * 2), None, found)
    assert leaks.start_namesakes == (not same_people)


def test_one_shared_image_makes_all_names_count(make_table, seen: SeenSamples) -> None:
    table = make_table(["9", "1"], [ALL] * 2, pixels=[4, 50])
    without = meets(seen, table, codes_of(TRAIN, TEST), OTHER_LAB)
    assert without == SeenBefore(namesakes=1)  # image 4 was tested on, which leaves no trace in the weights
    sharing = make_table(["9", "1"], [ALL] * 2, pixels=[3, 50])
    assert meets(seen, sharing, codes_of(TRAIN, TEST), OTHER_LAB) == SeenBefore(subjects=1, num_samples=1)


def test_images_of_unknown_subjects_are_found_by_their_pixels(make_table) -> None:
    table = make_table(["", ""], [ALL] * 2, pixels=[1, 2])
    seen = samples_of_split(table, codes_of(TRAIN, TEST), LAB)
    assert not len(seen.sources[0].trained_subjects)
    assert meets(seen, table, codes_of(TEST, TRAIN), LAB) == SeenBefore(images=1, num_samples=1)
    assert meets(seen, table, codes_of(TRAIN, TEST), LAB) == NOTHING_SEEN_BEFORE


def test_rows_stand_for_images_whose_digests_are_not_known(make_table) -> None:
    known = SeenSource(Naming("old", ""), trained_subjects=text_keys([b"1"]), rows=row_keys([b"0"], [b"1"]))
    same, other = (make_table(subjects, [ALL] * 2) for subjects in (["1", "2"], ["3", "1"]))
    assert meets(SeenSamples((known,)), same, codes_of(TEST, TEST), LAB).subjects == 1
    assert meets(SeenSamples((known,)), other, codes_of(TEST, TEST), LAB) == SeenBefore(namesakes=1)


def test_what_was_seen_is_carried_on(earlier: SampleTable, seen: SeenSamples, make_table) -> None:
    """Weights trained on one source and then on another have seen both, in whatever order and however often."""
    second = samples_of_split(make_table(["1", "5"], [ALL] * 2, pixels=[80, 81]), codes_of(TRAIN, VALID), OTHER_LAB)
    both = joined(joined(seen, second), seen)
    assert both.sources == (seen.sources[0], second.sources[0])
    found = meets(both, earlier, codes_of(TEST, TEST, VALID, TRAIN), LAB)
    assert found == SeenBefore(subjects=1, images=2, num_samples=2)
    more = joined(seen, samples_of_split(earlier, codes_of(TEST, TEST, TEST, TRAIN), LAB))
    assert meets(more, earlier, codes_of(TRAIN, TRAIN, VALID, TEST), LAB).subjects == 1


def test_an_unrelated_source_in_between_makes_no_namesakes_seen(make_table, seen: SeenSamples) -> None:
    """Pre-training on other subjects 1 and 2 must not count for a later run on the lab's 1 and 2."""
    unrelated = samples_of_split(make_table(["3"], [ALL], pixels=[90]), codes_of(TRAIN), OTHER_LAB)
    table = make_table(["1", "1", "2", "3"], [ALL] * 4, pixels=[1, 2, 3, 4])
    found = meets(joined(unrelated, seen), table, codes_of(TRAIN, TRAIN, VALID, TEST), LAB)
    assert found == SeenBefore(namesakes=1)


def test_unknown_origin_is_no_leak_and_stays_unknown(earlier: SampleTable, seen: SeenSamples) -> None:
    codes = codes_of(TRAIN, TRAIN, VALID, TEST)
    for weights in (UNKNOWN_ORIGIN, joined(UNKNOWN_ORIGIN, seen), joined(seen, UNKNOWN_ORIGIN)):
        found = meets(weights, earlier, codes, LAB)
        assert found == SeenBefore(is_known=False)
        leaks = check_leaks(codes, earlier, None, found)
        assert leaks.is_disjoint
        assert leaks.unknown_start == 1
    assert meets(NOTHING_SEEN, earlier, codes, LAB) == NOTHING_SEEN_BEFORE


def test_worst_of_folds_keeps_the_start(earlier: SampleTable) -> None:
    codes = codes_of(TRAIN, TRAIN, VALID, TEST)
    clean, mixed, unknown = (
        check_leaks(codes, earlier, None, found)
        for found in (NOTHING_SEEN_BEFORE, SeenBefore(3, 4, 5), SeenBefore(is_known=False))
    )
    worst = type(clean).worst([clean, mixed, unknown])
    assert (worst.start_subjects, worst.start_images, worst.unknown_start) == (3, 4, 1)
    assert "3 held-out subjects seen by the start weights" in worst.stamp


def test_what_was_met_comes_back_from_json() -> None:
    found = SeenBefore(1, 2, 3, is_known=False, namesakes=4)
    assert SeenBefore.from_dict(asdict(found)) == found


@pytest.mark.parametrize("wrong", [{"subjects": "1"}, {"is_known": 1}, {"images": -1}, {"people": 1}])
def test_damaged_values_are_refused(wrong: dict) -> None:
    with pytest.raises((TypeError, ValueError)):
        SeenBefore.from_dict(wrong)


def test_near_identical_images_are_seen_under_whatever_name(make_table) -> None:
    """A quarter turn of an image that the weights were trained on, in another source and of another subject."""
    rng = np.random.default_rng(3)
    look, other = (rng.integers(-60, 60, 64).astype(np.float64) for _ in range(2))
    signs = np.where(np.arange(1, 9) % 2 == 1, -1, 1)
    turned = (look.reshape(8, 8).T * signs).reshape(64)
    seen = samples_of_split(make_table(["1"], [ALL], pixels=[1], looks=[look.astype(np.int8)]), codes_of(TRAIN), LAB)
    table = make_table(
        ["a", "a", "b"], [ALL] * 3, pixels=[50, 51, 52], looks=[turned.astype(np.int8), np.zeros(64), other]
    )
    found = meets(seen, table, codes_of(TEST, TEST, TEST), OTHER_LAB)
    assert found == SeenBefore(subjects=1, images=1, num_samples=2)
    assert joined(seen, seen) == seen
