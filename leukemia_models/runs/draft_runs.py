"""Check every stage of a plan on its cache and decide its settings; write nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache
from leukemia_data.caches.opening import LocalCopiesChoice, lasting_name, open_chosen_cache
from leukemia_data.caches.statistics import channel_statistics
from leukemia_data.console import Console
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.records.near_looks import comparison_note
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.positive_class import classes_text, positive_text
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import SplitCodes
from leukemia_data.splitting.splits import assign_split
from leukemia_data.stores.url import Location
from leukemia_models.devices.normalization import IMAGENET, Normalization, check_normalization
from leukemia_models.devices.precision import decide_precision
from leukemia_models.runs.preflight import check_stage, try_start
from leukemia_models.runs.run_config import (
    IMAGENET_STATISTICS,
    TRAIN_STATISTICS,
    RunConfig,
    RunOptions,
    TrainingProcess,
)
from leukemia_models.runs.run_folder import RunFolder, stage_folder_name
from leukemia_models.runs.run_split import TRAIN, SplitCache, data_digest, positive_of_caches
from leukemia_models.runs.start_weights import seen_before
from leukemia_models.training.image_sizes import sizes_text
from leukemia_models.training.training_plan import Stage, TrainingPlan

MIN_CLASSES = 2
_GUARD_IMAGES = 256


@dataclass(frozen=True)
class RunDraft:
    """A checked run that has not begun; the device has decided the settings named in `left_to_device`."""

    config: RunConfig
    data: SplitCache
    augmentation: Augmentation
    left_to_device: tuple[str, ...] = ()


def stage_caches(
    plan: TrainingPlan, cache: Location, positive: str | None, copies: LocalCopiesChoice, console: Console
) -> list[Cache]:
    """Open the cache of every stage, and note which class is the positive one.

    Parameters
    ----------
    cache
        A cache, or a folder of caches of which one fits each stage; or the address of either.
    positive
        As in :class:`~leukemia_models.runs.run_config.RunOptions`.

    Raises
    ------
    UsageError, CacheError
        If one is missing, they do not hold the same images, or the positive class is unknown.
    """
    caches = [_stage_cache(stage, cache, copies) for stage in plan.stages]
    for other in caches[1:]:
        _require_same_images(caches[0], other)
    if not caches[0].manifest.has_looks:
        console.note(f"note: {caches[0].location}: {WITHOUT_LOOKS}")
    if how := comparison_note(len(caches[0].table)):
        console.note(f"note: {how}")
    classes, chosen = caches[0].manifest.classes, positive_of_caches(caches, positive)
    console.note(positive_text(classes, chosen) if len(classes) == MIN_CLASSES else classes_text(classes))
    return caches


def draft_runs(
    plan: TrainingPlan,
    caches: Sequence[Cache],
    options: RunOptions,
    process: TrainingProcess,
    *,
    is_fold: bool = False,
) -> list[RunDraft]:
    """Check the runs of a plan before anything is computed or written.

    Parameters
    ----------
    caches
        One for each stage, from :func:`stage_caches`.
    is_fold
        Whether the split is one of a cross-validation, which changes the advice in errors.

    Raises
    ------
    UsageError, CacheError, RunError
        If a cache cannot be split or trained on with these options, subjects are on both sides of the split without
        ``allow_leak``, or initial weights do not fit.
    """
    positive = positive_of_caches(caches, options.positive)
    drafts: list[RunDraft] = []
    for stage, cache in zip(plan.stages, caches, strict=True):
        report = try_start(stage, plan.model_name, cache.manifest.classes)
        manifest, spec = cache.manifest, options.split_spec
        codes = assign_split(spec, cache.table, options.split_seed, manifest.classes, manifest.subjects)
        data = SplitCache(cache, spec, codes, _seen_before(stage, drafts, cache, codes))
        check_stage(stage, data, plan.model_name, options, process, is_fold=is_fold)
        config = _config(plan, len(drafts), data, positive.name if positive else "", options, process)
        if report is not None:
            config = replace(config, start_report=report.text)
        drafts.append(RunDraft(config, data, stage.augmentation, stage.settings.left_to_device))
    return drafts


def _stage_cache(stage: Stage, location: Location, copies: LocalCopiesChoice) -> Cache:
    try:
        cache = open_chosen_cache(location, copies, size_px=stage.cache_size_px, recipe=stage.recipe)
    except CacheError as error:
        sizes = stage.settings.sizes
        if sizes is None:
            raise
        raise CacheError(
            f"{error}; the last of the sizes ({sizes_text(sizes)}) is the size of the cache, from "
            "which the others are reduced"
        ) from None
    except UsageError as error:
        if stage.cache_size_px is not None or stage.recipe is not None:
            raise
        raise UsageError(f"{error}\nor choose one by its size or recipe") from None
    classes = cache.manifest.classes
    if len(classes) < MIN_CLASSES:
        raise UsageError(f"{cache.location} has one class ({', '.join(classes)}): there is nothing to tell apart")
    return cache


def _require_same_images(first: Cache, other: Cache) -> None:
    """Require that all stages have the same split: no stage may train on images that evaluate another."""
    if first.manifest.has_looks != other.manifest.has_looks:
        without = other if first.manifest.has_looks else first
        raise UsageError(
            f"{without.location}: {WITHOUT_LOOKS}. The plan's other cache has them, and all stages need the same split"
        )
    is_same = first.manifest.classes == other.manifest.classes
    if not is_same or not all(map(np.array_equal, _split_columns(first.table), _split_columns(other.table))):
        raise UsageError(
            f"{other.location} holds other images than {first.location}, or other labels or subjects of them: build "
            "both from the same source, because all stages need the same split"
        )


def _split_columns(table: SampleTable) -> Iterator[NDArray[Any]]:
    """Yield the columns on which a split depends, in the order of the ids."""
    order = np.argsort(table.ids)
    columns = (table.ids, table.subjects, table.labels, table.splits, table.folds, table.pixel_digests)
    return (column[order] for column in columns)


def _seen_before(stage: Stage, earlier: Sequence[RunDraft], cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Return the overlap of the split with the training data of the stage's initial weights."""
    if stage.start.path is not None:
        return seen_before(stage.start.path, cache, codes)
    before = [draft.data.seen_before for draft in earlier if draft.config.stage == stage.start.stage != ""]
    return before[0] if before else NOTHING_SEEN_BEFORE


