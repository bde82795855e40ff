"""Reproduce the BatchNorm failure of the second report, and its remedy, on generated cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.operations.resizing import resize_area
from leukemia_data.records.arguments import as_labels
from leukemia_data.sources.sample_cells import generate_cell
from leukemia_data.sources.sample_set import SampleCell, plan_sample
from leukemia_data.splitting.leaks import DISJOINT_STAMP
from leukemia_data.streams.batch import Batch, BatchPlan
from leukemia_models.devices.normalization import GREY_LEVELS, Normalization
from leukemia_models.experiments.four_ways import WAYS, EpochScores, draw_batchnorm, train_four_ways
from leukemia_models.networks.registry import build_model
from leukemia_models.reports.style import save_figure
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

MODEL_NAME = "resnet18"
AUGMENTATION = "report-b"
_CSV_FIELDS = ("loss", "accuracy", "balanced_accuracy", "share_positive")


@dataclass(frozen=True, kw_only=True)
class ExperimentSize:
    """Numbers of cells, and batch size. The default takes a minute on two CPU cores."""

    num_subjects: int = 24
    train_cells_per_subject: int = 20
    valid_cells_per_subject: int = 40
    size_px: int = 32
    batch_size: int = 32


DEFAULT_SIZE = ExperimentSize()


@dataclass(frozen=True, kw_only=True)
class BatchNormExperiment:
    """Results of the experiment.

    Attributes
    ----------
    out
        The folder of its files.
    lr, seed
        As for :func:`run_experiment`.
    share_of_labels
        Fraction of class 1 among the validation labels.
    epochs
        Scores after each epoch.
    """

    out: Path
    size: ExperimentSize
    lr: float
    seed: int
    num_train: int
    num_valid: int
    share_of_labels: float
    epochs: tuple[EpochScores, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the folder as JSON can hold it."""
        return {
            "model": MODEL_NAME,
            "size_px": self.size.size_px,
            "batch_size": self.size.batch_size,
            "optimizer": "adamw",
            "lr": self.lr,
            "augmentation": AUGMENTATION,
            "seed": self.seed,
            "split": DISJOINT_STAMP,
            "train_images": self.num_train,
            "valid_images": self.num_valid,
            "valid_share_of_class_1": self.share_of_labels,
            "epochs": [epoch_scores.to_dict() for epoch_scores in self.epochs],
        }


