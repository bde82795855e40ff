"""Train one run: streams, network and recorder joined, then evaluated."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.files.lock import lock_run
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.seen_samples import SeenSamples
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import balanced_weights, micro_batch_size
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.distributed import Ranks
from leukemia_models.networks.registry import build_model, count_parameters
from leukemia_models.reports.results import Results, start_cautions
from leukemia_models.runs.begin_runs import PreparedRun, checkpoint_info
from leukemia_models.runs.finalize import finalize_run
from leukemia_models.runs.preflight import explained_faults
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_config import RunConfig, TrainingProcess
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import TRAIN, VALID
from leukemia_models.runs.start_weights import seen_by_run
from leukemia_models.training.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    load_training_weights,
    load_weights_file,
)
from leukemia_models.training.checkpoint_file import checkpoint_bytes
from leukemia_models.training.checkpoint_match import require_same_network, require_same_run
from leukemia_models.training.run_state import TrainState
from leukemia_models.training.train import Observer, fit
from leukemia_models.training.training_plan import CLASS_BALANCED, SCRATCH, SUBJECT_BALANCED, EvaluationSettings

CLEAN_IMAGES = 512
"""Plenty for a mean and a variance, and little beside an epoch."""


def train_stream(run: PreparedRun, process: TrainingProcess) -> BatchStream:
    """Return the training part, shuffled; each rank gets its part of every batch."""
    config, indices, ranks = run.config, run.data.indices(TRAIN), process.ranks
    return BatchStream(
        run.data.cache,
        indices,
        batch_size=config.batch_size,
        seed=config.settings.seed,
        weights_N=_weights(config.sampling, run.data.cache.table, indices),
        drop_last=True,
        rank=ranks.rank,
        world_size=ranks.world_size,
        micro_batches_per_rank=config.settings.accumulate,
        device=process.device,
        num_threads=process.options.num_threads,
        residency=process.options.residency,
        num_processes=ranks.processes_here,
    )


def valid_stream(run: PreparedRun, process: TrainingProcess) -> BatchStream | None:
    """Return the validation part, in its own order; None where the split has none."""
    indices = split_indices(run.data.codes, VALID)
    if not len(indices):
        return None
    return _ordered_stream(run, process, indices, run.config.images_at_a_time, process.options.residency)


def clean_stream(run: PreparedRun, process: TrainingProcess) -> BatchStream | None:
    """Return some of the training part, for the BatchNorm statistics of averaged weights; None where none are kept.

    Its batches are as large as what BatchNorm sees in training: what reaches a layer depends on them a little.
    """
    config = run.config
    if config.settings.ema_decay is None:
        return None
    indices = np.random.default_rng(config.settings.seed).permutation(run.data.indices(TRAIN))[:CLEAN_IMAGES]
    return _ordered_stream(run, process, indices, min(config.images_at_a_time, len(indices)), MAPPED)


def _ordered_stream(
    run: PreparedRun, process: TrainingProcess, indices: NDArray[np.int64], batch_size: int, residency: str
) -> BatchStream:
    return BatchStream(
        run.data.cache,
        indices,
        batch_size=batch_size,
        rank=process.ranks.rank,
        world_size=process.ranks.world_size,
        device=process.device,
        num_threads=process.options.num_threads,
        residency=residency,
        num_processes=process.ranks.processes_here,
    )


def make_augmenter(run: PreparedRun, device: torch.device) -> Augmenter:
    """Return what the training images go through: the run's augmentation, and its normalisation."""
    config = run.config
    return Augmenter(
        Augmentation.from_dict(config.augmentation or {}),
        seed=config.settings.seed,
        mean=config.normalization["mean"],
        std=config.normalization["std"],
        device=device,
    )


