"""Train one run and evaluate it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.files.lock import lock_run
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import balanced_weights, micro_batch_size
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.distributed import Ranks
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import FP32, precision_name
from leukemia_models.networks.registry import build_model, count_parameters
from leukemia_models.reports.results import Results, start_cautions
from leukemia_models.runs.begin_runs import PreparedRun, checkpoint_info
from leukemia_models.runs.finalize import finalize_run
from leukemia_models.runs.preflight import valid_residency
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_config import RunConfig, TrainingProcess
from leukemia_models.runs.run_split import TRAIN, VALID
from leukemia_models.runs.start_weights import seen_by_run
from leukemia_models.runs.training_faults import explained_faults
from leukemia_models.training.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    load_training_weights,
)
from leukemia_models.training.checkpoint_file import checkpoint_bytes
from leukemia_models.training.checkpoint_match import require_same_network, require_same_run
from leukemia_models.training.image_sizes import described_sizes
from leukemia_models.training.learner import Prepare
from leukemia_models.training.optimizers import OPTIMIZERS
from leukemia_models.training.start_file import load_start
from leukemia_models.training.train import fit
from leukemia_models.training.training_plan import (
    CLASS_BALANCED,
    SCRATCH,
    SUBJECT_BALANCED,
    UNIFORM,
    EvaluationSettings,
)

CLEAN_IMAGES = 512
"""Enough for a mean and a variance, and few compared with an epoch."""


def _open_streams(
    run: PreparedRun, process: TrainingProcess
) -> tuple[BatchStream, BatchStream | None, BatchStream | None]:
    """Open the streams of training images, of validation images, and of those for BatchNorm statistics."""
    config, ranks = run.config, process.ranks
    seed, train, valid = config.settings.seed, run.data.indices(TRAIN), split_indices(run.data.codes, VALID)
    wanted_for_valid = valid_residency(run.data, process)
    stream = partial(
        BatchStream,
        run.data.cache,
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=process.device,
        num_threads=process.options.num_threads,
        residency=process.options.residency,
        num_processes=ranks.processes_here,
    )
    training = stream(
        train,
        batch_size=config.batch_size,
        seed=seed,
        weights_N=_weights(config.sampling, run.data.cache.table, train),
        drop_last=True,
        micro_batches_per_rank=config.settings.accumulate,
    )
    validation = stream(valid, batch_size=config.images_at_a_time, residency=wanted_for_valid) if len(valid) else None
    if config.settings.ema_decay is None:
        return training, validation, None
    # Averaged weights need statistics of their own, from batches as large as BatchNorm sees in training.
    clean = np.random.default_rng(seed).permutation(train)[:CLEAN_IMAGES]
    batch_size = min(_images_seen(config, ranks.world_size), len(clean))
    return training, validation, stream(clean, batch_size=batch_size, residency=MAPPED)


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
    root
        The folder of all runs of this training, which is locked; the run's folder is locked meanwhile.

    Returns
    -------
    dict of str to Results
        By part; empty on other ranks than the first.

    Raises
    ------
    RunError
        If another process trains the run, or as :func:`~leukemia_models.runs.training_faults.explained_faults`.
    """
    config, ranks = run.config, process.ranks
    model = build_model(config.model_name, len(run.data.cache.manifest.classes), seed=config.settings.seed)
    results: dict[str, Results] = {}

    def hold() -> None:
        if ranks.is_first and run.folder.root != root:
            held.enter_context(lock_run(run.folder.root))

    def evaluate() -> None:
        if ranks.is_first:
            evaluation, batch_size = EvaluationSettings.from_dict(config.judging), config.images_at_a_time
            found = finalize_run(run.folder, run.data, evaluation, process.device, batch_size, console=process.console)
            results.update(found)

    with ExitStack() as held:
        ranks.run_on_all(hold)
        start = _load_start(run, model, ranks)
        with explained_faults(run, root, process):
            _fit(run, model, start, process)
            ranks.run_on_all(evaluate)
    if run.data.cache.traffic_text:
        process.console.note(run.data.cache.traffic_text)
    return results


