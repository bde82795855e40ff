"""Questions of which the answers make a layout, each with the answers that there are and how often each is drawn.

A test sees that every answer occurs; whoever adds one adds it here and where the layout is composed.
"""

from __future__ import annotations

from .words import CLASS_NAMES, PERSON_FORMS, PLAIN_SPLITS, SPLIT_WORDS, VARIANT_WORDS

KIND = {"tree": 11, "cnmc": 3, "table": 5, "flat": 1}

TREE = {
    "classes": dict.fromkeys(CLASS_NAMES, 2) | {"english": 6, "kaggle all": 6, "hem and all": 4},
    "class spelling": {"as it is": 10, "upper": 1, "lower": 1, "nfd": 1},
    "spelling across folders": {"one": 24, "case differs": 1, "nfc and nfd": 1},
    "given as": {"one folder": 14, "split roots": 4, "roots of one name": 1, "roots with other names": 1},
    "roots of one name lie in": {"sites": 1, "splits": 1},
    "wrappers": {"0": 80, "1": 40, "2": 20, "3": 20, "1,200": 2},
    "split": {"none": 5, "above": 5, "below": 1},
    "split words": dict.fromkeys(SPLIT_WORDS, 1) | dict.fromkeys(PLAIN_SPLITS, 2) | {"train val test": 8, "raabin": 3},
    "variant": {"none": 16, "above": 3, "below": 1},
    "variant words": dict.fromkeys(VARIANT_WORDS, 1) | {"original segmented": 6},
    "above": {"none": 24, "sites": 1, "years": 1, "folds": 1},
    "people": {"none": 24, "above": 1, "below": 3, "below, recurring": 1, "in file names": 1},
    "person form": dict.fromkeys(PERSON_FORMS, 1) | {"patient_03": 4},
    "inner": {"none": 28, "subtypes": 1, "some subtypes": 1, "groups": 1, "groups and subtypes": 1},
    "container": {"none": 9, "above": 2, "leaf": 2},
    "gaps": {"none": 8, "some": 1},
    "test part": {"as the others": 7, "without class folders": 1},
    "file names": {"numbers": 2, "padded": 2, "class first": 2, "spaced": 1, "hexadecimal": 1, "running": 1},
    "ending": {".png": 4, ".jpg": 2, ".JPG": 1, ".bmp": 1, ".tif": 1, "mixed": 1},
}

CLUTTER = {
    "clutter": {
        "none": 80,
        "system folders": 16,
        "dot files": 8,
        "own run": 16,
        "own cache": 4,
        "texts": 8,
        "other table": 4,
        "label table": 4,
        "mask folders": 8,
        "mask files": 4,
        "mask tree": 20,
        "thumbnails": 4,
        "empty folders": 4,
        "deep empty folders": 1,
    },
    "stray": {"none": 26, "at the root": 2, "beside the classes": 1},
    "links": {"none": 14, "in a circle": 1, "to a folder elsewhere": 1, "to files elsewhere": 1},
}

CLUTTER_WITHOUT_CONTAINERS = CLUTTER | {"clutter": {a: w for a, w in CLUTTER["clutter"].items() if a != "mask tree"}}

CNMC = {
    "tree of names": {
        "tcia": 2,
        "kaggle": 2,
        "prellberg": 1,
        "hem and all": 2,
        "flat": 1,
        "splits": 1,
        "agreeing folders": 1,
        "refining folders": 2,
        "contradicting folders": 2,
        "set aside": 1,
        "misplaced": 1,
    },
    "case of names": {"as published": 4, "upper": 1, "folders upper": 1},
    "converted": {"no": 3, "to png": 1},
    "label table": {
        "as published": 2,
        "semicolons": 1,
        "utf-16": 1,
        "bom": 1,
        "titles in another case": 1,
        "names without endings": 1,
        "blank rows": 1,
        "floats": 1,
        "none": 1,
    },
    "label table lies": {"beside": 1, "inside": 1},
    "merged copies": {"none": 4, "some": 1},
}

TABLE = {
    "given": {"table": 8, "two tables": 2, "folder": 1},
    "table name": {
        "plain": 4,
        "train": 2,
        "test with other words": 1,
        "train_val_test": 1,
    },
    "classes": TREE["classes"],
    "labels": {"names": 12, "0 and 1": 3, "numbers": 1, "floats": 1, "one-hot": 2, "none": 1, "names in two cases": 1},
    "unknown labels": {"none": 18, "empty": 2, "NA": 1, "nan": 1, "None": 1, "?": 1, "unknown": 1},
    "path title": {
        "Path": 10,
        "path": 3,
        "filepath": 1,
        "filename": 1,
        "image_id": 1,
        "image": 1,
        "file": 1,
        "img_path": 1,
    },
    "label title": {
        "label": 14,
        "Label": 2,
        "class": 3,
        "diagnosis": 1,
        "target": 1,
        "cell_type": 1,
        "category": 1,
        "dx": 1,
        "Klasse": 1,
    },
    "subject title": {
        "none": 8,
        "subject": 5,
        "patient_id": 3,
        "Patient": 1,
        "case_id": 1,
        "donor": 1,
    },
    "persons have": {"one class": 6, "several classes": 1},
    "unknown subjects": {"none": 12, "empty": 1, "NA": 1},
    "split title": {"none": 10, "split": 5, "set": 1, "partition": 1, "subset": 1, "Split": 1},
    "split words": {
        "train val test": 6,
        "upper": 2,
        "long": 1,
        "german": 1,
        "spanish": 1,
        "french": 1,
        "dev and test": 1,
    },
    "more columns": {
        "none": 4,
        "sex": 2,
        "scanner": 1,
        "quality": 1,
        "width and height": 1,
        "running number": 1,
        "comment": 1,
    },
    "separator": {",": 4, ";": 2, "tab": 1},
    "encoding": {"utf-8": 4, "utf-8-sig": 1, "utf-16": 1},
    "line end": {"lf": 3, "crlf": 2, "cr": 1},
    "quoting": {"minimal": 3, "all": 1},
    "column order": {"path first": 2, "any": 1},
    "paths": {
        "plain": 20,
        "dot": 1,
        "backslashes": 1,
        "nfc for nfd": 2,
        "without endings": 2,
        "other case": 1,
        "names only": 1,
    },
    "folders of images": {"one": 3, "by class": 1, "none": 1, "names of cells": 1},
    "blank lines": {"none": 3, "some": 1},
}

FLAT = {
    "flat": {"root": 2, "one folder": 2, "label in the name": 2, "table inside": 3, "one-hot table inside": 1},
}

QUESTIONS: dict[str, dict[str, dict[str, int]]] = {
    "tree": TREE | CLUTTER,
    "cnmc": CNMC | CLUTTER_WITHOUT_CONTAINERS,
    "table": TABLE,
    "flat": FLAT,
}
"""Questions of each kind of layout, with the weight of each answer."""
