"""From the last epoch to the final network and its evaluated parts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.records.fingerprint import canonical_json
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import share_size
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.evaluation.calibration import Calibration, fit_calibration
from leukemia_models.evaluation.predict import NO_TTA, Tta
from leukemia_models.evaluation.predictions import Predictions, evaluated_samples
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.results import Results
from leukemia_models.runs.evaluate_part import (
    evaluate_part,
    evaluate_predictions,
    part_predictions,
    predict_indices,
    require_same_data,
)
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import FINAL, RunFolder
from leukemia_models.runs.run_split import TEST, VALID, SplitCache
from leukemia_models.training.batchnorm_report import REESTIMATED, RUNNING, BatchNormReport, compare_batchnorm
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, reestimate_batchnorm
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.training_plan import EvaluationSettings

TRAIN = "train"
MAX_ESTIMATION_IMAGES = 4096
"""Of the training part, for BatchNorm: a few thousand are plenty (arXiv 2105.07576, section 3)."""
MAX_LEFT_OUT_IMAGES = 1024
LEFT_OUT_SHARE = 0.1
LEFT_OUT = "training images left out of the estimate"


@dataclass(frozen=True, eq=False)
class PreparedNetwork:
    """A network as it is judged and used.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its weights with the chosen BatchNorm statistics, on the CPU; ``info.judging`` says all that was decided.
    model : torch.nn.Module
        The same on the device.
    valid_predictions : Predictions or None
        What it says of the validation part; None where there is none.
    """

    checkpoint: Checkpoint
    model: nn.Module
    valid_predictions: Predictions | None


def prepare_network(
    checkpoint: Checkpoint,
    data: SplitCache,
    judging: EvaluationSettings,
    *,
    device: torch.device,
    batch_size: int,
    console: Console = NULL_CONSOLE,
) -> PreparedNetwork:
    """Decide how a trained network answers.

    Parameters
    ----------
    checkpoint : Checkpoint
        ``best`` or ``last`` of a run.
    data : SplitCache
        The run's cache and split.
    judging : EvaluationSettings
        Test-time augmentation, and how BatchNorm statistics are chosen.
    device : torch.device
        Where to compute.
    batch_size : int
        Images at a time.
    console : Console
        Shows progress.

    Raises
    ------
    RunError
        If the checkpoint was made with another cache or split.
    """
    require_same_data(checkpoint, data)
    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    bench = _Bench(model, checkpoint.info, data, device, batch_size, console)
    report = None if judging.batchnorm == RUNNING else _choose_batchnorm(bench, judging.batchnorm)
    valid = bench.labelled(VALID)
    predictions = bench.predict(valid, "calibrate on valid", judging.tta) if len(valid) else None
    calibration = _calibration(predictions, data, checkpoint.info) if predictions is not None else None
    decided: dict[str, Any] = {
        "checkpoint": checkpoint.path.stem,
        "tta": judging.tta.to_dict(),
        "batchnorm": {"chosen": RUNNING} if report is None else {**report.to_dict(), "text": report.text()},
        "calibration": calibration.to_dict() if calibration else None,
    }
    prepared = Checkpoint(
        checkpoint.path,
        # As it will be read back: what is judged now and what is judged later then give the same files.
        replace(checkpoint.info, judging=json.loads(canonical_json(decided))),
        # For judging only: nothing of the optimizer, and the weights below are those to judge by already.
        replace(checkpoint.state, optimizer_state=None, average=None, progress=None),
        {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
    )
    return PreparedNetwork(prepared, model, predictions)


@dataclass(frozen=True, eq=False)
class _Bench:
    """The network on its device, and the images that decide about it."""

    model: nn.Module
    info: CheckpointInfo
    data: SplitCache
    device: torch.device
    batch_size: int
    console: Console

    def labelled(self, part: str) -> NDArray[np.int64]:
        """Numbers of the part's samples that have a label; may be empty."""
        numbers = split_indices(self.data.codes, part)
        labelled: NDArray[np.int64] = numbers[self.data.cache.table.labels[numbers] != UNKNOWN_LABEL]
        return labelled

    def shuffled(self, part: str) -> NDArray[np.int64]:
        """The same in an order that the run's seed decides."""
        numbers = self.labelled(part)
        shuffled: NDArray[np.int64] = np.random.default_rng(self.info.settings.seed).permutation(numbers)
        return shuffled

    def predict(self, indices_N: NDArray[np.int64], purpose: str, tta: Tta = NO_TTA) -> Predictions:
        """Ask the network as it is now."""
        return predict_indices(
            self.model,
            self.data,
            indices_N,
            self.info.normalization,
            device=self.device,
            batch_size=self.batch_size,
            tta=tta,
            console=self.console,
            purpose=purpose,
        )

    def reestimate(self, indices_N: NDArray[np.int64]) -> BatchNormStatistics:
        """Measure BatchNorm statistics on images as they are cached."""
        # What reaches a layer depends on the batches of those before it: as large as in training.
        whole = int(self.info.details.get("batch_size", self.batch_size))
        batch_size = min(share_size(whole, self.info.settings.accumulate), len(indices_N))
        with BatchStream(
            self.data.cache, indices_N, batch_size=batch_size, device=self.device, residency=MAPPED
        ) as stream:
            batches = tracked(stream.epoch(0), self.console, len(stream), "re-estimate BatchNorm", "batch")
            return reestimate_batchnorm(self.model, batches, self.info.normalization, self.device)


