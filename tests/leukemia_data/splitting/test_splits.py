from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitSpec, parse_split
from leukemia_data.splitting.splits import assign_split, split_indices

HEM, ALL = 0, 1
TRAIN, VALID, TEST = 0, 1, 2
SUBJECT, IMAGE, GIVEN = parse_split("subject"), parse_split("image"), parse_split("given")


@pytest.fixture(scope="module")
def cohort(make_table) -> SampleTable:
    """47 patients and 26 healthy subjects with 2 to 40 images each, in mixed order."""
    rng = np.random.default_rng(5)
    people = [(str(k), ALL) for k in range(1, 48)] + [(f"H{k}", HEM) for k in range(1, 27)]
    rows = [person for person in people for _ in range(int(rng.integers(2, 41)))]
    order = rng.permutation(len(rows))
    return make_table([rows[k][0] for k in order], [rows[k][1] for k in order])


def parts_of(codes: np.ndarray, table: SampleTable) -> dict[str, set[int]]:
    parts: dict[str, set[int]] = {}
    for subject, code in zip(table.subject_texts, codes.tolist(), strict=True):
        parts.setdefault(subject, set()).add(code)
    return parts


def shares(codes: np.ndarray, chosen: np.ndarray) -> list[float]:
    return (np.bincount(codes[chosen], minlength=3) / chosen.sum()).tolist()


# --- subject ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_subjects_are_in_one_part_and_parts_have_both_classes(cohort, seed):
    codes = assign_split(SUBJECT, cohort, seed)
    assert all(len(parts) == 1 for parts in parts_of(codes, cohort).values())
    assert check_leaks(codes, cohort).is_disjoint
    for code in (TRAIN, VALID, TEST):
        assert set(cohort.labels[codes == code].tolist()) == {HEM, ALL}
    for label in (HEM, ALL):
        # 26 subjects of unequal size cannot meet the fractions exactly; the best of many draws comes close.
        assert shares(codes, cohort.labels == label) == pytest.approx([0.75, 0.15, 0.10], abs=0.02)


def test_many_small_subjects_meet_the_fractions(make_table):
    subjects = [f"H{k}" for k in range(200)] + [f"{k}" for k in range(400)]
    table = make_table([s for s in subjects for _ in range(5)], [HEM] * 1000 + [ALL] * 2000)
    codes = assign_split(SUBJECT, table, 0)
    for label in (HEM, ALL):
        assert shares(codes, table.labels == label) == pytest.approx([0.75, 0.15, 0.10], abs=0.006)


@pytest.mark.parametrize("seed", range(10))
def test_three_subjects_a_class_fill_every_part(make_table, seed):
    subjects = ["1"] * 50 + ["2"] * 3 + ["3"] + ["H1"] * 5 + ["H2"] * 5 + ["H3"] * 5
    table = make_table(subjects, [ALL] * 54 + [HEM] * 15)
    codes = assign_split(SUBJECT, table, seed)
    for label in (HEM, ALL):
        assert set(codes[table.labels == label].tolist()) == {TRAIN, VALID, TEST}


def test_patient_1_and_healthy_1_are_split_apart(make_table):
    subjects = [f"{k}" for k in range(1, 9)] + [f"H{k}" for k in range(1, 9)]
    table = make_table(subjects, [ALL] * 8 + [HEM] * 8)
    together = [
        assign_split(SUBJECT, table, seed)[:8].tolist() == assign_split(SUBJECT, table, seed)[8:].tolist()
        for seed in range(10)
    ]
    assert not all(together)


def test_the_seed_decides_and_nothing_else(cohort):
    np.testing.assert_array_equal(assign_split(SUBJECT, cohort, 4), assign_split(SUBJECT, cohort, 4))
    assert not np.array_equal(assign_split(SUBJECT, cohort, 4), assign_split(SUBJECT, cohort, 5))


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_every_64_bit_seed_is_taken(cohort, seed):
    assert check_leaks(assign_split(SUBJECT, cohort, seed), cohort).is_disjoint


