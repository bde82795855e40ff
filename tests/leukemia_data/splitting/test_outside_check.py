"""Outside sets compared with a network's training images."""

from __future__ import annotations

import pytest

from leukemia_data.splitting.leaks import OutsideCheck, OwnedImage, check_outside, is_disjoint_stamp

NAMES = ["C-NMC file names"]
LEARNT = [OwnedImage("a", "1", 1), OwnedImage("b", "H2", 0), OwnedImage("c", "P03", 1)]


def check(*judged: tuple[str, str, int], learnt: list[OwnedImage] = LEARNT, **more: object) -> OutsideCheck:
    options = {"outside_subjects_from": NAMES, "trained_subjects_from": NAMES, **more}
    return check_outside([OwnedImage(*image) for image in judged], learnt, **options)  # type: ignore[arg-type]


def test_other_people_of_the_same_naming_are_disjoint() -> None:
    found = check(("x", "7", 1), ("y", "H1", 0))
    assert found.is_disjoint
    assert found.stamp == "subject-disjoint (subjects from C-NMC file names)"


@pytest.mark.parametrize(("judged", "learnt"), [(["column who"], NAMES), (NAMES, []), (["folders"], ["folders"])])
def test_names_of_two_sources_are_never_disjoint(judged: list[str], learnt: list[str]) -> None:
    found = check(("x", "7", 1), ("y", "H1", 0), outside_subjects_from=judged, trained_subjects_from=learnt)
    assert not found.is_disjoint
    assert found.stamp.startswith("another source")
    assert not is_disjoint_stamp(found.stamp)


@pytest.mark.parametrize(
    ("judged", "count", "words"),
    [
        ([("a", "7", 1), ("a", "8", 1), ("y", "H1", 0)], "shared_images", "1 identical image on both sides"),
        ([("x", "1", 1), ("y", "H2", 0)], "shared_subjects", "2 subjects on both sides"),
        ([("x", "", 1), ("y", "H1", 0)], "unknown_subjects", "1 image of an unknown subject"),
        ([("x", "7", 1), ("y", "7", 0)], "doubtful_subjects", "1 subject with images of several classes"),
        ([("x", "7", 1), ("x", "8", 0)], "contradictory_images", "1 image with several labels"),
        ([("x", "p3", 1), ("y", "H1", 0)], "alike_subjects", "1 subject written in several ways"),
    ],
)
@pytest.mark.parametrize("outside_from", [NAMES, ["folders"]])
def test_what_is_shared_is_counted_and_stamped(
    judged: list[tuple[str, str, int]], count: str, words: str, outside_from: list[str]
) -> None:
    found = check(*judged, outside_subjects_from=outside_from)
    assert getattr(found, count) >= 1
    assert found.stamp.startswith("PATIENT-MIXED")
    assert words in found.stamp
    assert not found.is_disjoint


def test_a_label_that_the_run_s_own_image_denies() -> None:
    assert check(("a", "7", 0)).contradictory_images == 1
    assert check(("a", "7", -1)).contradictory_images == 0


@pytest.mark.parametrize("learnt", [[], [*LEARNT, OwnedImage("", "9", 1)]])
def test_where_pixels_of_the_run_are_unknown_nothing_is_claimed(learnt: list[OwnedImage]) -> None:
    found = check(("x", "7", 1), ("y", "H1", 0), learnt=learnt)
    assert not found.is_disjoint
    assert found.stamp.startswith("not compared")


def test_images_of_unknown_pixels_have_no_identical_ones() -> None:
    assert check(("", "7", 1), learnt=[OwnedImage("", "1", 1)]).shared_images == 0


def test_a_confirmed_subject_may_have_several_classes() -> None:
    assert check(("x", "7", 1), ("y", "7", 0), is_confirmed=True).is_disjoint
