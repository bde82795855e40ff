"""A run that is ready to be trained, and what its checkpoints say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL, training_facts
from leukemia_data.splitting.splits import split_indices
from leukemia_models.devices.normalization import Normalization
from leukemia_models.runs.run_config import RunConfig
from leukemia_models.runs.run_data import SPLIT_DIGEST, split_digest
from leukemia_models.runs.run_folder import FINAL, RunFolder, is_kfold
from leukemia_models.runs.run_split import TEST, VALID, SplitCache
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, CheckpointInfo


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to be trained: its folder, its settings, its samples."""

    folder: RunFolder
    config: RunConfig
    data: SplitCache

    @property
    def plan_dir(self) -> Path:
        """The folder around the stages of its plan; of a run by options alone, its own."""
        return self.folder.root.parent if self.config.stage else self.folder.root

    @property
    def is_fold(self) -> bool:
        """Whether it belongs to a cross-validation, as far as this machine sees its folder."""
        return is_kfold(self.plan_dir.parent)

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and all its parts are evaluated; the final checkpoint is written before them."""
        return self.folder.checkpoint(FINAL).is_file() and all(
            is_evaluated(self.folder, part) for part in (VALID, TEST) if self._has_labels(part)
        )

    def _has_labels(self, part: str) -> bool:
        labels = self.data.cache.table.labels[split_indices(self.data.codes, part)]
        return bool((labels != UNKNOWN_LABEL).any())


def is_evaluated(folder: RunFolder, part: str) -> bool:
    """Whether everything about a part is written."""
    return all((folder.part(part) / name).is_file() for name in ("predictions.csv", "results.json", "summary.md"))


def checkpoint_info(config: RunConfig, data: SplitCache) -> CheckpointInfo:
    """Describe the network of a run that has these settings and is trained from this cache, split so."""
    manifest = data.cache.manifest
    return CheckpointInfo(
        model_name=config.model_name,
        classes=manifest.classes,
        size_px=manifest.size_px,
        normalization=Normalization.of(**config.normalization),
        recipe=manifest.recipe.to_dict(),
        data_fingerprint=config.data_fingerprint,
        split_kind=config.split,
        settings=config.settings,
        details={
            "batch_size": config.batch_size,
            "split_seed": config.split_seed,
            SPLIT_DIGEST: split_digest(data.cache.table, data.codes),
            "augmentation": config.augmentation,
            "sampling": config.sampling,
            "start": config.start,
            FRAMES_DETAIL: training_facts(manifest.understood),
            POSITIVE_DETAIL: config.positive or manifest.classes[-1],
        },
    )
