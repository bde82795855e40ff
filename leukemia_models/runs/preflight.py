"""Checks of a run before it starts: its parts, leaks, initial weights, batches, memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from leukemia_data.errors import UsageError
from leukemia_data.splitting.leaks import require_no_leak
from leukemia_data.splitting.splits import choices_text, split_choices, split_indices
from leukemia_data.streams.batch import micro_batch_size
from leukemia_data.streams.residency import AUTO, DEVICE, MAPPED, RAM, residency_on
from leukemia_models.networks.registry import build_model, build_outline
from leukemia_models.runs.run_config import RunOptions, TrainingProcess
from leukemia_models.runs.run_split import TEST, TRAIN, VALID, SplitCache
from leukemia_models.training.checkpoint_file import checkpoint_room
from leukemia_models.training.checkpoint_match import require_same_network
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.start_file import StartReport, load_start
from leukemia_models.training.training_plan import Stage

_MIN_MICRO_BATCH = 2


def check_stage(
    stage: Stage, data: SplitCache, model_name: str, options: RunOptions, process: TrainingProcess, *, is_fold: bool
) -> None:
    """Raise a UsageError if a stage cannot be trained on its data, or its split has a leak that is not allowed."""
    _require_parts(data, stage, options, is_fold=is_fold)
    require_no_leak(
        data.leaks,
        str(data.spec),
        allow_leak=options.allow_leak,
        advice=partial(_leak_advice, data, stage, options, is_fold=is_fold),
        console=process.console,
    )
    require_memory(data, model_name, stage.settings, process)
    require_micro_batches(stage.batch_size, len(data.indices(TRAIN)), stage.settings, process.ranks.world_size)


def _require_parts(data: SplitCache, stage: Stage, options: RunOptions, *, is_fold: bool) -> None:
    """Raise a UsageError if a class is missing in the training part, or validation images that the settings need.

    The error lists the splits of this cache that the stage can be trained on.
    """
    labels = set(data.cache.table.labels[data.indices(TRAIN)].tolist())
    absent = [name for label, name in enumerate(data.cache.manifest.classes) if label not in labels]
    if absent:
        what = f"split {data.spec}: the training part has no image of class {absent[0]!r}"
        raise UsageError(f"{what}. {_what_works(data, stage, options)}")
    try:
        stage.settings.require_validation(len(split_indices(data.codes, VALID)) > 0)
    except UsageError as error:
        fold_hint = ", or validate on some training subjects with --inner-valid"
        hint = fold_hint if is_fold else f". {_what_works(data, stage, options)}"
        raise UsageError(f"split {data.spec}: {error}{hint}") from None


def _leak_advice(data: SplitCache, stage: Stage, options: RunOptions, *, is_fold: bool) -> str:
    """Return what to do about a split with a leak."""
    if data.seen_before.is_leak:
        return _seen_text(data, stage)
    if is_fold:
        return "`ltrain kfold ... --allow-leak` trains all the same, with that stamp on all results"
    return _what_works(data, stage, options)


def _seen_text(data: SplitCache, stage: Stage) -> str:
    """Return how many validation and test images the initial weights have seen, and what to do."""
    seen, num_held_out = data.seen_before, sum(len(split_indices(data.codes, part)) for part in (VALID, TEST))
    return (
        f"{stage.start} has seen {seen.num_samples:,} of its {num_held_out:,} validation and test images: they are of "
        f"{seen.subjects:,} subjects that these weights were trained on or chosen by, and {seen.images:,} of them are "
        "the same images. Use the split that the weights were trained with (its --split and --split-seed), start from "
        "other weights or from scratch, or train all the same with --allow-leak, which stamps all results"
    )


def _what_works(data: SplitCache, stage: Stage, options: RunOptions) -> str:
    """Return the splits of this cache that a stage can be trained on."""
    manifest, table, settings = data.cache.manifest, data.cache.table, stage.settings
    choices = split_choices(
        data.spec,
        table,
        options.split_seed,
        manifest.subjects,
        num_classes=len(manifest.classes),
        needs_valid=settings.early_stopping is not None or settings.schedule.needs_validation,
    )
    return choices_text(choices, table, manifest.subjects)


def try_start(stage: Stage, model_name: str, classes: Sequence[str]) -> StartReport | None:
    """Return what a file of initial weights gives a network, None without one; a RunError if it does not fit."""
    if stage.start.path is None:
        return None
    return load_start(
        build_model(model_name, len(classes)),
        stage.start.path,
        classes,
        lambda found: require_same_network(found, model_name),
    )


def require_memory(data: SplitCache, model_name: str, settings: TrainSettings, process: TrainingProcess) -> None:
    """Refuse a residency that cannot be had, before a run's folder is made or changed.

    Both parts have to fit together, in this machine's memory beside the copies from which checkpoints are written.

    Raises
    ------
    UsageError
        If the training and validation parts do not fit where they are wanted.
    """
    smaller, larger = sorted(_pixel_bytes(data))
    wanted, taken = process.options.residency, 0
    if wanted == RAM and process.ranks.is_first:
        room = checkpoint_room(build_outline(model_name, len(data.cache.manifest.classes)), settings)
        taken = room.resumable_bytes + room.evaluation_bytes
    num_processes = process.ranks.processes_here
    residency_on(process.device, wanted, larger, num_processes, other_bytes=smaller, taken_ram_bytes=taken)


def valid_residency(data: SplitCache, process: TrainingProcess) -> str:
    """Return the residency of validation images, before the training images take their memory.

    With ``auto`` they go to a device only if the training images fit beside them in what ``auto`` allows.
    """
    wanted, device = process.options.residency, process.device
    if wanted != AUTO or device.type == "cpu":
        return wanted
    train, valid = _pixel_bytes(data)
    both = residency_on(device, AUTO, valid, process.ranks.processes_here, other_bytes=train)
    return AUTO if both.kind == DEVICE else MAPPED


def _pixel_bytes(data: SplitCache) -> tuple[int, int]:
    """Return the sizes of the training and validation images."""
    num_train, num_valid = len(data.indices(TRAIN)), len(split_indices(data.codes, VALID))
    return num_train * data.cache.pixels_per_image * 3, num_valid * data.cache.pixels_per_image * 3


def require_micro_batches(batch_size: int, num_train: int, settings: TrainSettings, num_ranks: int) -> None:
    """Raise a UsageError if BatchNorm would see a micro-batch of one image, which normalises to zero."""
    num_micro_batches = num_ranks * settings.accumulate
    sees_batch = num_ranks == 1 or settings.sync_batchnorm
    if settings.accumulate == 1 and sees_batch:
        return
    num_samples = min(batch_size, num_train)
    num_last = num_samples - (num_micro_batches - 1) * micro_batch_size(num_samples, num_micro_batches)
    if num_last < _MIN_MICRO_BATCH:
        raise UsageError(
            f"{num_samples} images of a batch in {num_micro_batches} micro-batches ({num_ranks} processes, "
            f"--accumulate {settings.accumulate}) leave {max(num_last, 0)} for the last one, and BatchNorm needs "
            f"{_MIN_MICRO_BATCH}: use a larger --batch-size, or fewer micro-batches"
            f"{'' if sees_batch or settings.accumulate > 1 else ', or --sync-batchnorm'}"
        )
