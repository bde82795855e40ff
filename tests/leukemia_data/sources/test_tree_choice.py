"""Folders of a tree that name classes, splits and subjects: found, or ambiguous with readings that all work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from leukemia_data.errors import AmbiguousSourceError, SourceError
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source

from .answers import ask, classes_of


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable) -> Callable[..., Path]:
    """``tree("blast/{}.png", "hem/{}.png", num=2)``: a folder with so many images of each pattern."""

    def write(*patterns: str, num: int = 2, root: str = "cells") -> Path:
        return write_tree(
            tmp_path / root, *(pattern.format(number) for pattern in patterns for number in range(1, num + 1))
        )

    return write


def read(root: Path, **options) -> Reading:
    return list_source([root], options=ReadingOptions.parse(**options)).reading


def splits_of(reading: Reading) -> dict[str, int]:
    return {split.name: split.num_images for split in reading.splits}


def subjects_of(root: Path, **options) -> dict[str, str]:
    listing = list_source([root], options=ReadingOptions.parse(**options))
    return {record.record_id: record.subject for record in listing.records}


# --- the class level ------------------------------------------------------------------------------------------


def test_treatments_above_classes_are_no_classes(tree):
    kinds = ("Mature", "Immature", "Reactive")
    root = tree(*(f"{variant}/{kind}/{{}}.png" for variant in ("Raw", "Segmented") for kind in kinds))
    reading = read(root)
    assert dict(reading.classes) == dict.fromkeys(sorted(kinds), 4)
    assert reading.subjects.count == 0
    assert reading.class_sources == ("folder level 2",)
    assert any("Raw 6, Segmented 6" in text for text in reading.other_folders)
    assert any("12 images have the name of another" in note for note in reading.notes)
    assert dict(read(root, exclude=["Segmented"]).classes) == dict.fromkeys(sorted(kinds), 2)


def test_treatments_below_classes_are_no_subjects(tree):
    root = tree("hem/original/{}.png", "hem/rotated_90/{}.png", "all/original/{}.png", "all/rotated_90/{}.png")
    reading = read(root)
    assert dict(reading.classes) == {"hem": 4, "all": 4}
    assert reading.subjects.count == 0


def test_slides_below_classes_are_neither_classes_nor_subjects(tree):
    reading = read(tree("blast/slide_1/{}.png", "blast/slide_2/{}.png", "healthy/slide_3/{}.png"))
    assert dict(reading.classes) == {"blast": 4, "healthy": 2}
    assert reading.subjects.count == 0
    assert any("slide_1 2" in text and "--subject-from folder" in text for text in reading.other_folders)


def test_subtypes_below_classes_need_an_option(tree):
    root = tree("cancer/B-cell/{}.png", "cancer/T-cell/{}.png", "control/young/{}.png", "control/old/{}.png")
    assert classes_of(ask([root])) == {
        "--class-level 2": {"B-cell": 2, "T-cell": 2, "old": 2, "young": 2},
        "--class-level 1": {"cancer": 4, "control": 4},
    }


@pytest.mark.parametrize("level", [1, 2, -1, -2])
def test_a_chosen_level_is_taken_whatever_the_names(tree, level):
    root = tree("patient_1/slide_1/{}.png", "patient_1/slide_2/{}.png", "patient_2/slide_1/{}.png")
    expected = {"patient_1": 4, "patient_2": 2} if level in (1, -2) else {"slide_1": 4, "slide_2": 2}
    assert dict(read(root, class_level=level).classes) == expected


def test_a_level_that_some_images_lack_is_refused(tree):
    root = tree("blast/a/{}.png", "healthy/{}.png")
    with pytest.raises(SourceError, match=r"2 images .*healthy/1\.png"):
        read(root, class_level=2)


def test_names_unlike_classes_need_an_option(tree):
    listings = ask([tree("patient_01/{}.png", "patient_02/{}.png", "patient_03/{}.png")])
    assert classes_of(listings) == {"--class-level 1": {"patient_01": 2, "patient_02": 2, "patient_03": 2}}


def test_small_numbers_may_be_classes(tree):
    assert dict(read(tree("0/{}.png", "1/{}.png", "10/{}.png", "2/{}.png")).classes) == dict.fromkeys(
        ["0", "1", "2", "10"], 2
    )


def test_an_unknown_folder_is_no_class(tree):
    reading = read(tree("blast/{}.png", "healthy/{}.png", "unlabelled/{}.png"))
    assert (dict(reading.classes), reading.num_unlabelled) == ({"blast": 2, "healthy": 2}, 2)
    assert len(read(tree("blast/{}.png"), classes="blast,healthy,unlabelled").classes) == 3


# --- mixed depths and strays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stray",
    ["overview.png", "Dataset/overview.png", "Dataset/Benign/../overview2.png", "sheet.tif"],
)
def test_a_stray_image_is_named_and_the_classes_stay(tree, write_tree, stray):
    root = write_tree(tree("Dataset/Benign/{}.png", "Dataset/Early/{}.png"), stray)
    name = stray.replace("Benign/../", "")
    with pytest.raises(SourceError, match="1 images") as caught:
        read(root)
    assert not isinstance(caught.value, AmbiguousSourceError)
    assert name in str(caught.value)
    assert dict(read(root, exclude=[f"/{name}"]).classes) == {"Benign": 2, "Early": 2}


@pytest.mark.parametrize("num_roots", [1, 2])
def test_images_beside_folders_of_images_need_an_option(tree, num_roots):
    roots = [tree("blast/{}.png", "healthy/{}.png", "healthy/checked/{}.png", root=f"r{n}") for n in range(num_roots)]
    listings = ask(roots)
    assert list(classes_of(listings).values()) == [
        {"blast": 2 * num_roots, "checked": 2 * num_roots},
        {"blast": 2 * num_roots, "healthy": 4 * num_roots},
    ]
    first, _ = listings.values()
    (left_out,) = first.reading.passed_over
    assert left_out.count == 2 * num_roots


def test_images_beside_folders_of_classes_are_left_out_by_the_reading_that_says_so(tree):
    patterns = (
        "blast/{}.png",
        "blast/a/{}.png",
        "blast/b/{}.png",
        "normal/{}.png",
        "normal/c/{}.png",
        "normal/d/{}.png",
    )
    root = tree(*patterns)
    assert classes_of(ask([root])) == {
        "--class-level 2 --exclude '/blast/*.*' --exclude '/normal/*.*'": {"a": 2, "b": 2, "c": 2, "d": 2},
        "--class-level 1": {"blast": 6, "normal": 6},
    }
    with pytest.raises(AmbiguousSourceError, match="left out: 4 directly in blast, normal"):
        list_source([root])


def test_a_stray_among_deep_folders_hides_no_level(tree, write_tree):
    kinds = ("benign/lymphocyte", "benign/platelet", "malignant/monocyte")
    root = write_tree(
        tree(*(f"{kind}/{sub}/{{}}.png" for kind in kinds for sub in ("L1", "L2"))), "benign/overview.png"
    )
    listings = ask([root])
    assert {frozenset(classes) for classes in classes_of(listings).values()} == {
        frozenset(("L1", "L2")),
        frozenset(("lymphocyte", "platelet", "monocyte")),
        frozenset(("benign", "malignant")),
    }


@pytest.mark.parametrize("patterns", [("{kind}/x{{}}.png",), ("set1/{kind}/{{}}.png", "set2/{kind}/{{}}.png")])
def test_classes_that_are_not_listed_are_left_out_and_counted(tree, patterns):
    root = tree(*(pattern.format(kind=kind) for pattern in patterns for kind in ("AML", "CLL", "CML", "MDS")))
    reading = read(root, classes="MDS,CLL")
    assert reading.classes == (("MDS", 2 * len(patterns)), ("CLL", 2 * len(patterns)))
    assert [one.count for one in reading.passed_over] == [4 * len(patterns)]


def test_images_without_a_class_may_stay_in_test_folders(tree):
    patterns = ("blast/x/{}.png", "blast/y/{}.png", "normal/z/{}.png")
    root = tree(
        *(f"train/{pattern}" for pattern in patterns), *(f"test/{pattern}" for pattern in patterns), "test/{}.png"
    )
    assert {one.reading.num_unlabelled for one in ask([root]).values()} == {2}


def test_people_below_some_classes_only(tree):
    root = tree("blast/P1/{}.png", "blast/P2/{}.png", "healthy/{}.png")
    reading = read(root)
    assert dict(reading.classes) == {"blast": 4, "healthy": 2}
    assert (reading.subjects.count, reading.subjects.num_unknown) == (2, 2)


# --- subjects ---------------------------------------------------------------------------------------------------


def test_people_below_classes_are_subjects(tree):
    root = tree("blast/case_1/{}.png", "healthy/case_2/{}.png", num=1)
    assert subjects_of(root) == {"blast/case_1/1.png": "case_1", "healthy/case_2/1.png": "case_2"}
    assert read(root).subjects.is_confirmed is False
    assert set(subjects_of(root, subject_from="none").values()) == {""}
    assert set(subjects_of(root, subject_from="name").values()) == {""}


def test_people_above_classes_are_subjects_only_by_option(tree):
    root = tree(*(f"patient_{n}/{kind}/{{}}.png" for n in (1, 2, 3) for kind in ("Early", "Pro")))
    reading = read(root)
    assert dict(reading.classes) == {"Early": 6, "Pro": 6}
    assert (reading.subjects.count, reading.subjects.num_unknown) == (0, 12)
    assert any("patient_1 4" in text and "--subject-from folder" in text for text in reading.other_folders)
    confirmed = read(root, subject_from="folder").subjects
    assert (confirmed.count, confirmed.num_several, confirmed.is_confirmed, confirmed.is_doubtful) == (
        3,
        3,
        True,
        False,
    )


def test_one_name_below_two_classes_makes_all_of_them_doubtful(tree):
    root = tree("blast/P1/{}.png", "blast/P2/{}.png", "healthy/P1/{}.png")
    assert read(root).subjects.count == 0
    assert read(root, subject_from="folder").subjects.count == 2


def test_subjects_by_a_pattern_of_the_path(tree):
    root = tree("blast/s7-{}.png", "healthy/s8-{}.png", num=1)
    expected = {"blast/s7-1.png": "s7", "healthy/s8-1.png": "s8"}
    assert subjects_of(root, subject_pattern="(s\\d+)-") == expected
    assert subjects_of(root, subject_pattern="(blast|healthy)/(?P<subject>s\\d+)") == expected
    with pytest.raises(SourceError, match="finds no subject in paths such as"):
        read(root, subject_pattern="(q)?")


def test_subjects_from_folders_where_none_is_left(tree):
    with pytest.raises(SourceError, match="no folder is left"):
        read(tree("blast/{}.png", "healthy/{}.png"), subject_from="folder")


def test_folders_as_subjects_leave_treatments_out(tree):
    root = tree("blast/anna/raw/{}.png", "blast/bert/cropped/{}.png", "healthy/carl/raw/{}.png", num=1)
    assert set(subjects_of(root, class_level=1, subject_from="folder").values()) == {"anna", "bert", "carl"}


# --- splits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("Training Validation Testing", {"train": 4, "valid": 4, "test": 4}),
        ("DTrain DVal DTest", {"train": 4, "valid": 4, "test": 4}),
        ("TrainA TrainB TestA", {"train": 8, "test": 4}),
        ("trainset testset", {"train": 4, "test": 4}),
        # Eval means what is missing.
        ("train eval test", {"train": 4, "valid": 4, "test": 4}),
        ("train val eval", {"train": 4, "valid": 4, "test": 4}),
        ("train dev holdout", {"train": 4, "valid": 4, "test": 4}),
        ("entrenamiento validación prueba", {"train": 4, "valid": 4, "test": 4}),
        ("训练集 验证集 测试集", {"train": 4, "valid": 4, "test": 4}),
    ],
)
@pytest.mark.parametrize("is_above", [True, False])
def test_split_folders_above_and_below_classes(tree, folders, expected, is_above):
    classes = ("lymphocyte", "monocyte")
    pairs = [(split, name) if is_above else (name, split) for split in folders.split() for name in classes]
    reading = read(tree(*(f"{first}/{second}/{{}}.png" for first, second in pairs)))
    assert splits_of(reading) == expected
    assert dict(reading.classes) == dict.fromkeys(classes, sum(expected.values()) // 2)
    assert {word for split in reading.splits for word in split.words} == set(folders.split())


def test_words_beside_a_split_word_may_be_the_classes(tree):
    reading = read(tree("test_positive/{}.png", "test_negative/{}.png"))
    assert dict(reading.classes) == {"test_negative": 2, "test_positive": 2}
    assert reading.splits == ()


@pytest.mark.parametrize("root", ["cells", "train"])
def test_an_unknown_folder_beside_splits_needs_an_option(tree, root):
    patterns = [f"{part}/{kind}/{{}}.png" for part in ("train", "test", "batch2") for kind in ("hem", "all")]
    listings = ask([tree(*patterns, root=root)])
    assert [splits_of(listing.reading) for listing in listings.values()] == [
        {"train": 8, "test": 4},
        {"train": 4, "valid": 4, "test": 4},
        {"train": 4, "test": 8},
        {"train": 4, "test": 4, "": 4},
        {"train": 4, "test": 4},
    ]
    assert all(dict(listing.reading.classes).keys() == {"hem", "all"} for listing in listings.values())


def test_unknown_folders_of_several_sources_need_an_option_and_can_be_left_out(tree, tmp_path):
    patterns = [f"{part}/{kind}/{{}}.png" for part in ("train", "test", "extra") for kind in ("hem", "all")]
    roots = [tree(*patterns, root=f"site{n}") for n in (1, 2)]
    listings = ask(roots)
    assert splits_of(listings["--exclude /site1/extra --exclude /site2/extra"].reading) == {"train": 8, "test": 8}
    # As a folder that holds both.
    assert {choice: splits_of(one.reading) for choice, one in ask([tmp_path]).items()} == {
        choice: splits_of(one.reading) for choice, one in listings.items()
    }


def test_an_excluded_folder_is_the_one_at_that_place(tree):
    patterns = [f"{part}/{kind}/{{}}.png" for part in ("train", "test", "batch2") for kind in ("hem", "all")]
    root = tree(*patterns, "train/hem/batch2/{}.png")
    assert sum(count for _, count in read(root, exclude=["/batch2"], class_level=2).classes) == 10


def test_split_folders_are_those_that_the_user_names(tree):
    root = tree(*(f"{part}/{kind}/{{}}.png" for part in ("A", "B", "test") for kind in ("blast", "normal")))
    reading = read(root, split_folders="train=A+test,test=b", class_level=2)
    assert splits_of(reading) == {"train": 8, "test": 4}
    nested = tree("x/A/blast/{}.png", "x/B/normal/{}.png", root="nested")
    assert splits_of(read(nested, split_folders="train=x/A,test=/x/B/", class_level=-1)) == {"train": 2, "test": 2}


# --- C-NMC names against folders --------------------------------------------------------------------------------


def test_names_against_folders_of_the_user(tree):
    root = tree("sick/UID_1_{}_1_all.bmp", "well/UID_H1_{}_1_hem.bmp", "odd/UID_H2_{}_1_hem.bmp")
    assert classes_of(ask([root])) == {
        "--class-level name": {"hem": 4, "all": 2},
        "--class-level 1": {"odd": 2, "sick": 2, "well": 2},
    }


def test_subtypes_of_one_named_class(tree):
    root = tree("early/UID_1_{}_1_all.bmp", "pre/UID_2_{}_1_all.bmp")
    listings = ask([root])
    assert classes_of(listings)["--class-level 1"] == {"early": 2, "pre": 2}
    # The names still give the subjects.
    assert all(listing.reading.subjects.count == 2 for listing in listings.values())


def test_folders_that_say_what_the_names_say_ask_nothing(tree):
    root = tree("leukemia/UID_1_{}_1_all.bmp", "normal/UID_H1_{}_1_hem.bmp")
    assert dict(read(root).classes) == {"hem": 2, "all": 2}


def test_a_named_image_in_the_other_class_s_folder_is_refused(tree):
    root = tree("all/UID_1_{}_1_all.bmp", "hem/UID_H1_{}_1_hem.bmp", "hem/UID_2_{}_1_all.bmp")
    with pytest.raises(SourceError, match=r"2 images .*hem/UID_2_1_1_all\.bmp.*--class-level"):
        read(root)
    assert dict(read(root, class_level="name").classes) == {"hem": 2, "all": 4}
    assert dict(read(root, class_level=1).classes) == {"hem": 4, "all": 2}


# --- one folder alone -------------------------------------------------------------------------------------------


def test_one_folder_that_names_no_class_gives_no_label(tree):
    reading = read(tree("xyc/{}.png"))
    assert (reading.num_unlabelled, dict(reading.classes)) == (2, {"hem": 0, "all": 0})
    assert any("--classes xyc" in note for note in reading.notes)
    assert dict(read(tree("xyc/{}.png"), classes="xyc").classes) == {"xyc": 2}


def test_a_table_beside_the_only_folder_is_named(tree):
    root = tree("photos/{}.png", "photos/more/{}.png")
    (root / "diagnoses.csv").write_text("image,diagnosis\n1.png,AML\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"diagnoses\.csv"):
        read(root)


def test_one_class_alone_is_noted(tree):
    assert any("one class" in note for note in read(tree("blast/{}.png")).notes)


# --- folders that are called like something else ------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["phase2", "prelim", "final phase"])
def test_folders_called_like_cnmc_s_test_sets_are_any_folders_elsewhere(tree, folder):
    root = tree(*(f"{part}/{kind}/{{}}.png" for part in ("phase1", folder) for kind in ("blast", "normal")))
    reading = read(root, class_level=2)
    assert (dict(reading.classes), reading.num_unlabelled) == ({"blast": 4, "normal": 4}, 0)


def test_a_test_set_with_folders_of_classes_keeps_them(tree):
    root = tree(
        "train/all/UID_1_{}_1_all.bmp", "train/hem/UID_H1_{}_1_hem.bmp", "phase2/hem/x{}.bmp", "phase2/all/y{}.bmp"
    )
    listings = ask([root])
    assert {choice: dict(one.reading.classes)["hem"] for choice, one in listings.items()} == {
        "--split-folders train=train+phase2": 4,
        "--split-folders train=train,valid=phase2": 4,
        "--split-folders train=train,test=phase2": 4,
        "--split-folders train=train": 4,
        "--exclude /phase2": 2,
    }


def test_own_folders_beside_cnmc_names_stay_classes(tree):
    root = tree("fold_0/all/UID_1_{}_1_all.bmp", "fold_0/hem/UID_H1_{}_1_hem.bmp", "extra/normal/a{}.png")
    assert dict(read(root).classes) == {"all": 2, "hem": 2, "normal": 2}


def test_cnmc_names_that_contradict_a_folder_need_an_option(tree):
    root = tree("all/UID_1_{}_1_all.bmp", "hem/UID_H1_{}_1_hem.bmp", "artefact/UID_2_{}_1_all.bmp")
    assert classes_of(ask([root])) == {
        "--class-level name": {"hem": 2, "all": 4},
        "--class-level 1": {"hem": 2, "all": 2, "artefact": 2},
    }


def test_each_of_two_unknown_folders_may_be_another_split(tree):
    parts = ("train", "test", "tuning", "unseen")
    root = tree(*(f"{part}/{kind}/{{}}.png" for part in parts for kind in ("blast", "normal")))
    listings = ask([root])
    assert len(listings) == 3 * 3 + 2
    readings = [
        {word: one.name for one in listing.reading.splits for word in one.words} for listing in listings.values()
    ]
    assert {"train": "train", "test": "test", "tuning": "valid", "unseen": "test"} in readings
    assert {"train": "train", "test": "test"} in readings


def test_a_split_word_among_others_in_a_split_s_folder_is_a_class(tree):
    kinds = ("ELISA test", "smear")
    reading = read(tree(*(f"{split}/{kind}/{{}}.png" for split in ("TRAIN", "TEST") for kind in kinds)))
    assert (dict(reading.classes), splits_of(reading)) == (dict.fromkeys(kinds, 4), {"train": 4, "test": 4})


@pytest.mark.parametrize("name", ["backup", "New folder", "old", "tmp", "results", "blast - Copy", "备份"])
def test_folders_named_like_copies_or_drafts_need_an_option(tree, name):
    listings = ask([tree("blast/{}.png", "normal/{}.png", f"{name}/{{}}.png")])
    assert list(classes_of(listings).values()) == [
        {"blast": 2, "normal": 2},
        dict(sorted({"blast": 2, "normal": 2, name: 2}.items(), key=lambda item: item[0].lower())),
    ]


def test_classes_named_like_people_need_an_option(tree):
    listings = ask([tree("P01/{}.png", "P02/{}.png", "P03/{}.png")])
    assert classes_of(listings) == {"--class-level 1": {"P01": 2, "P02": 2, "P03": 2}}


def test_a_level_from_the_image_upwards_counts_no_containers(tree):
    root = tree("blast/images/{}.png", "normal/{}.png")
    assert dict(read(root, class_level=-1).classes) == {"blast": 2, "normal": 2}


def test_a_figure_beside_the_classes_is_passed_over(tree):
    root = tree("blast/{}.png", "normal/{}.png")
    figure = Figure()
    figure.savefig(root / "preview.png")
    reading = read(root)
    assert dict(reading.classes) == {"blast": 2, "normal": 2}
    assert [one.count for one in reading.passed_over] == [1]
