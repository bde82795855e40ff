"""The part of ``ltrain batchnorm-demo`` that trains, judges and writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cli.output import format_table, print_json, print_note, print_text
from cli.progress import progress_bar
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.splitting.leaks import DISJOINT_STAMP
from leukemia_models.experiments.batchnorm_experiment import (
    WAY_TITLES,
    WAYS,
    CellImages,
    EpochScores,
    MemorySource,
    draw_batchnorm,
    draw_cells,
    plan_cells,
    run_experiment,
)
from leukemia_models.networks.registry import build_model
from leukemia_models.reports.style import save_figure
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

MODEL_NAME = "resnet18"
AUGMENTATION = "report-b"
SIZE_PX = 32
BATCH_SIZE = 32
NUM_SUBJECTS, TRAIN_CELLS_PER_SUBJECT, VALID_CELLS_PER_SUBJECT = 24, 20, 40
_CSV_FIELDS = ("loss", "accuracy", "balanced_accuracy", "share_positive")


def batchnorm_demo(out: Path, *, epochs: int, lr: float, seed: int, as_json: bool) -> None:
    """Run the experiment, write its files into `out` and print its table."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: cannot make this folder: {error.strerror}") from error
    train, valid = _cells(seed)
    scores = _train_and_judge(train, valid, epochs=epochs, lr=lr, seed=seed)
    document = {
        "model": MODEL_NAME,
        "size_px": SIZE_PX,
        "batch_size": BATCH_SIZE,
        "optimizer": "adamw",
        "lr": lr,
        "augmentation": AUGMENTATION,
        "seed": seed,
        "split": DISJOINT_STAMP,
        "train_images": len(train),
        "valid_images": len(valid),
        "valid_share_of_class_1": float(valid.labels_N.mean()),
        "epochs": [epoch_scores.to_dict() for epoch_scores in scores],
    }
    _write(out, document, scores)
    if as_json:
        print_json(document)
    else:
        print_text(_as_text(out, valid, scores))


def _cells(seed: int) -> tuple[CellImages, CellImages]:
    """Generate the training and the validation images."""
    train, valid = plan_cells(NUM_SUBJECTS, TRAIN_CELLS_PER_SUBJECT, VALID_CELLS_PER_SUBJECT)
    with progress_bar(len(train) + len(valid), "cells") as bar:
        drawn = [draw_cells(cells, seed=seed, size_px=SIZE_PX, progress=bar.update) for cells in (train, valid)]
    return drawn[0], drawn[1]


def _train_and_judge(train: CellImages, valid: CellImages, *, epochs: int, lr: float, seed: int) -> list[EpochScores]:
    print_note(
        f"{MODEL_NAME}, {len(train)} generated cells for training and {len(valid)} of other subjects for validation, "
        f"{SIZE_PX} px; AdamW, learning rate {lr:g}, augmentation {AUGMENTATION}, seed {seed}"
    )
    training, clean, validation = (
        MemorySource(cells.images_NHWC, cells.labels_N, batch_size=BATCH_SIZE, seed=seed, drop_last=drop_last)
        for cells, drop_last in ((train, True), (train, False), (valid, False))
    )
    settings = TrainSettings(
        epochs=epochs,
        optimizer=OptimizerSettings(name="adamw", lr=lr),
        schedule=ScheduleSettings(name="constant"),
        seed=seed,
    )
    with progress_bar(epochs * len(training), "training", unit="step") as bar:
        return run_experiment(
            build_model(MODEL_NAME, settings.num_classes, seed=seed),
            training,
            clean,
            validation,
            settings,
            train.normalization(),
            load_augmentation(AUGMENTATION),
            torch.device("cpu"),
            on_step=bar.update,
        )


def _write(out: Path, document: dict[str, Any], scores: Sequence[EpochScores]) -> None:
    write_text(out / "batchnorm.json", json.dumps(document, indent=2) + "\n")
    write_text(out / "batchnorm.csv", _as_csv(scores))
    figure = draw_batchnorm(
        scores,
        share_of_labels=document["valid_share_of_class_1"],
        title=f"The same weights judged four ways ({MODEL_NAME}, generated cells, seed {document['seed']})",
        stamp=DISJOINT_STAMP,
    )
    save_figure(figure, out / "batchnorm.png")


def _as_csv(scores: Sequence[EpochScores]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["epoch", "way", *_CSV_FIELDS, "one_class"])
    for epoch_scores in scores:
        for way in WAYS:
            found = getattr(epoch_scores, way)
            values = [getattr(found, name) for name in _CSV_FIELDS]
            writer.writerow([epoch_scores.epoch, way, *values, int(found.one_class_warning is not None)])
    return buffer.getvalue()


def _as_text(out: Path, valid: CellImages, scores: Sequence[EpochScores]) -> str:
    rows = [[str(epoch_scores.epoch), *(_cell(epoch_scores, way) for way in WAYS)] for epoch_scores in scores]
    return "\n".join(
        [
            f"Validation accuracy, share of class 1 among the answers ({valid.labels_N.mean():.3f} of the labels):",
            "",
            format_table(["epoch", *WAY_TITLES.values()], rows),
            "",
            "!: nearly all answers are one class. (ii) and (iii) have seen validation images; (iv) has not.",
            f"Look at {out / 'batchnorm.png'}",
        ]
    )


def _cell(epoch_scores: EpochScores, way: str) -> str:
    found = getattr(epoch_scores, way)
    mark = "!" if found.one_class_warning else " "
    return f"{found.accuracy:.3f}  {found.share_positive:.2f}{mark}"
