"""What the command line asks of a training, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.stores.url import Location


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """The options that describe one stage; a plan has them in its file instead."""

    size_px: int | None
    recipe_name: str | None
    model_name: str
    epochs: int
    batch_size: int
    augment: str
    sampling: str
    optimizer: str
    lr: float | None
    momentum: float | None
    weight_decay: float | None
    schedule: str | None
    warmup_epochs: float
    clip_norm: float | None
    label_smoothing: float
    class_weights: str
    early_stopping: int | None
    ema: float | None
    start: str


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The whole command line; `given` names the options that the user set."""

    given: frozenset[str]
    stage: StageRequest
    plan: str | None
    epochs_scale: float
    cache: Location
    stage_dir: Path | None
    stage_gb: float | None
    split: str
    allow_leak: bool
    normalize: str
    force_normalize: bool
    seed: int
    split_seed: int
    positive: str | None
    tta: str
    tta_average: str
    batchnorm: str
    device: str
    amp: bool
    compile: bool
    sync_batchnorm: bool
    accumulate: int
    residency: str
    num_threads: int | None
    save_minutes: float
    wait_minutes: float
    check: bool
    out: Path | None
    resume: bool
    resume_if_begun: bool
    extend: str
    as_json: bool
    folds: str | None = None
    is_kfold: bool = False

    @property
    def stage_choice(self) -> LocalCopiesChoice:
        """Where shards of a cache at a URL are copied to."""
        return LocalCopiesChoice(self.stage_dir, self.stage_gb)


STAGE_OPTIONS = frozenset(field.name for field in fields(StageRequest))


def make_request(given: frozenset[str], options: dict[str, Any]) -> TrainRequest:
    """Sort click's options into what describes a stage and what describes the run."""
    stage = StageRequest(**{name: options.pop(name) for name in STAGE_OPTIONS})
    return TrainRequest(given=given, stage=stage, **options)
