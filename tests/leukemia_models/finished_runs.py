"""Folders of finished runs without training: the files that pooling and comparing read."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.evaluation.predictions import write_table
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.history import EPOCH_FIELDS
from leukemia_models.training.run_state import TrainSettings

CLASSES = ("hem", "all")
CLEAN = LeakCheck(0, 0, 0)
People = Mapping[str, int]
"""Subject -> label."""


def predictions_of(people: People, images_each: int, probability_of: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Rows ``<subject>/<number>`` with the given probabilities of class all."""
    rows = [(subject, label, n) for subject, label in people.items() for n in range(images_each)]
    probabilities = [probability_of[subject][n] for subject, _, n in rows]
    return pd.DataFrame(
        {
            "id": pd.Series([f"{subject}/{n}" for subject, _, n in rows], dtype=object),
            "subject": pd.Series([subject for subject, _, _ in rows], dtype=object),
            "label": pd.Series([CLASSES[label] for _, label, _ in rows], dtype=object),
            "split": "test",
            "prediction": pd.Series([CLASSES[int(value > 0.5)] for value in probabilities], dtype=object),
            "probability_hem": [1 - value for value in probabilities],
            "probability_all": probabilities,
        }
    )


def random_predictions(people: People, images_each: int, seed: int, strength: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return predictions_of(
        people,
        images_each,
        {
            subject: (1 / (1 + np.exp(-strength * (2 * label - 1) - rng.normal(0, 1.5, images_each)))).tolist()
            for subject, label in people.items()
        },
    )


def write_part(root: Path, table: pd.DataFrame, *, split: str, leaks: LeakCheck = CLEAN, part: str = "test") -> None:
    """The evaluated part of a run: ``predictions.csv`` and as much of ``results.json`` as is read."""
    (root / part).mkdir(parents=True, exist_ok=True)
    write_table(root / part / "predictions.csv", table.assign(stamp=leaks.stamp))
    results = {
        "model_name": "resnet18",
        "classes": CLASSES,
        "settings": {"size_px": 32, "recipe": "raw", "batch_size": 8, "split_of_fold": split},
        "judging": {"tta": "none"},
        "split": {"kind": split, "leaks": asdict(leaks), "stamp": leaks.stamp},
        "epoch": 3,
    }
    (root / part / "results.json").write_text(json.dumps(results), encoding="utf-8")


def write_config(
    root: Path, *, split: str = "subject", model_name: str = "resnet18", stage: str = "", epochs: int = 3
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    config = RunConfig(
        model_name=model_name,
        cache_dir="cache",
        data_fingerprint="0" * 64,
        data_digest="1" * 32,
        split=split,
        split_seed=0,
        batch_size=8,
        normalization={"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]},
        settings=TrainSettings(epochs=epochs),
        stage=stage,
    )
    save_config(RunFolder(root), config)
    RunFolder(root).checkpoint("last").write_bytes(b"")


def write_curve(root: Path, train: Sequence[float], valid: Sequence[float | None]) -> None:
    """A ``history.csv`` with these accuracies."""
    with RunFolder(root).history.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*EPOCH_FIELDS, "split"], restval="0.5", lineterminator="\n")
        writer.writeheader()
        for epoch, (train_accuracy, valid_accuracy) in enumerate(zip(train, valid, strict=True), 1):
            writer.writerow({"epoch": epoch, "train_accuracy": train_accuracy, "valid_accuracy": valid_accuracy})


def write_fold(
    root: Path, table: pd.DataFrame, everyone: People, images_each: int, *, split: str, leaks: LeakCheck = CLEAN
) -> Path:
    """A fold's run that held out the rows of `table` and trained on all other images of `everyone`."""
    write_config(root, split=split)
    write_curve(root, [0.6, 0.7, 0.8], [None] * 3)
    held_out = set(table["id"])
    rows = [(f"{subject}/{n}", subject, label) for subject, label in everyone.items() for n in range(images_each)]
    with RunFolder(root).split.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "subject", "label", "split"])
        writer.writerows([*row, "test" if row[0] in held_out else "train"] for row in rows)
        writer.writerow(["unlabelled", "", -1, "unused"])
    write_part(root, table, split=split, leaks=leaks)
    return root


def write_run(root: Path, table: pd.DataFrame, *, model_name: str = "resnet18", leaks: LeakCheck = CLEAN) -> Path:
    """An evaluated run of three epochs."""
    write_config(root, model_name=model_name)
    write_curve(root, [0.6, 0.7, 0.8], [0.55, 0.65, 0.7])
    write_part(root, table, split="subject", leaks=leaks)
    return root


def write_plan(root: Path, table: pd.DataFrame, stages: Mapping[str, int], *, model_name: str = "resnet18") -> Path:
    """A plan's folder whose last stage is evaluated; `stages` names each one's number of epochs."""
    root.mkdir()
    (root / "plan.toml").write_text("", encoding="utf-8")
    for number, (stage, epochs) in enumerate(stages.items(), 1):
        folder = root / f"{number:02d}-{stage}"
        write_config(folder, model_name=model_name, stage=stage, epochs=epochs)
        write_curve(folder, [0.5 + 0.01 * n for n in range(epochs)], [0.4 + 0.01 * n for n in range(epochs)])
        write_part(folder, table, split="subject")
    return root