def _weights(sampling: str, table: SampleTable, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if sampling == CLASS_BALANCED:
        return balanced_weights(table.labels[indices])
    if sampling == SUBJECT_BALANCED:
        return balanced_weights(table.subjects[indices])
    return None


def train_run(run: PreparedRun, root: Path, process: TrainingProcess) -> dict[str, Results]:
    """Train a run to its end, from its last checkpoint if there is one, and evaluate it on the first rank.

    Parameters
    ----------
    run
        The run.
    root
        The folder of all runs of this training, whose lock is held; the run's own is held meanwhile.
    process
        This process.

    Returns
    -------
    dict of str to Results
        By part; empty on the other ranks.

    Raises
    ------
    RunError
        If another process trains the run, or something stops the training: see
        :func:`~leukemia_models.runs.preflight.explained_faults`.
    """
    ranks = process.ranks
    model = build_model(run.config.model_name, len(run.data.cache.manifest.classes), seed=run.config.settings.seed)
    results: dict[str, Results] = {}

    def evaluate() -> None:
        if ranks.is_first:
            results.update(_evaluate(run, process))

    with ExitStack() as held:
        ranks.run_on_all(lambda: _hold(run, root, process, held))
        start = _load_start(run, model, ranks)
        with explained_faults(run, root, process):
            _fit(run, model, start, process)
            ranks.run_on_all(evaluate)
    if run.data.cache.traffic_text:
        process.console.note(run.data.cache.traffic_text)
    return results


def _hold(run: PreparedRun, root: Path, process: TrainingProcess, held: ExitStack) -> None:
    """Hold the lock of a run's own folder, on the first rank."""
    if process.ranks.is_first and run.folder.root != root:
        held.enter_context(lock_run(run.folder.root))


def _load_start(run: PreparedRun, model: nn.Module, ranks: Ranks) -> Checkpoint | None:
    """Give the network its weights, and return the checkpoint to go on from; None at a run's beginning.

    The first rank reads the file for all: others may not see the run's folder.
    """
    is_begun = ranks.broadcast_flag(run.folder.is_begun)
    if not is_begun and run.config.start == SCRATCH:
        return None
    path = run.folder.checkpoint("last") if is_begun else _start_path(run.folder, run.config.start)
    data = ranks.broadcast_bytes(lambda: checkpoint_bytes(path)) if ranks.world_size > 1 else None
    return ranks.run_on_all(lambda: _resume(run, model, path, data) if is_begun else _begin(run, model, path, data))


def _resume(run: PreparedRun, model: nn.Module, path: Path, data: bytes | None) -> Checkpoint:
    checkpoint = load_checkpoint(path, data)
    require_same_run(checkpoint, checkpoint_info(run.config, run.data))
    load_training_weights(model, checkpoint)
    return checkpoint


def _begin(run: PreparedRun, model: nn.Module, path: Path, data: bytes | None) -> None:
    config, classes = run.config, run.data.cache.manifest.classes
    load_weights_file(model, path, lambda found: require_same_network(found, config.model_name, classes), data)


def _start_path(folder: RunFolder, start: str) -> Path:
    # Joined to a folder, an absolute path stays what it is.
    return folder.root / start


def _fit(run: PreparedRun, model: nn.Module, start: Checkpoint | None, process: TrainingProcess) -> None:
    info, ranks = checkpoint_info(run.config, run.data), process.ranks
    training, validation, clean = ranks.run_on_all(
        lambda: (train_stream(run, process), valid_stream(run, process), clean_stream(run, process))
    )
    with ExitStack() as closing:
        for stream in filter(None, (training, validation, clean)):
            closing.enter_context(stream)
        observer = Observer()
        if ranks.is_first:
            _announce(run, model, process, training)
            observer = recorder = _recorder(run, replace(info, seen=_seen(run, start)), model, process)
            closing.push(lambda kind, *_: recorder.close(is_failing=kind is not None))
            if start is not None:
                process.console.note(_going_on(start.state))
                recorder.on_resume(start.state)
        fit(
            model,
            training,
            validation,
            run.config.settings,
            info.normalization,
            make_augmenter(run, process.device),
            process.device,
            observer,
            start.state if start is not None else None,
            ranks=ranks,
            clean_source=clean,
        )


def _seen(run: PreparedRun, start: Checkpoint | None) -> SeenSamples:
    """What the weights will have seen; a checkpoint to go on from knows it, if it is not of an earlier version."""
    if start is not None and start.info.seen is not None:
        return start.info.seen
    return seen_by_run(run.folder, run.config, run.data)


def _recorder(run: PreparedRun, info: CheckpointInfo, model: nn.Module, process: TrainingProcess) -> Recorder:
    epochs, stamp, save_minutes = run.config.settings.epochs, run.data.leaks.stamp, process.options.save_minutes
    return Recorder(run.folder, info, model, epochs, stamp, save_minutes, time.monotonic, process.console)


def _going_on(start: TrainState) -> str:
    inside = f" and {start.progress.steps_done} steps of the next one" if start.progress else ""
    return f"going on after {start.epochs_done} epochs{inside}"


def _announce(run: PreparedRun, model: nn.Module, process: TrainingProcess, stream: BatchStream) -> None:
    config, data, device, num_ranks = run.config, run.data, process.device, process.ranks.world_size
    summary = data.summary(TRAIN)
    parts = ", ".join(f"{name} {sum(counts.images_per_class):,}" for name, counts in summary.parts.items())
    processes = f", {num_ranks} processes" if num_ranks > 1 else ""
    augmentation = (config.augmentation or {}).get("name", "none")
    optimizer, schedule = config.settings.optimizer, config.settings.schedule
    process.console.note(
        f"{config.model_name} ({count_parameters(model) / 1e6:.2f} M parameters) on {device}{processes}, "
        f"{data.cache.location} ({data.cache.size_px} px)\n"
        f"split {config.split}{_seed_text(config)}: {data.leaks.stamp}; images: {parts}\n"
        f"{optimizer.name}, learning rate {optimizer.peak_lr:g} ({schedule.name}), "
        f"{_batches_text(config, num_ranks)}; start: {config.start}\n"
        f"training pixels: {stream.residency.reason}; augmentation {augmentation}, sampling {config.sampling}\n"
        f"run: {run.folder.root}"
    )
    for doubt in start_cautions(data.leaks):
        process.console.warn(doubt.text)
    if config.settings.amp and device.type != "cuda":
        process.console.note(f"note: mixed precision is for CUDA only; on {device} the run computes in 32 bits")


def _seed_text(config: RunConfig) -> str:
    is_drawn = parse_split(config.split).is_drawn
    return f" (split seed {config.split_seed}; --split-seed draws others)" if is_drawn else ""


def _batches_text(config: RunConfig, num_ranks: int) -> str:
    """Such as ``batches of 64 in 4 micro-batches (2 processes, 2 each), BatchNorm over 32 images``."""
    text, settings = f"batches of {config.batch_size}", config.settings
    num_micro_batches = num_ranks * settings.accumulate
    if num_micro_batches == 1:
        return text
    size = micro_batch_size(config.batch_size, num_micro_batches)
    seen = size * num_ranks if settings.sync_batchnorm else size
    of_whom = f"{num_ranks} processes, {settings.accumulate} each" if num_ranks > 1 else "one after the other"
    return (
        f"{text} in {num_micro_batches} micro-batches ({of_whom}), BatchNorm over {min(seen, config.batch_size)} images"
    )


def _evaluate(run: PreparedRun, process: TrainingProcess) -> dict[str, Results]:
    return finalize_run(
        run.folder,
        run.data,
        evaluation=EvaluationSettings.from_dict(run.config.judging),
        device=process.device,
        batch_size=run.config.images_at_a_time,
        console=process.console,
    )
