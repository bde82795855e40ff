"""What a plan comes to on the caches that are there: every stage checked, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cli.ltrain.batch_shares import require_micro_batches
from cli.ltrain.normalize_choice import choose_normalization
from cli.ltrain.train_request import TrainRequest
from cli.output import print_note
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache
from leukemia_data.caches.opening import lasting_name, open_chosen_cache
from leukemia_data.errors import UsageError
from leukemia_data.files.limits import free_ram_bytes
from leukemia_data.records.near_looks import comparison_note
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.classes import positive_text
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_choices import choices_text
from leukemia_data.splitting.split_spec import SplitCodes, SplitSpec, parse_split
from leukemia_data.splitting.splits import assign_split, split_choices, split_indices
from leukemia_data.streams.residency import choose_residency, free_bytes, max_bytes
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_config import RunConfig
from leukemia_models.runs.run_data import data_digest, positive_of_caches
from leukemia_models.runs.run_folder import RunFolder, stage_folder_name
from leukemia_models.runs.run_split import TEST, VALID, SplitCache
from leukemia_models.runs.start_weights import seen_before
from leukemia_models.training.checkpoint import load_weights_file
from leukemia_models.training.checkpoint_match import require_same_network
from leukemia_models.training.training_plan import Stage, TrainingPlan

NUM_CLASSES = 2


@dataclass(frozen=True)
class RunDraft:
    """A run that could begin: what it would be told, its samples and its augmentation."""

    config: RunConfig
    data: SplitCache
    augmentation: Augmentation


@dataclass(frozen=True)
class Machine:
    """What a run is given to work on."""

    device: torch.device
    num_processes: int  # on this machine
    num_ranks: int  # on all machines


def draft_runs(
    plan: TrainingPlan, request: TrainRequest, machine: Machine, caches: Sequence[Cache] | None = None
) -> list[RunDraft]:
    """Find every stage's cache and check all that can be wrong before anything is computed.

    `caches` are those of the stages, where they are open already.

    Raises
    ------
    UsageError, CacheError, RunError
        If a cache is missing, holds other images than the first stage's, or cannot be split or trained on as asked; if
        patients would be on both sides of the split and nobody allowed it; if weights to start from do not fit.
    """
    spec = parse_split(request.split)
    caches = stage_caches(plan, request) if caches is None else caches
    positive = positive_of_caches(caches, request.positive).name
    drafts: list[RunDraft] = []
    for cache in caches:
        drafts.append(_draft(plan, drafts, cache, spec, positive, request, machine))
    return drafts


def stage_caches(plan: TrainingPlan, request: TrainRequest) -> list[Cache]:
    """Open the cache of every stage, and say which class is the positive one.

    Raises
    ------
    UsageError, CacheError
        If one is missing, they do not hold the same images, or nothing tells the positive class.
    """
    caches = [_stage_cache(stage, request) for stage in plan.stages]
    for cache in caches[1:]:
        _require_same_images(caches[0], cache)
    without_looks = [cache for cache in caches if not cache.manifest.has_looks]
    if without_looks:
        print_note(f"note: {without_looks[0].location}: {WITHOUT_LOOKS}")
    if how := comparison_note(len(caches[0].table)):
        print_note(f"note: {how}")
    chosen = positive_of_caches(caches, request.positive)
    print_note(positive_text(caches[0].manifest.classes, chosen))
    return caches


def _stage_cache(stage: Stage, request: TrainRequest) -> Cache:
    try:
        cache = open_chosen_cache(request.cache, request.stage_choice, size_px=stage.size_px, recipe=stage.recipe)
    except UsageError as error:
        if stage.size_px is not None or stage.recipe is not None:
            raise
        raise UsageError(f"{error}\nor choose one by its size or recipe") from None
    if len(cache.manifest.classes) != NUM_CLASSES:
        raise UsageError(
            f"{cache.location} has {len(cache.manifest.classes)} classes ({', '.join(cache.manifest.classes)}): "
            "training and judging know two"
        )
    return cache


def _require_same_images(first: Cache, other: Cache) -> None:
    """A split must mean the same in every stage: nobody may learn in one what judges another."""
    if first.manifest.has_looks != other.manifest.has_looks:
        without = other if first.manifest.has_looks else first
        raise UsageError(
            f"{without.location}: {WITHOUT_LOOKS}. The plan's other cache has them, and all stages have to split alike"
        )
    same_classes = first.manifest.classes == other.manifest.classes
    if not same_classes or any(map(_differ, _what_splits(first.table), _what_splits(other.table))):
        raise UsageError(
            f"{other.location} holds other images than {first.location}, or other labels or subjects of them: build "
            "both from the same source, so that all stages split alike"
        )


def _what_splits(table: SampleTable) -> Iterator[NDArray[Any]]:
    """Yield all columns that may decide in which part a sample is, in the order of the ids."""
    order = np.argsort(table.ids)
    columns = (table.ids, table.subjects, table.labels, table.splits, table.folds, table.pixel_digests)
    return (column[order] for column in columns)


def _differ(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return not np.array_equal(one, other)


def _draft(
    plan: TrainingPlan,
    earlier: Sequence[RunDraft],
    cache: Cache,
    spec: SplitSpec,
    positive: str,
    request: TrainRequest,
    machine: Machine,
) -> RunDraft:
    number = len(earlier)
    stage = plan.stages[number]
    manifest = cache.manifest
    codes = assign_split(spec, cache.table, request.split_seed, manifest.classes, manifest.subjects)
    _check_start(plan, stage, manifest.classes)
    data = SplitCache(cache, spec, codes, _seen_before(stage, earlier, cache, codes))
    _check_parts(data, stage, request)
    _check_leaks(data, stage, request)
    check_room(request, data, machine)
    require_micro_batches(stage.batch_size, len(data.numbers("train")), stage.settings, machine.num_ranks)
    numbers = data.numbers("train")
    normalization = choose_normalization(request.normalize, cache, numbers, force=request.force_normalize)
    settings = replace(
        stage.settings,
        seed=_stage_seed(request.seed, number),
        num_classes=NUM_CLASSES,
        class_weights=_class_weights(stage.class_weights, cache.table.labels[numbers]),
    )
    config = RunConfig(
        model_name=plan.model_name,
        cache_dir=lasting_name(cache),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split=str(spec),
        split_seed=request.split_seed,
        batch_size=stage.batch_size,
        normalization=normalization.to_dict(),
        settings=settings,
        augmentation=stage.augmentation.to_dict(),
        sampling=stage.sampling,
        start=_start_file(plan, stage),
        judging=plan.judging.to_dict(),
        stage=stage.name if plan.is_staged else "",
        class_weights=stage.class_weights,
        positive=positive,
        seen_before=data.seen_before,
    )
    return RunDraft(config, data, stage.augmentation)


def _check_parts(data: SplitCache, stage: Stage, request: TrainRequest) -> None:
    """Refuse to train on images of one class, or without the validation images that the settings count on."""
    labels = set(data.cache.table.labels[data.numbers("train")].tolist())
    absent = [name for label, name in enumerate(data.cache.manifest.classes) if label not in labels]
    if absent:
        what = f"split {data.spec}: the training part has no image of class {absent[0]!r}"
        raise UsageError(f"{what}. {_what_works(data, stage, request)}")
    try:
        stage.settings.require_validation(len(split_indices(data.codes, "valid")) > 0)
    except UsageError as error:
        if request.is_kfold:
            hint = ", or set some training subjects apart with --inner-valid"
        else:
            hint = f". {_what_works(data, stage, request)}"
        raise UsageError(f"split {data.spec}: {error}{hint}") from None


def _seen_before(stage: Stage, earlier: Sequence[RunDraft], cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Where the split meets what the stage's first weights have seen; all stages have one split."""
    if stage.start.path is not None:
        return seen_before(stage.start.path, cache, codes)
    before = [draft.data.seen_before for draft in earlier if draft.config.stage == stage.start.stage != ""]
    return before[0] if before else NOTHING_SEEN_BEFORE


