"""Judge a network on one part of a split and write down the result, with the split's stamp on everything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from leukemia_data.cache import Cache
from leukemia_data.errors import UsageError
from leukemia_data.loader import BatchStream
from leukemia_data.record import UNKNOWN_LABEL
from leukemia_data.residency import MAPPED
from leukemia_data.splits import SPLIT_NAMES, LeakCheck, SplitCodes, SplitSpec, check_leaks, split_numbers
from leukemia_models.checkpoint import Checkpoint
from leukemia_models.figures import draw_confusion, save_figure
from leukemia_models.metrics import classification_metrics, majority_baseline, subjects_per_class
from leukemia_models.predict import predict_probabilities
from leukemia_models.predictions import Predictions, predictions_table, write_predictions
from leukemia_models.report import Results, SplitCounts, SplitSummary, write_results, write_summary

HISTORY_FIGURE_FROM_PART = "../history.png"
UNSEEN_PARTS = ("valid", "test")
SEEN_WARNING = (
    "The network was trained on judged images: these numbers say how well it remembers, not how well it judges."
)


@dataclass(frozen=True)
class SplitCache:
    """A cache with the split that a run made of it."""

    cache: Cache
    spec: SplitSpec
    codes: SplitCodes

    @cached_property
    def leaks(self) -> LeakCheck:
        """What stands on two sides of the split."""
        return check_leaks(self.codes, self.cache.table)

    def numbers(self, part: str) -> NDArray[np.int64]:
        """Sample numbers of a part; never empty.

        Raises
        ------
        UsageError
            If the part is unknown or holds no image.
        """
        numbers = split_numbers(self.codes, part)
        if len(numbers) == 0:
            raise UsageError(f"the part {part!r} of split {self.spec} holds no image")
        return numbers

    def summary(self, judged: str) -> SplitSummary:
        """The split as reports describe it."""
        table = self.cache.table
        subjects = np.array(table.subject_texts, object)
        parts = {}
        for name in (*SPLIT_NAMES, *({judged} - set(SPLIT_NAMES))):
            numbers = split_numbers(self.codes, name)
            labels = table.labels[numbers]
            counts = tuple(int((labels == label).sum()) for label in range(len(self.cache.manifest.classes)))
            parts[name] = SplitCounts(counts, subjects_per_class(labels, subjects[numbers].tolist()))
        return SplitSummary(str(self.spec), self.leaks, judged, parts)


def predict_part(
    checkpoint: Checkpoint,
    data: SplitCache,
    part: str,
    *,
    device: torch.device,
    batch_size: int,
) -> Predictions:
    """Predict every sample of a part, in the order of the sample numbers."""
    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    with BatchStream(data.cache, data.numbers(part), batch_size=batch_size, device=device, residency=MAPPED) as stream:
        return predict_probabilities(model, stream.epoch(0), checkpoint.info.normalization, device)


def save_part_predictions(path: Path, predictions: Predictions, data: SplitCache, part: str) -> None:
    """Write ``id, subject, label, split, probability, prediction, stamp`` of a part as CSV."""
    write_predictions(path, part_predictions(predictions, data, part))


def part_predictions(predictions: Predictions, data: SplitCache, part: str) -> pd.DataFrame:
    """Join the predictions of a part with what the cache knows of its samples; the last column is the split's stamp."""
    table = data.cache.table
    splits = [part] * len(table)
    classes = data.cache.manifest.classes
    rows = predictions_table(predictions, table.id_texts, table.subject_texts, splits, classes)
    return rows.assign(stamp=data.leaks.stamp)


def judge_part(
    checkpoint: Checkpoint,
    data: SplitCache,
    part: str,
    out_dir: Path,
    *,
    device: torch.device,
    batch_size: int,
) -> Results:
    """Judge a checkpoint on a part and write results, summary, confusion matrix and predictions into `out_dir`.

    Samples of the part without a label are predicted, but not judged.

    Raises
    ------
    UsageError
        If no sample of the part has a label.
    """
    predictions = predict_part(checkpoint, data, part, device=device, batch_size=batch_size)
    labelled = predictions.labels_N != UNKNOWN_LABEL
    if not labelled.any():
        raise UsageError(f"no image of the part {part!r} has a label to judge by: use `ltrain predict`")
    labels, classes = predictions.labels_N[labelled], checkpoint.info.classes
    epoch = checkpoint.state.history.best if checkpoint.path.stem == "best" else None
    results = Results(
        model_name=checkpoint.info.model_name,
        classes=classes,
        settings={
            "size_px": checkpoint.info.size_px,
            "recipe": checkpoint.info.recipe["name"],
            **checkpoint.info.details,
            **checkpoint.info.settings.to_dict(),
        },
        split=data.summary(part),
        epoch=epoch.epoch if epoch is not None else checkpoint.state.epochs_done,
        metrics=classification_metrics(labels, predictions.probabilities_NK[labelled], classes),
        baseline=majority_baseline(labels),
        warnings=(SEEN_WARNING,) if part not in UNSEEN_PARTS else (),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    title = f"{results.model_name}, {part} images, epoch {results.epoch}"
    figure = draw_confusion(results.metrics.confusion, classes, title=title, stamp=results.split.stamp)
    save_figure(figure, out_dir / "confusion.png")
    save_part_predictions(out_dir / "predictions.csv", predictions, data, part)
    write_results(out_dir / "results.json", results)
    write_summary(out_dir / "summary.md", results, ("confusion.png", HISTORY_FIGURE_FROM_PART))
    return results