@pytest.mark.parametrize("text", ["subject", "fold:2/5", "image", "test-fold:2/5+valid", "leave-out:3,H4+valid"])
def test_file_names_and_their_order_do_not_matter(cohort, text):
    rng = np.random.default_rng(8)
    digests = rng.integers(0, 256, cohort.pixel_digests.shape, dtype=np.uint8)
    table = replace(cohort, pixel_digests=digests)
    order = rng.permutation(len(table))
    spec = parse_split(text)
    np.testing.assert_array_equal(assign_split(spec, table.take(order), 3), assign_split(spec, table, 3)[order])


def test_too_few_subjects_of_a_class(make_table):
    table = make_table(["1", "2", "3", "H1", "H2"], [ALL] * 3 + [HEM] * 2)
    with pytest.raises(UsageError, match=r"split subject: class 0 has 2 .*3 parts"):
        assign_split(SUBJECT, table, 0)


@pytest.mark.parametrize("text", ["subject", "fold:1/2"])
def test_unknown_subjects_cannot_be_kept_apart(make_table, text):
    table = make_table(["1", "2", "3", "", ""], [ALL] * 5)
    with pytest.raises(UsageError, match="2 of 5 images"):
        assign_split(parse_split(text), table, 0)


def test_unlabelled_images_are_unused_and_need_no_subject(make_table):
    table = make_table(["1", "2", "3", "", "1"], [ALL, ALL, ALL, -1, -1])
    codes = assign_split(SUBJECT, table, 0)
    assert sorted(codes[:3].tolist()) == [TRAIN, VALID, TEST]
    assert codes[3:].tolist() == [UNUSED, UNUSED]
    assert check_leaks(codes, table).is_disjoint


@pytest.mark.parametrize("text", ["subject", "image", "fold:1/2"])
def test_no_labels_at_all(make_table, text):
    with pytest.raises(UsageError, match="label"):
        assign_split(parse_split(text), make_table(["1", "2"], [-1, -1]), 0)


# --- identical pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["subject", "fold:2/4"])
def test_a_chain_of_three_subjects_stays_together(make_table, text):
    # Every subject has two images; 20, 21 and 22 are linked by pixels, and so are H1 and the patient 30.
    subjects = [str(k) for k in range(20, 40) for _ in range(2)] + [f"H{k}" for k in range(1, 13) for _ in range(2)]
    pixels = list(range(len(subjects)))
    row = {subject: subjects.index(subject) for subject in subjects}
    pixels[row["21"]] = pixels[row["20"] + 1]
    pixels[row["22"]] = pixels[row["21"] + 1]
    pixels[row["H1"]] = pixels[row["30"]]
    table = make_table(subjects, [ALL] * 40 + [HEM] * 24, pixels=pixels)
    for seed in range(10):
        codes = assign_split(parse_split(text), table, seed)
        parts = parts_of(codes, table)
        assert parts["20"] == parts["21"] == parts["22"]
        assert parts["H1"] == parts["30"]
        leaks = check_leaks(codes, table)
        assert (leaks.shared_subjects, leaks.shared_images, leaks.contradictory_images) == (0, 0, 1)


def test_linked_subjects_count_as_one(make_table):
    # Three patients, two of them one person by their pixels: two independent subjects are too few for three parts.
    table = make_table(["1", "2", "3"], [ALL] * 3, pixels=[5, 5, 6])
    with pytest.raises(UsageError, match="2 independent subjects"):
        assign_split(SUBJECT, table, 0)


# --- the same for ever -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "subject",
            "011000000000000000000000000022222222000000000111111111100000000000000000000000000000000000000000000111112222000000",
        ),
        (
            "image",
            "101020100000000010210000010000000100000000022002000110000201010000020000000201200121020100000000000000001000001020",
        ),
        (
            "fold:2/5",
            "000000000000000000000111111100000000111111111000000000000000000000000000000000000000000000000000000000001111111000",
        ),
    ],
)
def test_splits_of_the_first_version_stay_as_they_were(make_table, text, expected):
    subjects = [str(k) for k in range(1, 13) for _ in range(k)] + [f"H{k}" for k in range(1, 9) for _ in range(9 - k)]
    pixels = [k * 2654435761 % 2**32 for k in range(114)]
    codes = assign_split(parse_split(text), make_table(subjects, [ALL] * 78 + [HEM] * 36, pixels=pixels), 3)
    assert "".join(map(str, codes.tolist())) == expected


