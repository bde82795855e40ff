"""The part of ``ltrain predict`` that needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from cli.ltrain.devices import choose_device
from cli.ltrain.file_predictions import predict_files
from cli.ltrain.judging_progress import watched
from cli.ltrain.run_checkpoint import chosen_tta, open_checkpoint
from cli.ltrain.run_data import open_run_cache, split_of_run
from cli.output import print_json, print_note, print_text
from cli.stage_options import StageChoice
from leukemia_data.errors import RunError, SourceError
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.own_labels import others_text, own_labels
from leukemia_data.sources.source import find_images_to_predict
from leukemia_data.storage.url import Location
from leukemia_models.inference.tta import Tta
from leukemia_models.judging.predictions import predictions_table, write_predictions, write_submission
from leukemia_models.learning.checkpoint import Checkpoint
from leukemia_models.runs.judge import part_predictions, predict_part
from leukemia_models.runs.run_files import last_run, load_config


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The command line."""

    run: Path
    images: tuple[ImagePlace, ...]
    part: str
    which: str
    tta: str | None
    tta_average: str | None
    cache: Location | None
    stage_dir: Path | None
    stage_gb: float | None
    out: Path | None
    submission: Path | None
    root: ImagePlace | None
    allow_outside: bool
    batch_size: int
    device: str
    as_json: bool


@dataclass(frozen=True)
class _Network:
    """A run's network, and how it is asked."""

    checkpoint: Checkpoint
    tta: Tta
    device: torch.device
    batch_size: int


@dataclass(frozen=True)
class _Predicted:
    """One row per predicted image, and the ids of images without a prediction."""

    table: pd.DataFrame
    failures: Sequence[str] = ()


def predict(request: PredictRequest) -> None:
    """Predict a part of the run's split or image files, and write the tables."""
    checkpoint = open_checkpoint(last_run(request.run), request.which)
    written = request.out if request.out is not None else request.run / "predictions.csv"
    for path in (written, request.submission):
        if path is not None and not path.resolve().parent.is_dir():
            raise SourceError(f"cannot write {path}: its folder does not exist")
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    network = _Network(checkpoint, tta, choose_device(request.device), request.batch_size)
    found = _predict_files(request, network) if request.images else _predict_part(request, network)
    write_predictions(written, found.table)
    if request.submission is not None:
        write_submission(request.submission, found.table, checkpoint.info.positive)
    _tell(request, network, found, written)
    if found.failures:
        raise RunError(
            f"{len(found.failures)} of {len(found.failures) + len(found.table)} images could not be used "
            "and have no prediction (listed above)"
        )


def _predict_part(request: PredictRequest, network: _Network) -> _Predicted:
    folder = last_run(request.run)
    config = load_config(folder)
    stage = StageChoice(request.stage_dir, request.stage_gb)
    with open_run_cache(config, request.cache, stage) as cache:
        data = split_of_run(folder, config, cache)
        predictions = predict_part(
            network.checkpoint,
            data,
            request.part,
            device=network.device,
            batch_size=network.batch_size,
            tta=network.tta,
            watch=watched,
        )
        return _Predicted(part_predictions(predictions, data, request.part, network.checkpoint.info.positive))


def _predict_files(request: PredictRequest, network: _Network) -> _Predicted:
    info = network.checkpoint.info
    images = find_images_to_predict(request.images, root=request.root, allow_outside=request.allow_outside)
    records, others = own_labels(images, info.classes)
    if others:
        print_note(others_text(others, info.classes))
    found = predict_files(
        records, network.checkpoint, device=network.device, batch_size=network.batch_size, tta=network.tta
    )
    table = predictions_table(
        found.predictions,
        [record.record_id for record in records],
        [record.subject for record in records],
        [record.split for record in records],
        info.classes,
        info.positive,
    )
    return _Predicted(table, [record.record_id for record in found.failures])


def _tell(request: PredictRequest, network: _Network, found: _Predicted, written: Path) -> None:
    classes = network.checkpoint.info.classes
    counts = {name: int((found.table["prediction"] == name).sum()) for name in classes}
    if request.as_json:
        print_json(
            {
                "out": str(written),
                "checkpoint": str(network.checkpoint.path),
                "tta": network.tta.to_dict(),
                "num_predicted": len(found.table),
                "predicted": counts,
                "failed": list(found.failures),
            }
        )
        return
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    shown = f", each shown as {network.tta.description}" if network.tta.num_views > 1 else ""
    print_text(f"{len(found.table):,} images predicted ({said}{shown}): {written}")
