"""Choose the final network of a trained run and evaluate it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.records.fingerprint import canonical_json
from leukemia_models.evaluation.calibration import Calibration, fit_calibration
from leukemia_models.evaluation.predictions import Predictions, evaluated_samples
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.evaluation.settings import NO_TTA, REESTIMATED, RUNNING
from leukemia_models.reports.results import Results
from leukemia_models.runs.evaluate_part import (
    Predictor,
    evaluate_part,
    evaluate_predictions,
    part_predictions,
    require_same_data,
)
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import FINAL, RunFolder
from leukemia_models.runs.run_split import TEST, TRAIN, VALID, SplitCache
from leukemia_models.training.batchnorm_report import BatchNormReport, compare_batchnorm
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.training_plan import EvaluationSettings

MAX_ESTIMATION_IMAGES = 4096
"""Training images for BatchNorm statistics; a few thousand suffice (arXiv 2105.07576, section 3)."""
MAX_LEFT_OUT_IMAGES = 1024
LEFT_OUT_FRACTION = 0.1
LEFT_OUT = "training images left out of the estimate"


def prepare_predictor(
    base: Predictor, data: SplitCache, settings: EvaluationSettings
) -> tuple[Predictor, Predictions | None]:
    """Decide how a trained network is evaluated: BatchNorm statistics, views, temperature and threshold.

    Parameters
    ----------
    base : Predictor
        With the weights of ``best`` or ``last`` of a run. Its model gets the chosen statistics.

    Returns
    -------
    predictor : Predictor
        The final network; ``checkpoint.info.judging`` holds all decisions.
    valid_predictions : Predictions or None
        Of the labelled validation samples; None if there are none.

    Raises
    ------
    RunError
        If the checkpoint was made with another cache or split.
    """
    checkpoint = base.checkpoint
    require_same_data(checkpoint, data)
    plain = replace(base, tta=NO_TTA)
    report = None if settings.batchnorm == RUNNING else _choose_batchnorm(plain, data, settings.batchnorm)
    predictor, valid = replace(base, tta=settings.tta), data.labelled_indices(VALID)
    predictions = predictor.predict_samples(data, valid, "calibrate on valid") if len(valid) else None
    calibration = _calibration(predictions, data, checkpoint.info) if predictions is not None else None
    decided: dict[str, Any] = {
        "checkpoint": checkpoint.path.stem,
        "tta": settings.tta.to_dict(),
        "batchnorm": {"chosen": RUNNING} if report is None else {**report.to_dict(), "text": report.text()},
        "calibration": calibration.to_dict() if calibration else None,
    }
    prepared = Checkpoint(
        checkpoint.path,
        # As it is read back from JSON, so that a later evaluation writes the same files.
        replace(checkpoint.info, judging=json.loads(canonical_json(decided))),
        # The weights below are already the averaged ones.
        replace(checkpoint.state, optimizer_state=None, average=None, progress=None),
        {name: value.detach().cpu().contiguous() for name, value in base.model.state_dict().items()},
    )
    return replace(predictor, checkpoint=prepared), predictions


def _choose_batchnorm(predictor: Predictor, data: SplitCache, mode: str) -> BatchNormReport | None:
    """Compare running and re-estimated statistics, and load the better ones into the network.

    Returns None if there are too few training images.
    """
    info = predictor.checkpoint.info
    deciding, judged_on = data.labelled_indices(VALID), VALID
    train = np.random.default_rng(info.settings.seed).permutation(data.labelled_indices(TRAIN))
    if len(deciding) == 0:
        num_left_out = int(min(max(LEFT_OUT_FRACTION * len(train), 1), MAX_LEFT_OUT_IMAGES))
        deciding, judged_on, train = train[:num_left_out], LEFT_OUT, train[num_left_out:]
    if len(train) < 2:
        return None
    statistics = predictor.reestimate_batchnorm(data, train[:MAX_ESTIMATION_IMAGES])

    def predict() -> Predictions:
        found = predictor.predict_samples(data, deciding, "compare BatchNorm")
        return found.in_order(info.classes, info.evaluated_classes)

    report = compare_batchnorm(
        predictor.model, statistics, predict, mode=mode, judged_on=judged_on, classes=info.evaluated_classes
    )
    if report.chosen == REESTIMATED:
        statistics.apply(predictor.model)
    return report


def _calibration(predictions: Predictions, data: SplitCache, info: CheckpointInfo) -> Calibration | None:
    """Fit temperature and threshold; None if the validation part holds one class."""
    samples = evaluated_samples(part_predictions(predictions, data, VALID), info.evaluated_classes)
    if len(np.unique(samples.labels_N)) < 2:
        return None
    return fit_calibration(samples, fitted_on=VALID, classes=info.evaluated_classes)


def finalize_run(
    folder: RunFolder,
    data: SplitCache,
    evaluation: EvaluationSettings,
    device: torch.device,
    batch_size: int,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    console: Console = NULL_CONSOLE,
) -> dict[str, Results]:
    """Write ``final.safetensors`` of a trained run, and evaluate it on the validation and the test part.

    Returns
    -------
    dict of str to Results
        Of ``valid`` and ``test`` if they hold labelled images.
    """
    trained = trained_checkpoint(folder)
    base = Predictor.load(trained, device=device, batch_size=batch_size, console=console)
    predictor, predictions = prepare_predictor(base, data, evaluation)
    checkpoint, results = predictor.checkpoint, {}
    save_checkpoint(folder.checkpoint(FINAL), predictor.model, checkpoint.info, checkpoint.state, resumable=False)
    if predictions is not None:
        out_dir = folder.part(VALID)
        results[VALID] = evaluate_predictions(predictions, checkpoint, data, VALID, out_dir, bootstrap=bootstrap)
    if len(data.labelled_indices(TEST)):
        results[TEST] = evaluate_part(predictor, data, TEST, folder.part(TEST), bootstrap=bootstrap)
    return results


def trained_checkpoint(folder: RunFolder) -> Checkpoint:
    """Read the checkpoint of the best epoch, or the last one if nothing was validated.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    best = folder.checkpoint("best")
    checkpoint = load_checkpoint(best if best.is_file() else folder.checkpoint("last"))
    records = checkpoint.state.history.records
    if checkpoint.path == best and records and records[-1].valid_loss is None:
        checkpoint = load_checkpoint(folder.checkpoint("last"))
    if not folder.is_run:
        return checkpoint
    # The run may have been extended after the best epoch.
    now = load_config(folder).settings
    settings = replace(
        checkpoint.info.settings,
        epochs=now.epochs,
        extensions=now.extensions,
        sizes=now.sizes,
        precision=now.precision,
        precision_changes=now.precision_changes,
    )
    return replace(checkpoint, info=replace(checkpoint.info, settings=settings))
