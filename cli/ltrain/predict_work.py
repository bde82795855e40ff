"""The part of ``ltrain predict`` that needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from cli.console import CONSOLE
from cli.output import print_json, print_note, print_text
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.errors import RunError, SourceError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.image_rows import list_image_rows
from leukemia_data.stores.url import Location
from leukemia_models.devices.precision import choose_device
from leukemia_models.evaluation.predict import Tta
from leukemia_models.evaluation.predictions import write_predictions
from leukemia_models.runs.evaluate_part import part_predictions, predict_part
from leukemia_models.runs.open_run import (
    chosen_tta,
    known_samples_of_run,
    open_checkpoint,
    open_run_cache,
    split_of_run,
)
from leukemia_models.runs.predict_files import (
    predict_files,
    predicted_counts,
    require_all_predicted,
    require_not_replaced,
    table_of_files,
    write_submissions,
)
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import last_run
from leukemia_models.runs.start_weights import seen_by_checkpoint
from leukemia_models.training.checkpoint import Checkpoint


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
    for_excel: bool
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
    """One row per image or listed row, the ids of those without a prediction, and what a reader must know."""

    table: pd.DataFrame
    failures: Sequence[str] = ()
    num_known: Mapping[str, int] = field(default_factory=dict)
    cautions: Sequence[str] = ()
    refusal: SourceError | None = None


def predict(request: PredictRequest) -> None:
    """Predict a part of the run's split or image files, and write the tables."""
    checkpoint = open_checkpoint(last_run(request.run), request.which, CONSOLE)
    written = _written(request)
    for path in (written, request.submission):
        if path is not None and not path.resolve().parent.is_dir():
            raise SourceError(f"cannot write {path}: its folder does not exist")
    require_not_replaced((written, request.submission), request.images)
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    network = _Network(checkpoint, tta, choose_device(request.device), request.batch_size)
    found = _predict_files(request, network) if request.images else _predict_part(request, network)
    write_predictions(written, found.table, for_excel=request.for_excel)
    if request.submission is not None and found.refusal is None:
        write_submissions({request.submission: found.table}, checkpoint.info.positive)
    _tell(request, network, found, written)
    if found.refusal is not None:
        raise found.refusal
    if found.failures:
        raise RunError(
            f"{len(found.failures)} of {len(found.table)} images could not be used "
            "and have no prediction (listed above)"
        )


def _written(request: PredictRequest) -> Path:
    return request.out if request.out is not None else request.run / "predictions.csv"


def _predict_part(request: PredictRequest, network: _Network) -> _Predicted:
    folder = last_run(request.run)
    config = load_config(folder)
    stage = LocalCopiesChoice(request.stage_dir, request.stage_gb)
    with open_run_cache(config, request.cache, stage) as cache:
        data = split_of_run(folder, config, cache, CONSOLE)
        predictions = predict_part(
            network.checkpoint,
            data,
            request.part,
            device=network.device,
            batch_size=network.batch_size,
            tta=network.tta,
            console=CONSOLE,
        )
        return _Predicted(part_predictions(predictions, data, request.part, network.checkpoint.info.positive))


def _predict_files(request: PredictRequest, network: _Network) -> _Predicted:
    rows = list_image_rows(
        request.images,
        root=request.root,
        allow_outside=request.allow_outside,
        need_files=request.submission is not None,
    )
    require_not_replaced((_written(request), request.submission), [row.record.path for row in rows])
    stage = LocalCopiesChoice(request.stage_dir, request.stage_gb)
    known = known_samples_of_run(last_run(request.run), network.checkpoint, request.cache, stage)
    found = predict_files(
        rows,
        network.checkpoint,
        device=network.device,
        batch_size=network.batch_size,
        tta=network.tta,
        console=CONSOLE,
    )
    info = network.checkpoint.info
    joined = table_of_files(found, known, info.classes, info.positive, seen=seen_by_checkpoint(info))
    failures = [rows[number].record.record_id for number in found.problems]
    refusal = None
    if request.submission is not None:
        try:
            require_all_predicted(rows, found.problems)
        except SourceError as error:
            refusal = error
    return _Predicted(joined.table, failures, joined.num_known, joined.cautions, refusal)


def _tell(request: PredictRequest, network: _Network, found: _Predicted, written: Path) -> None:
    classes = network.checkpoint.info.classes
    counts = predicted_counts(found.table, classes)
    num_predicted = len(found.table) - len(found.failures)
    for text in found.cautions:
        print_note(f"caution: {text}")
    if request.as_json:
        print_json(
            {
                "out": str(written),
                "checkpoint": str(network.checkpoint.path),
                "tta": network.tta.to_dict(),
                "num_predicted": num_predicted,
                "predicted": counts,
                "failed": list(found.failures),
                "known": dict(found.num_known),
                "cautions": list(found.cautions),
            }
        )
        return
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    shown = f", each shown as {network.tta.description}" if network.tta.num_views > 1 else ""
    print_text(f"{num_predicted:,} images predicted ({said}{shown}): {written}")
