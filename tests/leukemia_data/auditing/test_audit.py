from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from leukemia_data.auditing import audit_pairs
from leukemia_data.auditing.audit import audit_images
from leukemia_data.auditing.audit_image import AuditImage, measure_frame, photo_of
from leukemia_data.auditing.audit_input import training_split
from leukemia_data.auditing.audit_pairs import AuditPair, brought_sides, group_pairs, identical_groups
from leukemia_data.auditing.audit_report import AuditArgument, blind_spots
from leukemia_data.errors import UsageError
from leukemia_data.splitting.split_spec import parse_split

LOOKS = np.random.default_rng(0).integers(-40, 41, (4, 64), np.int8)


def image(name: str, pixels: str = "", **fields: object) -> AuditImage:
    return AuditImage(name=name, pixel_digest=pixels.encode().ljust(16, b".") if pixels else b"", **fields)


def found(report, key: str) -> tuple[str, int | None]:
    (check,) = [check for check in report.checks if check.key == key]
    return check.verdict, check.count


def audit(images, near=None):
    return audit_images(images, brought_sides(images, ["a", "b"]), near=near)


def test_photo_of_a_c_nmc_name():
    assert photo_of("fold_0/hem/UID_h3_12_4_hem.bmp") == "H3/12"
    assert photo_of("cells/7.png") == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_group_of_k_has_k_choose_2_pairs(size):
    images = [image(str(n), "same") for n in range(size)] + [image("x", "other"), image("y")]
    pairs = group_pairs(identical_groups(images))
    assert [(pair.first, pair.second) for pair in pairs] == list(combinations(range(size), 2))


def test_images_are_identical_by_pixels_or_by_bytes_and_through_others():
    images = [image("0", "p"), image("1", "p", sha256=b"s" * 32), image("2", sha256=b"s" * 32), image("3")]
    assert identical_groups(images) == [(0, 1, 2)]


def test_huge_groups_are_paired_with_their_first_image_only(monkeypatch):
    monkeypatch.setattr(audit_pairs, "LARGEST_GROUP", 5)
    assert len(group_pairs([tuple(range(5))])) == 10
    pairs = group_pairs([tuple(range(6))])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, n) for n in range(1, 6)]


def test_identical_images_are_reported_by_the_sides_they_connect():
    images = [
        image("0", "p", subject="20", split="train", fold=0, class_name="all"),
        image("1", "p", subject="21", split="train", fold=1, class_name="all"),
        image("2", "p", subject="", split="valid", fold=1, class_name="hem"),
        image("3", "q", subject="20", split="train", fold=0, class_name="all"),
    ]
    report = audit(images)
    assert found(report, "identical") == ("LOOK", 3)
    assert found(report, "identical_subjects") == ("LOOK", 1)
    assert found(report, "identical_split") == ("LEAK", 2)
    assert found(report, "identical_fold") == ("LEAK", 2)
    assert found(report, "identical_labels") == ("WRONG", 2)
    assert found(report, "no_subject") == ("LOOK", 1)
    assert report.has_leak
    (text,) = [check.text for check in report.checks if check.key == "identical_subjects"]
    assert "20 = 21 (1)" in text


def test_subjects_on_two_sides_and_in_two_classes():
    images = [
        image("0", "a", subject="H2", split="train", class_name="hem"),
        image("1", "b", subject="H2", split="test", class_name="all"),
        image("2", "c", subject="H10", split="train", class_name="hem"),
        image("3", "d", split="test"),
    ]
    report = audit(images)
    assert found(report, "subjects_split") == ("LEAK", 1)
    assert report.shared["split"] == {"H2": {"test": 1, "train": 1}}
    assert found(report, "two_classes") == ("WRONG", 1)
    assert report.two_classes == {"H2": ("all", "hem")}


def test_pairs_that_look_alike_leave_closer_ones_out_and_are_no_leak():
    images = [
        image("0", "a", subject="1", photo="1/4"),
        image("1", "a", subject="1", photo="1/5"),
        image("2", "b", subject="1", photo="1/4", argument=1),
        image("3", "c", subject="1", look=LOOKS[0].tobytes()),
        image("4", "d", subject="1", look=LOOKS[0].tobytes()),
    ]
    near = [AuditPair(0, 1, 0, 1.0), AuditPair(0, 2, 3, 0.97), AuditPair(3, 4, 0, 1.0)]
    report = audit(images, near)
    assert [(pair.first, pair.second) for pair in report.near] == [(0, 2)]
    assert found(report, "near_photo") == ("info", 1)
    assert found(report, "near_argument") == ("LOOK", 1)
    assert found(report, "near_subjects") == ("ok", 0)


def test_near_identical_images_are_reported_in_groups():
    turned = LOOKS[0].reshape(8, 8).T.reshape(64)
    images = [
        image("0", "a", look=LOOKS[0].tobytes(), subject="1", class_name="all", split="train"),
        image("1", "b", look=turned.tobytes(), subject="2", class_name="hem", split="test"),
        # Identical to one of the group, with an unknown look.
        image("2", "b", subject="2", class_name="hem", split="test"),
        image("3", "c", look=LOOKS[1].tobytes(), subject="3", class_name="all", split="train"),
        image("4", "d", look=LOOKS[1].tobytes(), subject="3", class_name="all", split="train"),
        image("5", "e", look=LOOKS[2].tobytes(), subject="4", class_name="all", split="test"),
        # Identical images alone form no near-identical group.
        image("6", "f", look=LOOKS[3].tobytes(), subject="5", class_name="all", split="test"),
        image("7", "f", look=LOOKS[3].tobytes(), subject="5", class_name="all", split="test"),
    ]
    report = audit(images)
    assert [group.images for group in report.near_groups] == [(0, 1, 2), (3, 4)]
    assert report.near_groups[0].correlations[0] == pytest.approx(1, abs=1e-6)
    assert found(report, "near_identical") == ("LOOK", 2)
    assert found(report, "near_identical_subjects") == ("LOOK", 1)
    assert found(report, "near_identical_labels") == ("WRONG", 1)
    assert found(report, "near_identical_split") == ("LEAK", 1)
    (text,) = [check.text for check in report.checks if check.key == "near_identical"]
    assert "of together 5 images" in text


