"""How a run's batches are cut into the shares that its processes work through, and what BatchNorm sees of them."""

from __future__ import annotations

from leukemia_data.errors import UsageError
from leukemia_data.streams.batch import share_size
from leukemia_models.runs.run_config import RunConfig
from leukemia_models.training.run_state import TrainSettings

_FEWEST_IN_A_SHARE = 2


def require_micro_batches(batch_size: int, num_train: int, settings: TrainSettings, num_ranks: int) -> None:
    """Refuse shares of fewer than two images where BatchNorm sees one at a time: it cannot normalise by one image.

    Raises
    ------
    UsageError
        Naming what to change.
    """
    num_micro_batches = num_ranks * settings.accumulate
    sees_batch = num_ranks == 1 or settings.sync_batchnorm
    if settings.accumulate == 1 and sees_batch:
        return
    num_samples = min(batch_size, num_train)
    fewest = num_samples - (num_micro_batches - 1) * share_size(num_samples, num_micro_batches)
    if fewest < _FEWEST_IN_A_SHARE:
        raise UsageError(
            f"{num_samples} images of a batch in {num_micro_batches} shares ({num_ranks} processes, --accumulate "
            f"{settings.accumulate}) leave {max(fewest, 0)} for the last one, and BatchNorm needs "
            f"{_FEWEST_IN_A_SHARE}: take a larger --batch-size, or fewer shares"
        )


def images_at_a_time(config: RunConfig) -> int:
    """Images that all processes together work on at a time."""
    return share_size(config.batch_size, config.settings.accumulate)


def batches_in_words(config: RunConfig, num_ranks: int) -> str:
    """Such as ``batches of 64 in 4 shares (2 processes, 2 each), BatchNorm over 32 images``."""
    text, settings = f"batches of {config.batch_size}", config.settings
    num_micro_batches = num_ranks * settings.accumulate
    if num_micro_batches == 1:
        return text
    share = share_size(config.batch_size, num_micro_batches)
    seen = share * num_ranks if settings.sync_batchnorm else share
    of_whom = f"{num_ranks} processes, {settings.accumulate} each" if num_ranks > 1 else "one after the other"
    return f"{text} in {num_micro_batches} shares ({of_whom}), BatchNorm over {min(seen, config.batch_size)} images"