def _load_start(run: PreparedRun, model: nn.Module, ranks: Ranks) -> Checkpoint | None:
    """Load the network's weights, and return the checkpoint to resume from; None if the run begins."""
    is_begun = ranks.broadcast_flag(run.folder.is_begun)
    if not is_begun and run.config.start == SCRATCH:
        return None
    # An absolute start replaces the folder.
    path = run.folder.checkpoint("last") if is_begun else run.folder.root / run.config.start
    # Other ranks may not see the run's folder.
    data = ranks.broadcast_bytes(lambda: checkpoint_bytes(path)) if ranks.world_size > 1 else None
    return ranks.run_on_all(lambda: _resume(run, model, path, data) if is_begun else _begin(run, model, path, data))


def _resume(run: PreparedRun, model: nn.Module, path: Path, data: bytes | None) -> Checkpoint:
    checkpoint = load_checkpoint(path, data)
    require_same_run(checkpoint, checkpoint_info(run.config, run.data))
    load_training_weights(model, checkpoint)
    return checkpoint


def _begin(run: PreparedRun, model: nn.Module, path: Path, data: bytes | None) -> None:
    config, classes = run.config, run.data.cache.manifest.classes
    load_start(model, path, classes, lambda found: require_same_network(found, config.model_name), data)


def _fit(run: PreparedRun, model: nn.Module, start: Checkpoint | None, process: TrainingProcess) -> None:
    config, ranks, device = run.config, process.ranks, process.device
    info = checkpoint_info(config, run.data)
    training, validation, clean = ranks.run_on_all(lambda: _open_streams(run, process))
    with ExitStack() as closing:
        for stream in filter(None, (training, validation, clean)):
            closing.enter_context(stream)
        recorder = None
        if ranks.is_first:
            _announce(run, model, process, training)
            recorder = _recorder(run, info, model, start, process)
            closing.push(partial(_close, recorder))
        fit(
            model,
            training,
            validation,
            config.settings,
            info.normalization,
            _prepare(run.config, info.normalization, device),
            device,
            recorder,
            start.state if start is not None else None,
            ranks=ranks,
            clean_source=clean,
        )
        ranks.run_on_all(recorder.wait if recorder is not None else lambda: None)


def _close(recorder: Recorder, kind: type[BaseException] | None, *_: object) -> None:
    recorder.close(is_failing=kind is not None)


def _prepare(config: RunConfig, normalization: Normalization, device: torch.device) -> Prepare:
    """Return the augmentation of training images."""
    augment = Augmenter(
        Augmentation.from_dict(config.augmentation or {}),
        seed=config.settings.seed,
        mean=normalization.mean,
        std=normalization.std,
        device=device,
        channels_last=config.settings.channels_last,
    )
    if config.draws_by_occurrence:
        return augment
    return lambda images_BHWC, epoch, indices_B, _: augment(images_BHWC, epoch, indices_B)


def _recorder(
    run: PreparedRun, info: CheckpointInfo, model: nn.Module, start: Checkpoint | None, process: TrainingProcess
) -> Recorder:
    # None in checkpoints of earlier versions.
    seen = start.info.seen if start is not None else None
    info = replace(info, seen=seen if seen is not None else seen_by_run(run.folder, run.config, run.data))
    stamp, console = run.data.leaks.stamp, process.console
    recorder = Recorder(run.folder, info, model, stamp, process.options.save_minutes, time.monotonic, console)
    if start is not None:
        progress = start.state.progress
        steps = f" and {progress.steps_done} steps of the next one" if progress else ""
        console.note(f"going on after {start.state.epochs_done} epochs{steps}")
        recorder.on_resume(start.state)
    return recorder