# --- folds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
def test_each_sample_validates_exactly_once(cohort, num_folds):
    times = np.zeros(len(cohort), int)
    for fold in range(1, num_folds + 1):
        codes = assign_split(SplitSpec("fold", fold, num_folds), cohort, 3)
        assert set(codes.tolist()) == {TRAIN, VALID}
        assert set(cohort.labels[codes == VALID].tolist()) == {HEM, ALL}
        assert check_leaks(codes, cohort).is_disjoint
        times += codes == VALID
    assert (times == 1).all()


def test_folds_are_of_like_size(cohort):
    for fold in range(1, 6):
        codes = assign_split(SplitSpec("fold", fold, 5), cohort, 0)
        for label in (HEM, ALL):
            assert (codes[cohort.labels == label] == VALID).mean() == pytest.approx(0.2, abs=0.03)


def test_as_many_folds_as_subjects_and_one_more(make_table):
    table = make_table(["1", "2", "3", "H1", "H2", "H3"], [ALL] * 3 + [HEM] * 3)
    codes = assign_split(parse_split("fold:1/3"), table, 0)
    assert (codes == VALID).sum() == 2
    with pytest.raises(UsageError, match="4 parts"):
        assign_split(parse_split("fold:1/4"), table, 0)


# --- held out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(1, 6))
def test_a_test_fold_is_the_same_part_held_out(cohort, fold):
    validating = assign_split(SplitSpec("fold", fold, 5), cohort, 9)
    held_out = assign_split(SplitSpec("test-fold", fold, 5), cohort, 9)
    np.testing.assert_array_equal(held_out == TEST, validating == VALID)
    np.testing.assert_array_equal(held_out == TRAIN, validating == TRAIN)


@pytest.mark.parametrize("text", ["test-fold:2/5", "leave-out:3,H4,H5"])
@pytest.mark.parametrize("seed", range(5))
def test_validation_beside_what_is_held_out(cohort, text, seed):
    without, codes = (assign_split(parse_split(text + ending), cohort, seed) for ending in ("", "+valid"))
    np.testing.assert_array_equal(codes == TEST, without == TEST)
    assert set(codes.tolist()) == {TRAIN, VALID, TEST}
    assert check_leaks(codes, cohort).is_disjoint
    for label in (HEM, ALL):
        rest = (cohort.labels == label) & (codes != TEST)
        assert (codes[rest] == VALID).mean() == pytest.approx(0.15, abs=0.02)


def test_the_seed_decides_about_validation_too(cohort):
    spec = parse_split("leave-out:3+valid")
    np.testing.assert_array_equal(assign_split(spec, cohort, 1), assign_split(spec, cohort, 1))
    assert not np.array_equal(assign_split(spec, cohort, 1), assign_split(spec, cohort, 2))


def test_linked_subjects_validate_together(make_table):
    # Four healthy subjects, of whom 2 and 3 share an image; the rest of the table is patients.
    subjects = ["H1", "H2", "H2", "H3", "H3", "H4"] + [str(k) for k in range(1, 7)]
    pixels = [0, 1, 2, 2, 4, 5, *range(10, 16)]
    table = make_table(subjects, [HEM] * 6 + [ALL] * 6, pixels=pixels)
    for seed in range(8):
        codes = assign_split(parse_split("leave-out:H1,1+valid"), table, seed)
        assert parts_of(codes, table)["H2"] == parts_of(codes, table)["H3"]
        assert check_leaks(codes, table).is_disjoint


def test_too_few_subjects_to_validate(make_table):
    table = make_table(["1", "2", "3", "H1", "H2"], [ALL] * 3 + [HEM] * 2)
    with pytest.raises(UsageError, match=r"leave-out:H1\+valid: class 'hem' has 1 .*beside those held out.*2 parts"):
        assign_split(parse_split("leave-out:H1+valid"), table, 0, ("hem", "all"))


def test_a_validation_part_needs_subjects(make_table):
    table = make_table(["1", "2", ""], [ALL] * 3)
    folds = replace(table, folds=np.array([0, 1, 1], np.int16))
    assert assign_split(parse_split("official:0"), folds, 0).tolist() == [TEST, TRAIN, TRAIN]
    with pytest.raises(UsageError, match="1 of 2 images do not say"):
        assign_split(parse_split("official:0+valid"), folds, 0)


