"""Sound files of every kind that the programs read: a small source, its cache, runs and tables below one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from leukemia_data.building.shard_maker import run_task
from leukemia_data.building.shard_task import ShardTask, Target, leave_receipts
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import Manifest
from leukemia_data.files.atomic import state_of
from leukemia_data.records.fingerprint import cache_fingerprint, installed_opencv_version
from leukemia_data.records.record import Record
from leukemia_data.splitting.seen_samples import Naming, SeenSamples, SeenSource
from leukemia_models.devices.normalization import Normalization
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import write_split
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState, WeightAverageState

from ..leukemia_data.helpers import TINY_RECIPE, build, cache_dir, image_paths, make_source
from ..leukemia_models.finished_runs import random_predictions, write_fold, write_run

PEOPLE = {"1": 1, "2": 1, "H1": 0, "H2": 0}
IMAGES_EACH = 4
NETWORK = "resnet18-narrow"
_EVALUATION = {
    "checkpoint": "best",
    "tta": {"views": "none", "average": "logits"},
    "batchnorm": {"chosen": "running", "mode": "auto", "text": "The running statistics do."},
    "calibration": {"temperature": 1.5, "threshold": 0.4, "fitted_on": "valid", "num_images": 8, "note": None},
}


@dataclass(frozen=True)
class Places:
    """Where the sound files lie."""

    root: Path

    @property
    def source(self) -> Path:
        """A folder of images by class and subject."""
        return self.root / "source"

    @property
    def cache(self) -> Path:
        """Its cache at 16 px, of several shards."""
        return cache_dir(self.root / "cache")

    @property
    def compressed(self) -> Path:
        """The same with compressed shards."""
        return cache_dir(self.root / "compressed")

    @property
    def run(self) -> Path:
        """A run on that cache, with a network that answers."""
        return self.root / "run"

    @property
    def folds(self) -> tuple[Path, Path]:
        """Two folds of a cross-validation, judged."""
        return self.root / "kfold" / "fold-1", self.root / "kfold" / "fold-2"

    @property
    def judged(self) -> tuple[Path, Path]:
        """Two judged runs to compare."""
        return self.root / "one", self.root / "other"

    @property
    def task(self) -> ShardTask:
        """A task of a build that has left its receipt."""
        records = tuple(
            Record(path.name, path, label=0, state=state_of(path.stat())) for path in image_paths(self.source)[:4]
        )
        fingerprint = cache_fingerprint(TINY_RECIPE, 16, installed_opencv_version())
        return ShardTask(records, (Target(16, fingerprint, self.root / "unfinished"),), TINY_RECIPE)


def make_places(root: Path) -> Places:
    """Write all sound files below an empty folder."""
    places = Places(root)
    make_source(places.source, 24)
    build(places.source, root / "cache", sizes_px=(16,))
    build(places.source, root / "compressed", sizes_px=(16,), codec="zstd")
    (root / "unfinished").mkdir()
    leave_receipts(places.task, run_task(places.task))
    make_run(places.run, places.cache)
    _make_judged(places)
    return places


def make_run(root: Path, cache_dir: Path) -> None:
    """Write the folder of a run on a cache, with a final checkpoint that answers at random, and two tiny ones."""
    root.mkdir()
    folder, cache, settings = RunFolder(root), open_cache(cache_dir), TrainSettings(epochs=2)
    config = RunConfig(
        model_name=NETWORK,
        cache_dir=str(cache_dir),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest="1" * 32,
        split="subject",
        split_seed=0,
        batch_size=8,
        normalization=_normalization().to_dict(),
        settings=settings,
    )
    save_config(folder, config)
    write_split(folder.split, cache.table, (np.arange(len(cache)) % 3).astype(np.int8))
    info = _checkpoint_info(cache.manifest, settings)
    save_checkpoint(folder.checkpoint("final"), build_model(NETWORK, 2, seed=0), info, _state(), resumable=False)
    tiny = nn.Linear(3, 2)
    averaged = _state(WeightAverageState({"weight": torch.ones(2, 3)}, 5))
    save_checkpoint(folder.checkpoint("last"), tiny, info, averaged)
    save_checkpoint(folder.checkpoint("best"), tiny, info, _state(), resumable=False)


def _checkpoint_info(manifest: Manifest, settings: TrainSettings) -> CheckpointInfo:
    return CheckpointInfo(
        model_name=NETWORK,
        classes=manifest.classes,
        size_px=manifest.size_px,
        normalization=_normalization(),
        recipe=manifest.recipe.to_dict(),
        data_fingerprint=manifest.fingerprint,
        split_kind="subject",
        settings=settings,
        judging=_EVALUATION,
        seen=SeenSamples((SeenSource(Naming("cells", "folders"), trained_images=np.arange(4, dtype=np.uint64)),)),
    )


def _normalization() -> Normalization:
    return Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def _state(average: WeightAverageState | None = None) -> TrainState:
    record = EpochRecord(
        epoch=1, lr=0.1, train_loss=0.5, train_accuracy=0.75, valid_loss=0.6, valid_accuracy=0.5,
        valid_balanced_accuracy=0.5, valid_weighted_f1=0.5, valid_auroc=None, seconds=1.0,
        images_per_s=10.0, data_wait_share=0.1,
    )  # fmt: skip
    momentum = {0: {"momentum_buffer": torch.zeros(2, 3), "step": 4}}
    return TrainState(TrainHistory((record,)), momentum, {}, EpochProgress(steps_done=3), {"steps": 4.0}, average)


def _make_judged(places: Places) -> None:
    for seed, (root, name) in enumerate(zip(places.judged, ("resnet18", "resnet34"), strict=True)):
        write_run(root, random_predictions(PEOPLE, IMAGES_EACH, seed), model_name=name)
    halves = ({"1": 1, "H1": 0}, {"2": 1, "H2": 0})
    for number, (root, people) in enumerate(zip(places.folds, halves, strict=True), 1):
        table = random_predictions(people, IMAGES_EACH, number)
        write_fold(root, table, PEOPLE, IMAGES_EACH, split=f"test-fold:{number}/2")