def _config(
    plan: TrainingPlan, number: int, data: SplitCache, positive: str, options: RunOptions, process: TrainingProcess
) -> RunConfig:
    stage, cache, indices = plan.stages[number], data.cache, data.indices(TRAIN)
    precision = decide_precision(
        stage.settings.precision,
        process.device,
        has_bf16=process.has_bf16,
        size_px=stage.settings.smallest_px(cache.size_px),
    )
    return RunConfig(
        model_name=plan.model_name,
        cache_dir=lasting_name(cache),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split=str(data.spec),
        split_seed=options.split_seed,
        batch_size=stage.batch_size,
        normalization=_normalization(cache, indices, options, process.console).to_dict(),
        settings=replace(
            replace(stage.settings, precision=precision).decided(process.device),
            seed=_stage_seed(options.seed, number),
            num_classes=len(cache.manifest.classes),
            class_weights=_class_weights(stage.class_weights, cache.table.labels[indices], len(cache.manifest.classes)),
        ),
        augmentation=stage.augmentation.to_dict(),
        sampling=stage.sampling,
        draws_by_occurrence=True,
        start=_start_file(plan, stage),
        judging=plan.evaluation.to_dict(),
        stage=stage.name if plan.is_staged else "",
        class_weights=stage.class_weights,
        positive=positive,
        seen_before=data.seen_before,
    )


def _normalization(cache: Cache, indices: NDArray[np.int64], options: RunOptions, console: Console) -> Normalization:
    """Return the normalisation of the options, checked against some training images."""
    normalization = options.normalize
    if isinstance(normalization, str):
        is_measured = normalization == TRAIN_STATISTICS
        normalization = train_statistics(cache, indices) if is_measured else _known_or_parsed(normalization)
    step = max(len(indices) // _GUARD_IMAGES, 1)
    try:
        check_normalization(normalization, cache.reader.gather(indices[::step]))
    except UsageError as error:
        if not options.force_normalize:
            raise UsageError(f"{error}; --force-normalize uses them all the same") from None
        console.warn(f"{error}; used all the same, as --force-normalize says")
    return normalization


def train_statistics(cache: Cache, indices: NDArray[np.int64]) -> Normalization:
    """Return the exact mean and standard deviation of some images of a cache, per channel on the scale [0, 1].

    Raises
    ------
    UsageError
        If there is no image.
    """
    sums, square_sums = cache.table.channel_sums[indices], cache.table.channel_square_sums[indices]
    statistics = channel_statistics(sums, square_sums, cache.pixels_per_image)
    if statistics is None:
        raise UsageError("there is no image to train on")
    return Normalization(statistics.mean, statistics.std)


def _known_or_parsed(text: str) -> Normalization:
    if text == IMAGENET_STATISTICS:
        return IMAGENET
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise UsageError(f"--normalize {text!r}: give train, imagenet, or mean and std as six numbers: R,G,B,R,G,B")
    return Normalization.of(numbers[:3], numbers[3:])


def _start_file(plan: TrainingPlan, stage: Stage) -> str:
    """Return ``scratch``, an absolute path, or a checkpoint of an earlier stage relative to this stage's folder."""
    if stage.start.path is not None:
        return str(stage.start.path.resolve())
    if not stage.start.stage:
        return stage.start.kind
    [number] = [n for n, earlier in enumerate(plan.stages) if earlier.name == stage.start.stage]
    folder = RunFolder(Path("..") / stage_folder_name(number, stage.start.stage))
    return folder.checkpoint(stage.start.kind).as_posix()


def _stage_seed(seed: int, number: int) -> int:
    """Return the seed for the first stage; later stages get others, so that orders and draws do not repeat."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)


def _class_weights(kind: str, labels_N: NDArray[np.int16], num_classes: int) -> tuple[float, ...] | None:
    """Return images / (classes * images of the class), as scikit-learn's ``balanced``: mean 1 over the images."""
    if kind == "none":
        return None
    counts = np.bincount(labels_N, minlength=num_classes)
    return tuple((len(labels_N) / (num_classes * counts)).tolist())
