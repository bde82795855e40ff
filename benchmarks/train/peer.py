"""What every way to train offers, the images they share, and the rows of the comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.opening import choose_folder
from leukemia_data.records.sample_table import decode_texts
from leukemia_data.sources.source import list_source
from leukemia_models.runs.draft_runs import train_statistics

SPLIT = "image"


@dataclass(frozen=True)
class Setting:
    """The same images and the same split for all.

    Attributes
    ----------
    cache_dir, source_dir
        Our cache, and the original image files behind it.
    train_N, valid_N
        Sample indices of the image split.
    paths
        The original file of each sample of the cache.
    mean, std
        Of the training images, per channel on the scale [0, 1].
    num_workers
        Processes of a DataLoader.
    """

    cache_dir: Path
    source_dir: Path
    size_px: int
    train_N: NDArray[np.int64]
    valid_N: NDArray[np.int64]
    paths: list[str]
    labels_N: NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch_size: int = 64
    num_workers: int = 2


def make_setting(cache: Path, source: Path, size_px: int) -> Setting:
    """Open the cache, draw its image split with seed 0, and find the file of each sample."""
    cache_dir, _ = choose_folder(cache, "a folder is measured", size_px=size_px)
    opened = open_cache(cache_dir)
    split = opened.split(SPLIT, seed=0)
    statistics = train_statistics(opened, split.train.indices)
    path_of = {record.record_id: str(record.path) for record in list_source([source]).records}
    return Setting(
        cache_dir=cache_dir.resolve(),
        source_dir=source.resolve(),
        size_px=opened.size_px,
        train_N=split.train.indices,
        valid_N=split.valid.indices,
        paths=[path_of[name] for name in decode_texts(opened.table.ids)],
        labels_N=opened.table.labels.astype(np.int64),
        mean=statistics.mean,
        std=statistics.std,
    )


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes
    ----------
    seconds
        From the beginning of the training to the end of this epoch's validation.
    accuracy
        Of all validation images at the full size; None where the epoch was smaller.
    """

    number: int
    seconds: float
    accuracy: float | None


@dataclass(frozen=True)
class Steps:
    """Steps of a training, without validation."""

    num_images: int
    seconds: float
    wait_s: float

    @property
    def images_per_s(self) -> float:
        """Throughput of whole steps."""
        return self.num_images / self.seconds


class TrainPeer(ABC):
    """One way to train a ResNet-18 for two classes, in a process of its own."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def steps(self, num_steps: int) -> Steps:
        """Take two steps that are not timed, then `num_steps`; data loaders may stay open for the next call."""

    @abstractmethod
    def train(self, seed: int, report: Callable[[Epoch], None]) -> None:
        """Train from scratch, and report each epoch; the caller ends the process when it has seen enough."""


@dataclass(frozen=True)
class PeerEntry:
    """One row: its name, its title, the class behind it, and how to get its library."""

    name: str
    title: str
    module: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_ours: bool = False
    install: str = "pip install --group test"


TIMED_ALIKE: Mapping[str, str] = {"ours": "ours-fp32"}
"""Rows that are the same training where this device computes in 32 bits."""
FAST = "fast-resnet18"
TIMM, TIMM_TITLE = "pip install timm", "timm's network and recipe on cached pixels, mixed precision"
REPORTS = "reports"
PEERS = (
    PeerEntry(REPORTS, "the reports' way: OpenCV on the fly in a DataLoader", "torch_loops", "ReportsPeer"),
    PeerEntry("torchvision", "torchvision on cached pixels, channels_last", "torch_loops", "TorchvisionPeer"),
    PeerEntry("lightning", "Lightning's Trainer with CachedCells", "lightning_trainer", "LightningPeer"),
    PeerEntry("timm", TIMM_TITLE, "torch_loops", "TimmPeer", install=TIMM),
    PeerEntry("ours-fp32", "ltrain, fp32", "ours", "OursPeer", {"precision": "fp32"}, is_ours=True),
    PeerEntry("ours", "ltrain, default precision", "ours", "OursPeer", is_ours=True),
    PeerEntry(FAST, "ltrain --plan fast-resnet18", "ours", "OursPeer", {"plan": FAST}, is_ours=True),
)
