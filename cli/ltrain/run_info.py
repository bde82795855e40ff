"""What a run's checkpoints say of it, told from its settings and its cache."""

from __future__ import annotations

from leukemia_data.scanning.frame_notes import FRAMES_DETAIL, training_facts
from leukemia_models.devices.normalization import Normalization
from leukemia_models.runs.run_data import SPLIT_DIGEST, split_digest
from leukemia_models.runs.run_folder import RunConfig
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, CheckpointInfo


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
