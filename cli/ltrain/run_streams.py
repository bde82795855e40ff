"""The batches of a run: its training and validation part as streams, and what its training images go through."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cli.ltrain.batch_shares import images_at_a_time
from cli.ltrain.prepare import Run
from cli.ltrain.train_request import TrainRequest
from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import balanced_weights
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.distributed import Ranks
from leukemia_models.training.training_plan import CLASS_BALANCED, SUBJECT_BALANCED

CLEAN_IMAGES = 512
"""Plenty for a mean and a variance, and little beside an epoch."""


def train_stream(run: Run, request: TrainRequest, device: torch.device, ranks: Ranks) -> BatchStream:
    """The training part, shuffled; each rank gets its share of every batch."""
    config, numbers = run.config, run.data.numbers("train")
    return BatchStream(
        run.data.cache,
        numbers,
        batch_size=config.batch_size,
        seed=config.settings.seed,
        weights_N=_weights(config.sampling, run.data.cache.table, numbers),
        drop_last=True,
        rank=ranks.rank,
        world_size=ranks.world_size,
        micro_batches_per_rank=config.settings.accumulate,
        device=device,
        num_threads=request.num_threads,
        residency=request.residency,
        num_processes=ranks.processes_here,
    )


def valid_stream(run: Run, request: TrainRequest, device: torch.device, ranks: Ranks) -> BatchStream | None:
    """The validation part, in its own order; None where the split has none."""
    numbers = split_indices(run.data.codes, "valid")
    if not len(numbers):
        return None
    return BatchStream(
        run.data.cache,
        numbers,
        batch_size=images_at_a_time(run.config),
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=device,
        num_threads=request.num_threads,
        residency=request.residency,
        num_processes=ranks.processes_here,
    )


def clean_stream(run: Run, request: TrainRequest, device: torch.device, ranks: Ranks) -> BatchStream | None:
    """Some of the training part, for the BatchNorm statistics of averaged weights; None where none are kept.

    Its batches are as large as what BatchNorm sees in training: what reaches a layer depends on them a little.
    """
    config = run.config
    if config.settings.ema_decay is None:
        return None
    numbers = np.random.default_rng(config.settings.seed).permutation(run.data.numbers("train"))[:CLEAN_IMAGES]
    return BatchStream(
        run.data.cache,
        numbers,
        batch_size=min(images_at_a_time(config), len(numbers)),
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=device,
        num_threads=request.num_threads,
        residency=MAPPED,
    )


def make_augmenter(run: Run, device: torch.device) -> Augmenter:
    """What the training images go through: the run's augmentation, and its normalisation."""
    config = run.config
    return Augmenter(
        Augmentation.from_dict(config.augmentation or {}),
        seed=config.settings.seed,
        mean=config.normalization["mean"],
        std=config.normalization["std"],
        device=device,
    )


def _weights(sampling: str, table: SampleTable, numbers: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if sampling == CLASS_BALANCED:
        return balanced_weights(table.labels[numbers])
    if sampling == SUBJECT_BALANCED:
        return balanced_weights(table.subjects[numbers])
    return None