# --- image -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_hem", "num_all"), [(339, 728), (3, 4), (20, 7), (101, 13)])
def test_an_image_split_is_within_one_image_of_the_fractions(make_table, num_hem, num_all):
    labels = np.array([HEM] * num_hem + [ALL] * num_all)
    table = make_table(["1"] * len(labels), labels.tolist())
    for seed in range(3):
        codes = assign_split(IMAGE, table, seed)
        for label, count in ((HEM, num_hem), (ALL, num_all)):
            sizes = np.bincount(codes[labels == label], minlength=3)
            assert sizes.min() >= 1
            # Every part gets an image first; beyond that the sizes are the rounded fractions.
            wanted = np.array([0.75, 0.15, 0.10]) * count
            assert np.abs(sizes - wanted).max() <= (1 if wanted.min() >= 1 else 2)


def test_an_image_split_is_stamped(cohort):
    leaks = check_leaks(assign_split(IMAGE, cohort, 0), cohort)
    assert not leaks.is_disjoint
    assert leaks.stamp.startswith("PATIENT-MIXED")


def test_an_image_split_needs_no_subjects(make_table):
    codes = assign_split(IMAGE, make_table([""] * 40, [HEM, ALL] * 20), 0)
    assert set(codes.tolist()) == {TRAIN, VALID, TEST}


def test_an_image_split_of_too_few_images_speaks_of_images(make_table):
    with pytest.raises(UsageError, match="class 1 has 2 images"):
        assign_split(IMAGE, make_table(["1"] * 7, [HEM] * 5 + [ALL] * 2), 0)


def test_image_splits_differ_by_seed(cohort):
    assert not np.array_equal(assign_split(IMAGE, cohort, 0), assign_split(IMAGE, cohort, 1))
    np.testing.assert_array_equal(assign_split(IMAGE, cohort, 1), assign_split(IMAGE, cohort, 1))


# --- given -----------------------------------------------------------------------------------------------------


def test_given_is_what_the_source_brought(make_table):
    table = make_table(["1"] * 5, [ALL] * 5, splits=["test", "train", "valid", "", "train"])
    assert assign_split(GIVEN, table, 0).tolist() == [TEST, TRAIN, VALID, UNUSED, TRAIN]


def test_given_keeps_unlabelled_test_images_only(make_table):
    splits = ["train", "train", "valid", "valid", "test"]
    table = make_table(["1"] * 5, [ALL, -1, ALL, -1, -1], splits=splits)
    assert assign_split(GIVEN, table, 0).tolist() == [TRAIN, UNUSED, VALID, UNUSED, TEST]


@pytest.mark.parametrize(
    ("splits", "labels", "missing"),
    [
        (["train", "train"], [ALL, HEM], "valid"),
        (["", ""], [ALL, HEM], "train and no valid"),
        (["valid", "test"], [ALL, HEM], "train"),
        (["train", "valid"], [ALL, -1], "valid"),
        (["train", "valid"], [-1, ALL], "train"),
    ],
)
def test_given_without_labelled_train_or_valid_images(make_table, splits, labels, missing):
    with pytest.raises(UsageError, match=f"no {missing}"):
        assign_split(GIVEN, make_table(["1", "2"], labels, splits=splits), 0)


# --- numbers ---------------------------------------------------------------------------------------------------


def test_numbers_of_a_part(make_table):
    codes = np.array([VALID, TRAIN, UNUSED, TEST, TRAIN], np.int8)
    assert [split_indices(codes, name).tolist() for name in SPLIT_NAMES] == [[1, 4], [0], [3]]
    assert split_indices(codes, "all").tolist() == [0, 1, 2, 3, 4]
    assert split_indices(codes, "train").dtype == np.int64
    with pytest.raises(UsageError, match=r"'holdout'.*train, valid, test or all"):
        split_indices(codes, "holdout")


def test_the_table_is_left_alone(cohort):
    before = replace(cohort, labels=cohort.labels.copy(), subjects=cohort.subjects.copy())
    for text in ("subject", "image", "fold:1/5", "test-fold:1/5+valid", "leave-out:3+valid"):
        assign_split(parse_split(text), cohort, 0)
    assert cohort.equals(before)
