"""What comes after the last epoch: a finished run in, its final checkpoint and its judged parts out."""

from __future__ import annotations

from dataclasses import replace

import torch

from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.splitting.splits import split_numbers
from leukemia_models.judging.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from leukemia_models.planning.judging_settings import JudgingSettings
from leukemia_models.reports.report import Results
from leukemia_models.runs.judge import Watch, judge_part, judge_predictions, unwatched
from leukemia_models.runs.preparation import PreparedNetwork, prepare_network
from leukemia_models.runs.run_files import FINAL, RunFolder, load_config
from leukemia_models.runs.split_cache import TEST, VALID, SplitCache


def finalize_run(
    folder: RunFolder,
    data: SplitCache,
    *,
    judging: JudgingSettings,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    watch: Watch = unwatched,
) -> dict[str, Results]:
    """Write ``final.safetensors``, and judge the validation and the test part with it.

    Parameters
    ----------
    folder : RunFolder
        Of a run whose training is over.
    data : SplitCache
        Its cache and split.
    judging : JudgingSettings
        Test-time augmentation, and how BatchNorm statistics are chosen.
    device : torch.device
        Where to compute; one process does all of it.
    batch_size : int
        Images at a time.
    bootstrap : BootstrapSettings
        How intervals are drawn.
    watch : callable
        Shows progress.

    Returns
    -------
    dict of str to Results
        Of ``valid`` and ``test``, where they hold labelled images.
    """
    prepared = prepare_network(
        trained_checkpoint(folder), data, judging, device=device, batch_size=batch_size, watch=watch
    )
    checkpoint = prepared.checkpoint
    save_checkpoint(folder.checkpoint(FINAL), prepared.model, checkpoint.info, checkpoint.state, resumable=False)
    return {
        part: _judge(prepared, data, part, folder, device, batch_size, bootstrap, watch)
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


def _judge(
    prepared: PreparedNetwork,
    data: SplitCache,
    part: str,
    folder: RunFolder,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings,
    watch: Watch,
) -> Results:
    out_dir = folder.part(part)
    if part == VALID and prepared.valid_predictions is not None:
        return judge_predictions(
            prepared.valid_predictions, prepared.checkpoint, data, part, out_dir, bootstrap=bootstrap
        )
    return judge_part(
        prepared.checkpoint,
        data,
        part,
        out_dir,
        device=device,
        batch_size=batch_size,
        bootstrap=bootstrap,
        watch=watch,
    )


def _has_labels(data: SplitCache, part: str) -> bool:
    labels = data.cache.table.labels[split_numbers(data.codes, part)]
    return bool((labels != UNKNOWN_LABEL).any())