def _seen_text(data: SplitCache, stage: Stage) -> str:
    """How much of the validation and test part the weights to start from have seen, and what to do."""
    seen, num_held_out = data.seen_before, sum(len(split_indices(data.codes, part)) for part in (VALID, TEST))
    return (
        f"{stage.start} has seen {seen.num_samples:,} of its {num_held_out:,} validation and test images: they are of "
        f"{seen.subjects:,} subjects that these weights were trained on or chosen by, and {seen.images:,} of them are "
        "the very images. Take the split that the weights were trained with (its --split and --split-seed), start from "
        "other weights or from scratch, or --allow-leak to train all the same, with a stamp on everything that comes "
        "of it"
    )


def _what_works(data: SplitCache, stage: Stage, request: TrainRequest) -> str:
    """The splits of this cache that a stage can be trained on."""
    manifest, table = data.cache.manifest, data.cache.table
    choices = split_choices(
        data.spec,
        table,
        request.split_seed,
        manifest.subjects,
        num_classes=len(manifest.classes),
        needs_valid=_needs_validation(stage),
    )
    return choices_text(choices, table, manifest.subjects)


def _needs_validation(stage: Stage) -> bool:
    try:
        stage.settings.require_validation(False)
    except UsageError:
        return True
    return False


def _check_leaks(data: SplitCache, stage: Stage, request: TrainRequest) -> None:
    leaks = data.leaks
    if leaks.is_disjoint:
        return
    if not request.allow_leak:
        if data.seen_before.is_leak:
            what = _seen_text(data, stage)
        elif request.is_kfold:
            what = "`ltrain kfold ... --allow-leak` trains all the same, with that stamp on everything that comes of it"
        else:
            what = _what_works(data, stage, request)
        raise UsageError(
            f"split {data.spec} is {leaks.stamp}: results on it say nothing about patients the network has not seen. "
            f"{what}"
        )
    print_note(f"warning: {leaks.stamp}: training as --allow-leak allows")