def _announce(run: PreparedRun, model: nn.Module, process: TrainingProcess, stream: BatchStream) -> None:
    config, data, device, num_ranks = run.config, run.data, process.device, process.ranks.world_size
    summary = data.summary(TRAIN)
    parts = ", ".join(f"{name} {sum(counts.images_per_class):,}" for name, counts in summary.parts.items())
    processes = f", {num_ranks} processes" if num_ranks > 1 else ""
    augmentation = (config.augmentation or {}).get("name", "none")
    optimizer, schedule = config.settings.optimizer, config.settings.schedule
    process.console.note(
        f"{config.model_name} ({count_parameters(model) / 1e6:.2f} M parameters) on {device}{processes}, "
        f"{data.cache.location} ({data.cache.size_px} px){_sizes_text(config)}\n"
        f"split {config.split}{_seed_text(config)}: {data.leaks.stamp}; images: {parts}\n"
        f"{optimizer.name}, learning rate {optimizer.peak_lr:g} ({schedule.name}), "
        f"{_batches_text(config, num_ranks)}; start: {config.start}{_start_text(config)}\n"
        f"{_computing_text(config, device)}\n"
        f"training pixels: {stream.residency.reason}; augmentation {augmentation}, sampling {_sampling_text(config)}\n"
        f"run: {run.folder.root}"
    )
    for caution in start_cautions(data.leaks):
        process.console.warn(caution.text)
    if config.settings.compile and config.settings.sync_batchnorm and num_ranks > 1:
        process.console.warn(
            "BatchNorm over all processes exchanges numbers in every layer, where a compiled network is interrupted: "
            "--compile gains little with --sync-batchnorm"
        )


def _start_text(config: RunConfig) -> str:
    return f" ({config.start_report})" if config.start_report else ""


def _computing_text(config: RunConfig, device: torch.device) -> str:
    """Return ``computes in bf16 (weights, pooling and classifier in 32 bits), channels_last``."""
    settings, name = config.settings, precision_name(device, config.settings.precision)
    words = [name if name == FP32 else f"{name} (weights, pooling and classifier in 32 bits)"]
    if device.type == "cuda":
        words += ["TF32 convolutions"] if settings.tf32 else []
        words += ["cudnn.benchmark"] if settings.cudnn_benchmark else []
    words += ["channels_last"] if settings.channels_last else []
    words += ["compiled"] if settings.compile else []
    words += ["fused optimizer"] if settings.fused and OPTIMIZERS.get(settings.optimizer.name).has_fused else []
    return f"computes in {', '.join(words)}"


def _sizes_text(config: RunConfig) -> str:
    sizes = config.settings.sizes
    return "" if sizes is None else f", reduced to {described_sizes(sizes)}"


def _seed_text(config: RunConfig) -> str:
    is_drawn = parse_split(config.split).is_drawn
    return f" (split seed {config.split_seed}; --split-seed draws others)" if is_drawn else ""


def _sampling_text(config: RunConfig) -> str:
    """Return ``class-balanced (repeats in an epoch augmented anew)``."""
    if config.sampling == UNIFORM:
        return config.sampling
    repeats = "augmented anew" if config.draws_by_occurrence else "augmented alike, as when the run began"
    return f"{config.sampling} (repeats in an epoch {repeats})"


def _images_seen(config: RunConfig, num_ranks: int) -> int:
    """Return the largest number of images that BatchNorm normalises together in training."""
    size = micro_batch_size(config.batch_size, num_ranks * config.settings.accumulate)
    return min(size * num_ranks if config.settings.sync_batchnorm else size, config.batch_size)


def _batches_text(config: RunConfig, num_ranks: int) -> str:
    """Return ``batches of 64 in 4 micro-batches (one after the other), BatchNorm over 16 images``."""
    text, settings = f"batches of {config.batch_size}", config.settings
    num_micro_batches = num_ranks * settings.accumulate
    if num_micro_batches == 1:
        return text
    seen = _images_seen(config, num_ranks)
    where = f"{num_ranks} processes, {settings.accumulate} each" if num_ranks > 1 else "one after the other"
    whose = ""
    if num_ranks > 1:
        whose = " of all processes" if settings.sync_batchnorm else " of each process by itself"
    return f"{text} in {num_micro_batches} micro-batches ({where}), BatchNorm over {seen} images{whose}"
