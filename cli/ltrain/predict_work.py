"""The part of ``ltrain predict`` that needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
import torch

from cli.ltrain.devices import choose_device
from cli.ltrain.run_data import open_run_cache, split_of_run
from cli.output import print_json, print_note
from leukemia_data.errors import ImageError, RunError, SourceError
from leukemia_data.file_stream import stream_files
from leukemia_data.recipe import Recipe
from leukemia_data.record import Record
from leukemia_data.source import list_images
from leukemia_models.checkpoint import Checkpoint, load_checkpoint
from leukemia_models.judge import part_predictions, predict_part
from leukemia_models.predict import predict_probabilities
from leukemia_models.predictions import predictions_table, write_predictions, write_submission
from leukemia_models.run_files import RunFolder, load_config


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The command line."""

    run: Path
    images: tuple[Path, ...]
    part: str
    which: str
    cache: Path | None
    out: Path | None
    submission: Path | None
    root: Path | None
    batch_size: int
    device: str
    as_json: bool


@dataclass(frozen=True)
class _Predicted:
    """One row per predicted image, and the ids of images without a prediction."""

    table: pd.DataFrame
    failures: Sequence[str] = ()


def predict(request: PredictRequest) -> None:
    """Predict a part of the run's split or image files, and write the tables."""
    folder = RunFolder(request.run)
    checkpoint = load_checkpoint(folder.checkpoint(request.which))
    written = request.out if request.out is not None else request.run / "predictions.csv"
    for path in (written, request.submission):
        if path is not None and not path.resolve().parent.is_dir():
            raise SourceError(f"cannot write {path}: its folder does not exist")
    device = choose_device(request.device)
    found = (
        _predict_files(request, checkpoint, device) if request.images else _predict_part(request, checkpoint, device)
    )
    table = found.table
    write_predictions(written, table)
    if request.submission is not None:
        write_submission(request.submission, table)
    counts = {name: int((table["prediction"] == label).sum()) for label, name in enumerate(checkpoint.info.classes)}
    if request.as_json:
        print_json(
            {"out": str(written), "num_predicted": len(table), "predicted": counts, "failed": list(found.failures)}
        )
    else:
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        click.echo(f"{len(table):,} images predicted ({said}): {written}")
    if found.failures:
        raise RunError(
            f"{len(found.failures)} of {len(found.failures) + len(table)} images could not be used "
            "and have no prediction (listed above)"
        )


def _predict_part(request: PredictRequest, checkpoint: Checkpoint, device: torch.device) -> _Predicted:
    folder = RunFolder(request.run)
    config = load_config(folder)
    opened = open_run_cache(config, request.cache)
    data = split_of_run(folder, config, opened)
    predictions = predict_part(checkpoint, data, request.part, device=device, batch_size=request.batch_size)
    return _Predicted(part_predictions(predictions, data, request.part))


def _predict_files(request: PredictRequest, checkpoint: Checkpoint, device: torch.device) -> _Predicted:
    records = list_images(request.images, root=request.root)
    failures: list[str] = []

    def on_failure(record: Record, error: ImageError) -> None:
        failures.append(record.record_id)
        print_note(f"{record.path}: {error}")

    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    batches = stream_files(
        records,
        Recipe.from_dict(checkpoint.info.recipe),
        checkpoint.info.size_px,
        batch_size=request.batch_size,
        num_threads=os.cpu_count() or 1,
        on_failure=on_failure,
    )
    try:
        predictions = predict_probabilities(model, batches, checkpoint.info.normalization, device)
    except RunError as error:
        if len(failures) == len(records):
            raise RunError(f"none of the {len(records)} images could be used (listed above)") from error
        raise
    table = predictions_table(
        predictions,
        [record.record_id for record in records],
        [record.subject for record in records],
        [record.split for record in records],
        checkpoint.info.classes,
    )
    return _Predicted(table, failures)
