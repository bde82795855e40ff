"""Meaning of names, in several languages and cases, and similar names without that meaning."""

from __future__ import annotations

import unicodedata

import pytest

from leukemia_data.sources.name_words import (
    beside_the_split,
    is_cell_class,
    is_container,
    is_mask,
    is_numbered,
    is_person,
    is_system,
    is_thumbnails,
    is_unknown,
    is_variant,
    plain,
    same_plain,
    split_word,
    splits_in,
    squeezed,
    words_of,
)

SPLITS = {
    "train": "train Training TRAIN DTrain train_set trainset x_train C-NMC_training_data entrenamiento Entraînement "
    "addestramento TREINO eğitim 训练集 訓練 学習データ Обучение "
    "Trainingsdaten train1",
    "valid": "val Val VALID valid_set DVal y_val validation Validierung Validierungsset validación validação dev "
    "devset development doğrulama 验证集 検証",
    "test": "test TestA TestB TESTING DTest test-2 testset holdout Held-Out hold_out eval evaluation prueba teste "
    "Testdaten resnet_18_test 测试集 テスト 評価",
}


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, text in SPLITS.items() for name in text.split()])
@pytest.mark.parametrize("change", [str, str.upper, lambda name: unicodedata.normalize("NFD", name)])
def test_words_of_splits_in_several_languages_and_cases(split, name, change):
    assert split_word(change(name)) == split


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "Validated",
        "Developing",
        "attest",
        "contest",
        "restrain",
        "trained",
        "trainer",
        "evaluated",
        "device",
        "devil",
        "protest",
        "testament",
        "pretest",
        "invalid",
        "validity",
        "all",
        "hem",
        "Blast",
        "untested",
        "strain",
        "fold_0",
        "images",
    ],
)
def test_words_that_only_look_like_splits(name):
    assert split_word(name) is None
    assert split_word(name.upper()) is None


def test_a_name_of_several_splits_means_none_of_them():
    assert split_word("train_val_test") is None
    assert splits_in("train_val_test") == ("train", "valid", "test")
    assert splits_in("trainval") == ()


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("test_positive", ("positive",)),
        ("test_negative", ("negative",)),
        ("C-NMC_training_data", ()),
        ("train_set_2", ()),
        ("TestB", ()),
        ("hospital_train", ("hospital",)),
    ],
)
def test_what_stands_beside_a_split(name, rest):
    assert split_word(name) is not None
    assert beside_the_split(name) == rest


# --- kinds of folders -------------------------------------------------------------------------------------------

KINDS = [
    (
        is_person,
        ["patient_03", "Patient-3", "P12", "case_7", "UID_4", "subject03", "H1", "患者3"],
        "blast Pre pro P Pat P3x-ray 12",
    ),
    (is_numbered, ["3", "007", "slide_12", "2021-03-04", "batch 7", "L1"], "blast slide patient_a 3rd"),
    (
        is_variant,
        ["Original", "Segmented", "rotated_90", "40x", "x100", "augmented_data", "GREY", "segmentiert", "分割"],
        "Benign Early 40 xl",
    ),
    (is_container, ["images", "Images", "IMG", "all images", "Bilder", "bmp", "データ"], "hem blast image_of_cells"),
    (is_mask, ["mask", "Masks", "ground truth", "Ground_Truth", "GT", "annotations"], "masked maskless hem"),
    (is_thumbnails, ["thumbs", "Thumbnails"], "thumb_print hem"),
    (is_system, ["@eaDir", "lost+found", "$RECYCLE.BIN", "__MACOSX", "Thumbs.db"], "recycled system hem"),
    (is_cell_class, ["hem", "ALL", "Early", "Lymphoblasts", "Pre-B", "normal cells"], "folder x 12"),
]


@pytest.mark.parametrize(("judges", "yes", "no"), KINDS, ids=[kind[0].__name__ for kind in KINDS])
def test_kinds_of_names(judges, yes, no):
    assert [name for name in yes if not judges(name)] == []
    assert [name for name in no.split() if judges(name)] == []


def test_a_person_is_no_class_of_cells():
    assert not any(map(is_cell_class, ["patient_03", "P12", "case 7"]))
    assert not any(map(is_person, ["Benign", "Early", "Pre", "Pro", "all", "hem"]))


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "NA", "n/a", "N/A", "nan", "NaN", "None", "NULL", "?", "-", "unknown", "Unbekannt", "未知", "not known"],
)
def test_values_that_are_not_known(text):
    assert is_unknown(text)


@pytest.mark.parametrize("text", ["0", "hem", "Nana", "negative", "no", "nanocytes", "unknowns", "N", "none of these"])
def test_values_that_are_known(text):
    assert not is_unknown(text)


def test_names_are_compared_without_case_and_composed():
    assert plain("Cafe\u0301 ") == plain("CAF\u00c9")
    assert squeezed("Ground Truth") == squeezed("ground_truth") == "groundtruth"
    assert same_plain(["Blast", "hem", "blast", "BLAST"]) == [["BLAST", "Blast", "blast"]]


@pytest.mark.parametrize("role", ["path", "label", "subject", "split", "remarks"])
def test_the_words_of_columns_are_compared_with_squeezed_titles(role):
    words = words_of("columns", role)
    assert {squeezed(word) for word in words} == words


def test_no_column_name_has_two_roles():
    roles = [words_of("columns", role) for role in ("path", "label", "subject", "split", "remarks")]
    assert sum(map(len, roles)) == len(frozenset().union(*roles))


@pytest.mark.parametrize("section", ["containers", "masks", "thumbnails"])
def test_the_words_of_folders_are_compared_with_squeezed_names(section):
    words = words_of("folders", section)
    assert {squeezed(word) for word in words} == words
