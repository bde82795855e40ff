"""From the last epoch to the final network and its evaluated parts."""

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
    labelled_indices,
    part_predictions,
    require_same_data,
)
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import FINAL, RunFolder
from leukemia_models.runs.run_split import TEST, VALID, SplitCache
from leukemia_models.training.batchnorm_report import BatchNormReport, compare_batchnorm
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.training_plan import EvaluationSettings

TRAIN = "train"
MAX_ESTIMATION_IMAGES = 4096
"""Of the training part, for BatchNorm: a few thousand are plenty (arXiv 2105.07576, section 3)."""
MAX_LEFT_OUT_IMAGES = 1024
LEFT_OUT_SHARE = 0.1
LEFT_OUT = "training images left out of the estimate"


def prepare_predictor(
    base: Predictor, data: SplitCache, settings: EvaluationSettings
) -> tuple[Predictor, Predictions | None]:
    """Decide how a trained network is evaluated: BatchNorm statistics, views, temperature and threshold.

    Parameters
    ----------
    base : Predictor
        With the weights of ``best`` or ``last`` of a run. Its model is changed: it gets the chosen statistics.
    data : SplitCache
        The run's cache and split.
    settings : EvaluationSettings
        Test-time augmentation, and how BatchNorm statistics are chosen.

    Returns
    -------
    predictor : Predictor
        As it is evaluated and used; ``checkpoint.info.judging`` says all that was decided.
    valid_predictions : Predictions or None
        Of the labelled samples of the validation part; None where there are none.

    Raises
    ------
    RunError
        If the checkpoint was made with another cache or split.
    """
    checkpoint = base.checkpoint
    require_same_data(checkpoint, data)
    plain = replace(base, tta=NO_TTA)
    report = None if settings.batchnorm == RUNNING else _choose_batchnorm(plain, data, settings.batchnorm)
    predictor, valid = replace(base, tta=settings.tta), labelled_indices(data, VALID)
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
        # As it will be read back: what is evaluated now and what is evaluated later then give the same files.
        replace(checkpoint.info, judging=json.loads(canonical_json(decided))),
        # For evaluating only: nothing of the optimizer, and the weights below are those to evaluate already.
        replace(checkpoint.state, optimizer_state=None, average=None, progress=None),
        {name: value.detach().cpu().contiguous() for name, value in base.model.state_dict().items()},
    )
    return replace(predictor, checkpoint=prepared), predictions


def _choose_batchnorm(predictor: Predictor, data: SplitCache, mode: str) -> BatchNormReport | None:
    """Compare running and re-estimated statistics, and leave the network with the chosen ones.

    None where too few training images are there to estimate by some and compare by others.
    """
    info = predictor.checkpoint.info
    deciding, judged_on = labelled_indices(data, VALID), VALID
    train = np.random.default_rng(info.settings.seed).permutation(labelled_indices(data, TRAIN))
    if len(deciding) == 0:
        num_left_out = int(min(max(LEFT_OUT_SHARE * len(train), 1), MAX_LEFT_OUT_IMAGES))
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
    """Fit temperature and threshold; None where the validation part holds one class."""
    samples = evaluated_samples(part_predictions(predictions, data, VALID), info.evaluated_classes)
    if len(np.unique(samples.labels_N)) < 2:
        return None
    return fit_calibration(samples, fitted_on=VALID, classes=info.evaluated_classes)


def finalize_run(
    folder: RunFolder,
    data: SplitCache,
    *,
    evaluation: EvaluationSettings,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    console: Console = NULL_CONSOLE,
) -> dict[str, Results]:
    """Write ``final.safetensors``, and evaluate it on the validation and the test part.

    Parameters
    ----------
    folder : RunFolder
        Of a run whose training is over.
    data : SplitCache
        Its cache and split.
    evaluation : EvaluationSettings
        Test-time augmentation, and how BatchNorm statistics are chosen.
    device : torch.device
        Where to compute; one process does all of it.
    batch_size : int
        Images at a time.
    bootstrap : BootstrapSettings
        How intervals are drawn.
    console : Console
        Shows progress.

    Returns
    -------
    dict of str to Results
        Of ``valid`` and ``test``, where they hold labelled images.
    """
    trained = trained_checkpoint(folder)
    base = Predictor.load(trained, device=device, batch_size=batch_size, console=console)
    predictor, valid_predictions = prepare_predictor(base, data, evaluation)
    checkpoint, results = predictor.checkpoint, {}
    save_checkpoint(folder.checkpoint(FINAL), predictor.model, checkpoint.info, checkpoint.state, resumable=False)
    if valid_predictions is not None:
        results[VALID] = evaluate_predictions(
            valid_predictions, checkpoint, data, VALID, folder.part(VALID), bootstrap=bootstrap
        )
    if len(labelled_indices(data, TEST)):
        results[TEST] = evaluate_part(predictor, data, TEST, folder.part(TEST), bootstrap=bootstrap)
    return results


def trained_checkpoint(folder: RunFolder) -> Checkpoint:
    """Read the checkpoint that a run is evaluated with: the best epoch's, or the last where nothing was validated.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    best = folder.checkpoint("best")
    checkpoint = _told_length(load_checkpoint(best if best.is_file() else folder.checkpoint("last")), folder)
    records = checkpoint.state.history.records
    if checkpoint.path == best and records and records[-1].valid_loss is None:
        return _told_length(load_checkpoint(folder.checkpoint("last")), folder)
    return checkpoint


def _told_length(checkpoint: Checkpoint, folder: RunFolder) -> Checkpoint:
    """Let a checkpoint tell the run's length of today: the best epoch may lie before an extension."""
    if not folder.is_run:
        return checkpoint
    now = load_config(folder).settings
    settings = replace(checkpoint.info.settings, epochs=now.epochs, extensions=now.extensions)
    return replace(checkpoint, info=replace(checkpoint.info, settings=settings))
