"""The batches of a run: its training and validation part as streams, and what its training images go through."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import balanced_weights
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.runs.prepared_run import PreparedRun
from leukemia_models.runs.run_options import TrainingProcess
from leukemia_models.runs.run_split import TRAIN, VALID
from leukemia_models.training.training_plan import CLASS_BALANCED, SUBJECT_BALANCED

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