def _choose_batchnorm(bench: _Bench, mode: str) -> BatchNormReport | None:
    """Compare running and re-estimated statistics, and leave the network with the chosen ones.

    None where too few training images are there to estimate by some and judge by others.
    """
    deciding, judged_on, train = bench.labelled(VALID), VALID, bench.shuffled(TRAIN)
    if len(deciding) == 0:
        num_left_out = int(min(max(LEFT_OUT_SHARE * len(train), 1), MAX_LEFT_OUT_IMAGES))
        deciding, judged_on, train = train[:num_left_out], LEFT_OUT, train[num_left_out:]
    if len(train) < 2:
        return None
    statistics = bench.reestimate(train[:MAX_ESTIMATION_IMAGES])
    report = compare_batchnorm(
        bench.model,
        statistics,
        lambda: bench.predict(deciding, "compare BatchNorm").in_order(bench.info.classes, bench.info.evaluated_classes),
        mode=mode,
        judged_on=judged_on,
        classes=bench.info.evaluated_classes,
    )
    if report.chosen == REESTIMATED:
        statistics.apply(bench.model)
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
    judging: EvaluationSettings,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    console: Console = NULL_CONSOLE,
) -> dict[str, Results]:
    """Write ``final.safetensors``, and judge the validation and the test part with it.

    Parameters
    ----------
    folder : RunFolder
        Of a run whose training is over.
    data : SplitCache
        Its cache and split.
    judging : EvaluationSettings
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
    prepared = prepare_network(
        trained_checkpoint(folder), data, judging, device=device, batch_size=batch_size, console=console
    )
    checkpoint = prepared.checkpoint
    save_checkpoint(folder.checkpoint(FINAL), prepared.model, checkpoint.info, checkpoint.state, resumable=False)
    return {
        part: _evaluate(prepared, data, part, folder, device, batch_size, bootstrap, console)
        for part in (VALID, TEST)
        if _has_labels(data, part)
    }


def trained_checkpoint(folder: RunFolder) -> Checkpoint:
    """Read the checkpoint that a run is judged by: the best epoch's, or the last where nothing was validated.

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


def _evaluate(
    prepared: PreparedNetwork,
    data: SplitCache,
    part: str,
    folder: RunFolder,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings,
    console: Console,
) -> Results:
    out_dir = folder.part(part)
    if part == VALID and prepared.valid_predictions is not None:
        return evaluate_predictions(
            prepared.valid_predictions, prepared.checkpoint, data, part, out_dir, bootstrap=bootstrap
        )
    return evaluate_part(
        prepared.checkpoint,
        data,
        part,
        out_dir,
        device=device,
        batch_size=batch_size,
        bootstrap=bootstrap,
        console=console,
    )


def _has_labels(data: SplitCache, part: str) -> bool:
    labels = data.cache.table.labels[split_indices(data.codes, part)]
    return bool((labels != UNKNOWN_LABEL).any())
