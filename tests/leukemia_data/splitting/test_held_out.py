"""Splits by the source's folds and by named subjects, and the splits of a cross-validation."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.held_out import fold_specs
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import UNUSED, parse_split
from leukemia_data.splitting.splits import assign_split

HEM, ALL = 0, 1
TRAIN, VALID, TEST = 0, 1, 2


def with_folds(table: SampleTable, folds: list[int]) -> SampleTable:
    return replace(table, folds=np.array(folds, np.int16))


def codes_of(text: str, table: SampleTable, seed: int = 0) -> list[int]:
    return assign_split(parse_split(text), table, seed, ("hem", "all")).tolist()


@pytest.fixture
def official(make_table) -> SampleTable:
    """Three folds of a patient and a healthy subject each, an unlabelled image and one in no fold."""
    subjects = ["1", "2", "3", "H1", "H2", "H3", "3", "4"]
    table = make_table(subjects, [ALL] * 3 + [HEM] * 3 + [-1, ALL], splits=[""] * 7 + ["test"])
    return with_folds(table, [0, 1, 2, 0, 1, 2, 2, -1])


# --- official folds -------------------------------------------------------------------------------------------------


def test_one_fold_is_held_out_and_the_others_train(official):
    expected = [TRAIN, TEST, TRAIN, TRAIN, TEST, TRAIN, UNUSED, UNUSED]
    assert codes_of("official:1", official) == expected
    assert codes_of("official:1", official, seed=8) == expected


def test_official_folds_hold_out_every_image_of_a_fold_once(official):
    specs = fold_specs("official", official)
    assert [str(spec) for spec in specs] == ["official:0", "official:1", "official:2"]
    times = sum((assign_split(spec, official, 0) == TEST).astype(int) for spec in specs)
    assert times.tolist() == [1] * 6 + [0, 0]


def test_identical_images_across_official_folds_are_stamped(make_table):
    # As in the published set: subjects differ, the picture is the same.
    table = with_folds(make_table(["1", "2", "3"], [ALL] * 3, pixels=[5, 5, 6]), [0, 1, 1])
    codes = assign_split(parse_split("official:0"), table, 0)
    assert check_leaks(codes, table).stamp == "PATIENT-MIXED (1 identical image on both sides)"


@pytest.mark.parametrize(
    ("folds", "text", "message"),
    [
        ([0, 1, 2], "official:3", "no fold 3; it has folds 0, 1, 2"),
        ([-1, -1, -1], "official:0", "has no folds"),
        ([1, 1, -1], "official:1", "has fold 1 only"),
    ],
)
def test_folds_that_are_not_there(make_table, folds, text, message):
    with pytest.raises(UsageError, match=message):
        codes_of(text, with_folds(make_table(["1", "2", "3"], [ALL] * 3), folds))


# --- leave out ------------------------------------------------------------------------------------------------------


def test_named_subjects_are_held_out(make_table):
    table = make_table(["1", "H1", "2", "1", "H2", "1"], [ALL, HEM, ALL, ALL, HEM, -1])
    assert codes_of("leave-out:1,H2", table) == [TEST, TRAIN, TRAIN, TEST, TEST, UNUSED]


def test_subjects_who_share_images_leave_together(make_table):
    # 20 = 21 by a picture, 21 = 22 by another; 23 stands alone.
    table = make_table(["20", "21", "21", "22", "23"], [ALL] * 5, pixels=[1, 1, 2, 2, 3])
    assert codes_of("leave-out:22", table) == [TEST, TEST, TEST, TEST, TRAIN]


def test_unknown_subjects_are_named_with_those_that_may_be_meant(make_table):
    table = make_table(["H3", "12", "patient-7"], [HEM, ALL, ALL])
    with pytest.raises(UsageError) as caught:
        codes_of("leave-out:h3,patient7,zzz,12", table)
    message = str(caught.value)
    assert "'h3' (did you mean H3?)" in message
    assert "'patient7' (did you mean patient-7?)" in message
    assert "'zzz';" in message
    assert "12, H3, patient-7" in message
    assert "'12'" not in message


def test_a_subject_without_a_labelled_image_cannot_be_evaluated(make_table):
    with pytest.raises(UsageError, match="no labelled image is of subject '2'"):
        codes_of("leave-out:2", make_table(["1", "2"], [ALL, -1]))


def test_one_subject_must_stay(make_table):
    table = make_table(["1", "2", "3"], [ALL] * 3, pixels=[4, 4, 5])
    with pytest.raises(UsageError, match="none is left to train on"):
        codes_of("leave-out:1,3", table)


def test_leaving_out_needs_subjects(make_table):
    with pytest.raises(UsageError, match="1 of 3 images do not say"):
        codes_of("leave-out:1", make_table(["1", "2", ""], [ALL] * 3))


# --- lists of folds -------------------------------------------------------------------------------------------------


def test_a_number_of_folds(make_table):
    table = make_table(["1", "2", "H1", "H2"], [ALL, ALL, HEM, HEM])
    assert [str(spec) for spec in fold_specs("3", table)] == ["test-fold:1/3", "test-fold:2/3", "test-fold:3/3"]
    assert [str(spec) for spec in fold_specs("2", table, valid_share=0.15)] == [
        "test-fold:1/2+valid",
        "test-fold:2/2+valid",
    ]


def test_one_subject_at_a_time_in_a_stable_order(make_table):
    subjects = ["10", "H2", "9", "9", "H1", "20", "21", "H10", ""]
    table = make_table(subjects, [ALL, HEM, ALL, ALL, HEM, ALL, ALL, HEM, -1], pixels=[0, 1, 2, 3, 4, 5, 5, 7, 8])
    expected = ["H1", "H2", "H10", "9", "10", "20,21"]
    assert [str(spec) for spec in fold_specs("loso", table)] == [f"leave-out:{names}" for names in expected]
    order = np.random.default_rng(1).permutation(len(table))
    assert fold_specs("loso", table.take(order)) == fold_specs("loso", table)


def test_leaving_each_subject_out_holds_out_every_labelled_image_once(make_table):
    subjects = ["a,b", "x+valid", "5%2C", "H1", "H1", "H2"]
    table = make_table(subjects, [ALL, ALL, ALL, HEM, HEM, HEM])
    specs = [parse_split(str(spec)) for spec in fold_specs("loso", table)]
    times = sum((assign_split(spec, table, 0) == TEST).astype(int) for spec in specs)
    assert times.tolist() == [1] * 6


@pytest.mark.parametrize("text", ["", "1", "0", "-2", "five", "LOSO", "5.0", "²"])
def test_other_folds_are_refused(make_table, text):
    with pytest.raises(UsageError, match="unknown folds"):
        fold_specs(text, make_table(["1", "2"], [ALL, HEM]))


def test_the_only_subject_of_a_class_cannot_be_left_out(make_table):
    with pytest.raises(UsageError, match="class 'hem' has one independent subject"):
        fold_specs("loso", make_table(["1", "2", "H1"], [ALL, ALL, HEM]), class_names=("hem", "all"))


@pytest.mark.parametrize(
    ("subjects", "labels", "text", "message"),
    [
        (["1", "2", ""], [ALL] * 3, "loso", "1 of 3 images do not say"),
        (["1", "2"], [-1, -1], "loso", "has a label"),
        (["1", "2"], [ALL, HEM], "official", "folds official: the source has no folds"),
    ],
)
def test_sources_that_do_not_allow_such_folds(make_table, subjects, labels, text, message):
    with pytest.raises(UsageError, match=message):
        fold_specs(text, make_table(subjects, labels))


# --- the published list ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(real_data) -> SampleTable:
    """The 10,661 training images by name and SHA-256; no pixel is read."""
    path = real_data / "cnmc_names.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the list of published names, folds and SHA-256")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    records = [
        Record(
            row["path"],
            Path(row["path"]),
            int(row["label"]),
            row["subject"],
            fold=int(row["fold"].removeprefix("fold_")),
        )
        for row in rows
    ]
    digests = np.array([list(bytes.fromhex(row["sha256"])[:16]) for row in rows], np.uint8)
    return replace(SampleTable.from_records(records), pixel_digests=digests)


@pytest.mark.real
def test_published_folds_share_94_identical_pairs(published):
    leaks = [check_leaks(assign_split(spec, published, 0), published) for spec in fold_specs("official", published)]
    assert [leak.shared_images for leak in leaks] == [72, 22, 94]
    assert sum(leak.shared_images for leak in leaks) == 2 * 94
    assert not any(leak.shared_subjects for leak in leaks)


@pytest.mark.real
def test_published_subjects_who_share_images_leave_together(published):
    specs = fold_specs("loso", published)
    assert len(specs) == 66
    tied = [spec.subjects for spec in specs if len(spec.subjects) > 1]
    assert tied == [("H2", "H4", "H5", "H6"), ("H3", "H10"), ("20", "21"), ("51", "75", "78")]
    codes = assign_split(parse_split("leave-out:20"), published, 0)
    assert set(np.array(published.subject_texts)[codes == TEST]) == {"20", "21"}
