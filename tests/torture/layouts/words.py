"""Words that people use for folders: classes, splits, variants of a picture, persons, and what means nothing."""

from __future__ import annotations

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "english": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocyte",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "kaggle all": ("Benign", "Early", "Pre", "Pro"),
    "hem and all": ("hem", "all"),
    "kaggle white": ("EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"),
    "two words": ("Parasitized", "Uninfected"),
    "codes": ("BAS", "EBO", "EOS", "KSC", "LYA", "LYT", "MMZ", "MOB"),
    "numbers": ("0", "1", "2", "3", "4", "5", "6", "7"),
    "numbered": ("0_normal", "1_blast", "2_atypical", "3_smudge"),
    "german": ("Blasten", "Normoblasten", "Lymphozyten", "Stäbchen", "Plasmazelle groß", "Übergangsform"),
    "french": ("blastes", "éosinophile", "lymphocyte", "plaquette", "monocyte", "érythroblaste"),
    "spanish": ("blástica", "normal", "linfocito", "basófilo", "neutrófilo"),
    "italian": ("blasti", "linfociti", "monociti", "eosinofili", "cellula anomala"),
    "portuguese": ("célula sadia", "blastos", "linfócitos", "eritróide"),
    "turkish": ("lenfosit", "nötrofil", "şüpheli", "sağlıklı", "İmmatür"),
    "polish": ("limfocyty", "blasty", "płytka", "zdrowe"),
    "russian": ("бласты", "лимфоциты", "норма", "моноциты"),
    "chinese": ("淋巴细胞", "原始细胞", "正常", "单核细胞"),
    "japanese": ("リンパ球", "芽球", "好中球", "単球"),
    "like splits": ("Developing", "Mature", "Degenerate", "Validated"),
    "like people": ("P1", "P2", "P3", "P4"),
    "signs": ("T-ALL", "B-ALL (pre)", "c.ALL", "AML+MDS", "n.a. cells"),
}

SPLIT_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "train val test": (("train", "train"), ("val", "valid"), ("test", "test")),
    "train test": (("train", "train"), ("test", "test")),
    "long": (("training", "train"), ("validation", "valid"), ("testing", "test")),
    "upper": (("TRAIN", "train"), ("VAL", "valid"), ("TEST", "test")),
    "title": (("Train", "train"), ("Valid", "valid"), ("Test", "test")),
    "one only": (("train", "train"),),
    "raabin": (("Train", "train"), ("TestA", "test"), ("TestB", "test")),
    "kaggle white": (("TRAIN", "train"), ("TEST", "test"), ("TEST_SIMPLE", "test")),
    "prefixed": (("DTrain", "train"), ("DVal", "valid"), ("DTest", "test")),
    "sets": (("trainset", "train"), ("valset", "valid"), ("testset", "test")),
    "underlined": (("train_set", "train"), ("val_set", "valid"), ("test_set", "test")),
    "data": (("training_data", "train"), ("validation_data", "valid"), ("testing_data", "test")),
    "suffixed": (("cells-train", "train"), ("cells-val", "valid"), ("cells-test", "test")),
    "numbered": (("1_train", "train"), ("2_valid", "valid"), ("3_test", "test")),
    "camel": (("TrainingImages", "train"), ("ValidationImages", "valid"), ("TestImages", "test")),
    "dev and test": (("train", "train"), ("dev", "valid"), ("test", "test")),
    "dev and eval": (("train", "train"), ("dev", "valid"), ("eval", "test")),
    "holdout": (("train", "train"), ("Holdout", "test")),
    "german": (("Training", "train"), ("Validierung", "valid"), ("Testdaten", "test")),
    "french": (("entraînement", "train"), ("validation", "valid"), ("test", "test")),
    "spanish": (("entrenamiento", "train"), ("validación", "valid"), ("prueba", "test")),
    "italian": (("addestramento", "train"), ("validazione", "valid"), ("test", "test")),
    "portuguese": (("treino", "train"), ("validação", "valid"), ("teste", "test")),
    "turkish": (("eğitim", "train"), ("doğrulama", "valid"), ("test", "test")),
    "chinese": (("训练集", "train"), ("验证集", "valid"), ("测试集", "test")),
    "japanese": (("訓練", "train"), ("検証", "valid"), ("テスト", "test")),
}
"""Folders with the split that each means."""

PLAIN_SPLITS = frozenset(
    {"train val test", "train test", "long", "upper", "title", "raabin", "kaggle white", "prefixed", "sets"}
    | {"underlined", "data", "suffixed", "numbered"}
)
"""Sets of words that nobody reads in two ways."""

VARIANT_WORDS: dict[str, tuple[str, ...]] = {
    "original segmented": ("Original", "Segmented"),
    "raw augmented": ("raw", "augmented"),
    "original rotated": ("original", "rotated"),
    "colour grey": ("color", "grayscale"),
    "normalised": ("images_raw", "images_stain_normalized"),
    "magnifications": ("40x", "100x"),
    "german": ("Originalbilder", "Segmentiert"),
}
PLAIN_VARIANTS = frozenset({"original segmented", "raw augmented", "original rotated"})

SITES = ("site_A", "site_B")
YEARS = ("2019", "2020")
FOLDS = ("fold_0", "fold_1", "fold_2")

WRAPPERS = (
    "dataset",
    "Dataset",
    "data",
    "archive",
    "Blood cells",
    "download",
    "ALL-IDB",
    "v1.0",
    "血液",
    "PKG - cells",
)
CONTAINERS = ("images", "data", "imgs", "Images")

PERSON_FORMS = ("patient_03", "P12", "Patient 7", "subject-5", "case_0012", "surnames", "plain numbers")
PLAIN_PERSONS = frozenset({"patient_03", "Patient 7", "subject-5"})
SURNAMES = ("Adler", "Baum", "Celik", "Dumas", "Ekman", "Ferri", "Gruber", "Hansen", "Ito", "Jansen", "Kaya", "Lopez")

SUBTYPES = ("L1", "L2", "L3", "small", "large", "vacuolated", "typical", "Early", "Pre", "Pro", "smudged", "clustered")
GROUPS = ("malignant", "benign", "lymphoid", "myeloid")


def person_name(form: str, number: int) -> str:
    """Name of a person's folder in one of :data:`PERSON_FORMS`; numbers begin at 0."""
    match form:
        case "patient_03":
            return f"patient_{number + 1:02d}"
        case "P12":
            return f"P{number + 10}"
        case "Patient 7":
            return f"Patient {number + 1}"
        case "subject-5":
            return f"subject-{number + 1}"
        case "case_0012":
            return f"case_{number + 10:04d}"
        case "surnames":
            return SURNAMES[number % len(SURNAMES)] + ("" if number < len(SURNAMES) else str(number))
        case _:
            return str(number + 101)