def run_experiment(
    out: Path,
    *,
    epochs: int = 6,
    lr: float = 0.01,
    seed: int = 0,
    size: ExperimentSize = DEFAULT_SIZE,
    console: Console = NULL_CONSOLE,
) -> BatchNormExperiment:
    """Train a ResNet-18 on generated cells on the CPU, and evaluate the weights of every epoch four ways.

    Parameters
    ----------
    out
        Folder for ``batchnorm.json``, ``batchnorm.csv``, ``batchnorm.png`` and ``.pdf``.
    lr
        Learning rate of AdamW.
    seed
        Of cells, weights, order and augmentation.

    Raises
    ------
    RunError
        If the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: cannot make this folder: {error.strerror}") from error
    cells = plan_cells(size.num_subjects, size.train_cells_per_subject, size.valid_cells_per_subject)
    with console.progress(sum(map(len, cells)), "cells") as bar:
        train, valid = (draw_cells(part, seed=seed, size_px=size.size_px, progress=bar.update) for part in cells)
    console.note(
        f"{MODEL_NAME}, {len(train)} generated cells for training and {len(valid)} of other subjects for validation, "
        f"{size.size_px} px; AdamW, learning rate {lr:g}, augmentation {AUGMENTATION}, seed {seed}"
    )
    settings = TrainSettings(
        epochs=epochs,
        optimizer=OptimizerSettings(name="adamw", lr=lr),
        schedule=ScheduleSettings(name="constant"),
        seed=seed,
    )
    experiment = BatchNormExperiment(
        out=out,
        size=size,
        lr=lr,
        seed=seed,
        num_train=len(train),
        num_valid=len(valid),
        share_of_labels=float(valid.labels_N.mean()),
        epochs=tuple(_train(train, valid, settings, size.batch_size, console)),
    )
    _write(experiment)
    return experiment


def _train(
    train: CellImages, valid: CellImages, settings: TrainSettings, batch_size: int, console: Console
) -> list[EpochScores]:
    training, clean, validation = (
        MemorySource(cells.images_NHWC, cells.labels_N, batch_size=batch_size, seed=settings.seed, drop_last=drop_last)
        for cells, drop_last in ((train, True), (train, False), (valid, False))
    )
    with console.progress(settings.epochs * len(training), "training", "step") as bar:
        return train_four_ways(
            build_model(MODEL_NAME, settings.num_classes, seed=settings.seed),
            training,
            clean,
            validation,
            settings,
            train.normalization(),
            load_augmentation(AUGMENTATION),
            torch.device("cpu"),
            on_step=bar.update,
        )


def _write(experiment: BatchNormExperiment) -> None:
    out = experiment.out
    write_text(out / "batchnorm.json", json.dumps(experiment.to_dict(), indent=2) + "\n")
    write_text(out / "batchnorm.csv", _csv_text(experiment.epochs))
    figure = draw_batchnorm(
        experiment.epochs,
        share_of_labels=experiment.share_of_labels,
        title=f"The same weights evaluated four ways ({MODEL_NAME}, generated cells, seed {experiment.seed})",
        stamp=DISJOINT_STAMP,
    )
    save_figure(figure, out / "batchnorm.png")


def _csv_text(epochs: Sequence[EpochScores]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["epoch", "way", *_CSV_FIELDS, "one_class"])
    for scores in epochs:
        for way in WAYS:
            found = getattr(scores, way)
            values = [getattr(found, name) for name in _CSV_FIELDS]
            writer.writerow([scores.epoch, way, *values, int(found.one_class_warning is not None)])
    return buffer.getvalue()


CROP_PX = 270
"""Centre crop of the first report, which contains every cell."""
VALID_FOLD = 2


@dataclass(frozen=True)
class CellImages:
    """RGB images, uint8 (N,S,S,3), and their labels: 0 hem, 1 all."""

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels_N)

    def normalization(self) -> Normalization:
        """Return mean and standard deviation of all pixels, per channel."""
        pixels = self.images_NHWC.reshape(-1, 3) / GREY_LEVELS
        return Normalization.of(pixels.mean(axis=0), pixels.std(axis=0))


def plan_cells(
    num_subjects: int, train_cells_per_subject: int, valid_cells_per_subject: int
) -> tuple[list[SampleCell], list[SampleCell]]:
    """Return cells for training, and those of a third of the subjects for validation.

    From 9 subjects on, both parts hold both classes.

    Raises
    ------
    UsageError
        If there are fewer than 2 subjects, or no cells.
    """
    train = [cell for cell in plan_sample(num_subjects, train_cells_per_subject) if cell.fold != VALID_FOLD]
    valid = [cell for cell in plan_sample(num_subjects, valid_cells_per_subject) if cell.fold == VALID_FOLD]
    return train, valid


def draw_cells(
    cells: list[SampleCell],
    *,
    seed: int,
    size_px: int,
    num_threads: int = 2,
    progress: Callable[[int], object] | None = None,
) -> CellImages:
    """Generate cells, crop them to the centre and shrink them; `progress` is called with 1 after each image."""

    def draw(cell: SampleCell) -> NDArray[np.uint8]:
        frame_HWC = generate_cell(seed, cell.subject_number, cell.cell_index, cell.label)
        margin_px = (len(frame_HWC) - CROP_PX) // 2
        inner = slice(margin_px, margin_px + CROP_PX)
        return resize_area(np.ascontiguousarray(frame_HWC[inner, inner]), size_px)

    images = []
    with ThreadPoolExecutor(num_threads) as pool:
        for image_HWC in pool.map(draw, cells):
            images.append(image_HWC)
            if progress is not None:
                progress(1)
    return CellImages(np.stack(images), np.array([cell.label for cell in cells], np.int64))


class MemorySource:
    """A :class:`~leukemia_models.devices.normalization.BatchSource` of arrays.

    Parameters
    ----------
    images_NHWC : uint8 array (N,S,S,3)
        RGB.
    labels_N : int64 array (N,)
        Classes.
    seed : int, optional
        Of the order of each epoch; None keeps the order of the arrays.
    drop_last : bool
        Leave out a last batch that is not full.

    Raises
    ------
    UsageError
        If an argument has a wrong shape or dtype, or there are not as many labels as images.
    """

    def __init__(
        self,
        images_NHWC: NDArray[np.uint8],
        labels_N: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        images_NHWC, labels_N = np.asarray(images_NHWC), as_labels(labels_N, "labels_N")
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or labels_N.ndim != 1:
            raise UsageError(
                f"images_NHWC must be uint8 (N,S,S,3) and labels_N (N,), got {images_NHWC.dtype} {images_NHWC.shape} "
                f"and {labels_N.shape}"
            )
        if len(images_NHWC) != len(labels_N):
            raise UsageError(f"{len(images_NHWC)} images but {len(labels_N)} labels")
        indices_N = np.arange(len(labels_N), dtype=np.int64)
        self._images_NHWC, self._labels_N = images_NHWC, labels_N
        self._plan = BatchPlan(indices_N, batch_size=batch_size, seed=seed, drop_last=drop_last)

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_step` on, on the CPU."""
        for indices_B, mask_B, occurrences_B in self._plan.batches(epoch, first_step):
            labels_B = torch.from_numpy(self._labels_N[indices_B])
            yield Batch(
                torch.from_numpy(self._images_NHWC[indices_B]),
                labels_B,
                torch.from_numpy(indices_B.copy()),
                torch.from_numpy(mask_B),
                torch.from_numpy(occurrences_B.copy()),
                labels_B,
            )