def check_room(request: TrainRequest, data: SplitCache, machine: Machine) -> None:
    """Refuse a --residency that cannot be had, before a run's folder is made or changed."""
    choose_residency(
        request.residency,
        len(data.numbers("train")) * data.cache.pixels_per_image * 3,
        device_free_bytes=free_bytes(machine.device),
        device_max_bytes=max_bytes(machine.device),
        ram_free_bytes=free_ram_bytes(),
        num_processes=machine.num_processes,
    )


def _check_start(plan: TrainingPlan, stage: Stage, classes: Sequence[str]) -> None:
    if stage.start.path is not None:
        load_weights_file(
            build_model(plan.model_name, NUM_CLASSES),
            stage.start.path,
            lambda found: require_same_network(found, plan.model_name, classes),
        )


def _start_file(plan: TrainingPlan, stage: Stage) -> str:
    """``scratch``, an absolute file, or a checkpoint of an earlier stage relative to this stage's folder."""
    if stage.start.path is not None:
        return str(stage.start.path.resolve())
    if not stage.start.stage:
        return stage.start.kind
    [number] = [n for n, earlier in enumerate(plan.stages) if earlier.name == stage.start.stage]
    folder = RunFolder(Path("..") / stage_folder_name(number, stage.start.stage))
    return folder.checkpoint(stage.start.kind).as_posix()


def _stage_seed(seed: int, number: int) -> int:
    """The seed itself for the first stage; later ones must not repeat its orders and draws."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)


def _class_weights(kind: str, labels_N: NDArray[np.int16]) -> tuple[float, ...] | None:
    """Images over classes times images of the class, as scikit-learn's ``balanced``: mean 1 over the images."""
    if kind == "none":
        return None
    counts = np.bincount(labels_N, minlength=NUM_CLASSES)
    return tuple((len(labels_N) / (NUM_CLASSES * counts)).tolist())
