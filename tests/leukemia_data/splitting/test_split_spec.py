"""Names of splits, read and written back."""

from __future__ import annotations

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.splitting.split_spec import SplitSpec, parse_split, with_valid_share


@pytest.mark.parametrize(
    "text",
    [
        "given",
        "subject",
        "image",
        "fold:1/2",
        "fold:5/5",
        "fold:3/10",
        "test-fold:1/5",
        "test-fold:5/5+valid",
        "official:0",
        "official:12+valid",
        "leave-out:H3",
        "leave-out:20,21,H3+valid",
        "leave-out:a b,c%2Cd,e%2Bvalid,100%25",
    ],
)
def test_names_are_read_and_written_back(text):
    assert str(parse_split(text)) == text


def test_fold_numbers():
    assert parse_split("fold:3/10") == SplitSpec("fold", 3, 10)
    assert parse_split("test-fold:3/10+valid") == SplitSpec("test-fold", 3, 10, with_valid=True)
    assert parse_split("official:2") == SplitSpec("official", 2)


def test_subjects_left_out_are_named_once_as_they_are_written():
    spec = parse_split("leave-out: h3, 12 ,h3,a%2Cb,100%")
    assert spec == SplitSpec("leave-out", subjects=("h3", "12", "a,b", "100%"))


@pytest.mark.parametrize("subject", ["1", "a,b", "x+valid", "+valid", "50%2C", "%", "a b", "\udcff", "K+,%"])
@pytest.mark.parametrize("with_valid", [False, True])
def test_every_subject_name_survives(subject, with_valid):
    spec = SplitSpec("leave-out", subjects=(subject, "H1"), with_valid=with_valid)
    assert parse_split(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "subjects",
        "Subject",
        "fold",
        "fold:1",
        "fold:0/5",
        "fold:6/5",
        "fold:1/1",
        "fold:-1/5",
        "fold:1/5 ",
        "test-fold:0/5",
        "test-fold:6/5",
        "test-fold:1/5+test",
        "testfold:1/5",
        "official",
        "official:",
        "official:-1",
        "official:1/3",
        "leave-out",
        "leave-out:",
        "leave-out:,",
        "leave-out:1,,2",
        "leave-out:+valid",
        "+valid",
    ],
)
def test_other_names_are_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_split(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["subject+valid", "fold:1/5+valid", "image+valid:0.2"])
def test_only_splits_without_a_validation_part_draw_one(text):
    with pytest.raises(UsageError, match="has one already"):
        parse_split(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("given+valid:0.15", 0.15),
        ("given+valid:0.2", 0.2),
        ("given+valid:0.000001", 1e-6),
        ("official:0+valid:0.5", 0.5),
        ("official:0+valid", 0.15),
        ("test-fold:1/5+valid:0.333333", 0.333333),
        ("leave-out:a b,c%2Bvalid+valid:0.1", 0.1),
    ],
)
def test_shares_are_read_and_written_back(text, share):
    spec = parse_split(text)
    assert (spec.with_valid, spec.valid_share, str(spec)) == (True, share, text)


def test_the_default_fraction_has_one_name_of_each_kind():
    assert str(parse_split("given+valid")) == str(parse_split("given+valid:.150")) == "given+valid:0.15"
    assert str(parse_split("official:0+valid:0.15")) == "official:0+valid"
    assert parse_split("official:0+valid:0.15") == parse_split("official:0+valid")
    assert with_valid_share(parse_split("given"), 0.15) == parse_split("given+valid")
    assert with_valid_share(parse_split("given+valid:0.2"), 0.2) == parse_split("given+valid:0.2")


@pytest.mark.parametrize("share", ["0", "0.0000001", "0.51", "-0.1", "1e-3", "nan", "", ".", "0.1 ", "0.1,0.2", "1/5"])
def test_other_shares_are_refused(share):
    with pytest.raises(UsageError, match="fraction"):
        parse_split(f"given+valid:{share}")
    with pytest.raises(UsageError, match="fraction"):
        with_valid_share(parse_split("given"), float("nan"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("subject", "subject"),
        ("fold:1/5", "fold1of5"),
        ("test-fold:2/5+valid", "test-fold2of5-valid"),
        ("official:0", "official0"),
        ("leave-out:20,H3", "leave-out-20-H3"),
        ("leave-out:a/b: c", "leave-out-aofb-c"),
    ],
)
def test_names_for_files(text, name):
    assert parse_split(text).file_name == name


def test_long_lists_get_short_and_different_file_names():
    subjects = tuple(map(str, range(100, 150)))
    first, second = (SplitSpec("leave-out", subjects=(*subjects, last)).file_name for last in ("1", "2"))
    assert max(len(first), len(second)) <= 60
    assert first != second


def test_what_is_held_out():
    held_out = {text: parse_split(text).holds_out for text in ("subject", "fold:1/2", "test-fold:1/2", "official:0")}
    assert held_out == {"subject": False, "fold:1/2": False, "test-fold:1/2": True, "official:0": True}