def test_missing_checks_are_noted():
    report = audit([image("0"), image("1")])
    assert found(report, "identical") == ("unchecked", None)
    assert found(report, "near") == ("unchecked", None)
    assert found(report, "near_identical") == ("unchecked", None)
    assert found(report, "frames") == ("unchecked", None)
    assert not report.has_leak


def test_one_side_is_no_division():
    assert brought_sides([image("0", split="train"), image("1", split="train"), image("2")], ["a"]) == []


def test_the_usual_size_is_that_of_the_argument():
    small, large = (measure_frame(np.zeros((side, side, 3), np.uint8)) for side in (10, 20))
    images = [image(str(n), frame=small) for n in range(3)] + [image("3", frame=large)]
    images += [image(f"b{n}", frame=large, argument=1) for n in range(2)]
    report = audit([*images, image("c", problem="the file is empty")])
    assert found(report, "frames_other_size") == ("LOOK", 1)
    assert found(report, "frames_black") == ("LOOK", 6)
    assert found(report, "frames_unusable") == ("LOOK", 1)
    assert [fault.image for fault in report.faults if fault.kind == "other_size"] == [3]


def test_balance():
    subjects = ["1"] * 5 + ["2"] * 2 + [""]
    images = [image(str(n), class_name="all", subject=subject) for n, subject in enumerate(subjects)]
    images += [image("h", class_name="hem", subject="H1"), image("u")]
    report = audit(images)
    all_class, hem, unlabelled = report.balance
    assert (all_class.name, all_class.num_images, all_class.num_unknown) == ("all", 8, 1)
    assert all_class.images_per_subject == {"1": 5, "2": 2}
    assert all_class.largest_share == pytest.approx(5 / 8)
    assert (hem.num_images, unlabelled.name, unlabelled.num_images) == (1, "", 1)
    (text,) = [check.text for check in report.checks if check.key == "classes"]
    assert "0.889" in text


# --- the split of a training ------------------------------------------------------------------------------------


def cells(num_subjects: int = 12) -> list[AuditImage]:
    return [
        image(f"{s}-{n}", f"{s}-{n}", subject=f"{s}", class_name=("hem", "all")[s % 2], fold=s % 3)
        for s in range(num_subjects)
        for n in range(4)
    ]


def test_subject_split_is_disjoint_and_an_image_split_is_not():
    images = [*cells(), image("broken", problem="truncated")]
    split = training_split(parse_split("subject"), images, 0, ("hem", "all"))
    sides, stamp = split.sides, split.stamp
    assert (stamp.verdict, stamp.count) == ("ok", 0)
    assert sides.names == ["test", "train", "valid"]
    assert sides.of_image[-1] == ""
    report = audit_images(images, [sides])
    assert found(report, "subjects_training") == ("ok", 0)

    split = training_split(parse_split("image"), images, 0, ("hem", "all"))
    sides, stamp = split.sides, split.stamp
    assert stamp.verdict == "LEAK"
    assert "PATIENT-MIXED" in stamp.text
    assert found(audit_images(images, [sides]), "subjects_training")[0] == "LEAK"


def test_a_split_that_needs_subjects_refuses_images_without():
    with pytest.raises(UsageError, match="whose cell"):
        training_split(parse_split("subject"), [*cells(), image("x", "x", class_name="hem")], 0, ("hem", "all"))


# --- what could not be seen -------------------------------------------------------------------------------------


def test_notes_on_caches_tables_and_parts_of_other_sizes():
    arguments = [AuditArgument("c", "cache", ""), AuditArgument("n.csv", "table", "")]
    images = [
        image("0", "p"),
        image("1", sha256=b"1" * 32, split="train", size_bytes=10, argument=1),
        image("2", sha256=b"2" * 32, split="test", size_bytes=12, argument=1),
    ]
    notes = "\n".join(blind_spots(arguments, images))
    for words in ("c is a cache", "no pixels", "files of test and train differ in size", "cannot be compared"):
        assert words in notes


def test_one_set_given_twice_is_noticed():
    arguments = [AuditArgument("tree", "source", ""), AuditArgument("again", "source", "")]
    images = [image(f"{n}", f"{n % 10}", argument=n // 10) for n in range(20)]
    assert any("nearly the same set" in note for note in blind_spots(arguments, images))
    assert blind_spots(arguments, [*images[:10], *(image(f"x{n}", f"x{n}", argument=1) for n in range(10))]) == []


@pytest.mark.parametrize(("is_confirmed", "verdict"), [(False, "WRONG"), (True, "info")])
def test_subjects_written_in_two_ways_are_wrong_until_confirmed(is_confirmed, verdict):
    images = [AuditImage(name=name, class_name="all", subject=name) for name in ("P1", "p_01", "1", "H1")]
    report = audit_images(images, [], are_confirmed=is_confirmed)
    (found,) = [check for check in report.checks if check.key == "alike_subjects"]
    assert (found.verdict, found.count) == (verdict, 1)
    assert "P1 = p_01" in found.text
    (clean,) = [check for check in audit_images(images[1:], []).checks if check.key == "alike_subjects"]
    assert (clean.verdict, clean.count) == ("ok", 0)
