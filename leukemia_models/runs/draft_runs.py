"""What a plan comes to on the caches that are there: every stage checked, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache
from leukemia_data.caches.opening import LocalCopiesChoice, lasting_name, open_chosen_cache
from leukemia_data.caches.statistics import channel_statistics
from leukemia_data.console import Console
from leukemia_data.errors import UsageError
from leukemia_data.records.near_looks import comparison_note
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.positive_class import positive_text
from leukemia_data.splitting.leaks import require_no_leak
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import SplitCodes
from leukemia_data.splitting.splits import assign_split
from leukemia_data.stores.url import Location
from leukemia_models.devices.normalization import Normalization, check_normalization
from leukemia_models.runs.run_checks import (
    leak_advice,
    require_memory,
    require_micro_batches,
    require_parts,
    require_start,
)
from leukemia_models.runs.run_config import TRAIN_STATISTICS, RunConfig, RunOptions, TrainingProcess
from leukemia_models.runs.run_folder import RunFolder, stage_folder_name
from leukemia_models.runs.run_split import TRAIN, SplitCache, data_digest, positive_of_caches
from leukemia_models.runs.start_weights import seen_before
from leukemia_models.training.training_plan import Stage, TrainingPlan

NUM_CLASSES = 2
_GUARD_IMAGES = 256
_NUM_NUMBERS = 6


@dataclass(frozen=True)
class RunDraft:
    """A run that could begin: its settings, its samples and its augmentation."""

    config: RunConfig
    data: SplitCache
    augmentation: Augmentation


def stage_caches(
    plan: TrainingPlan, cache: Location, positive: str | None, copies: LocalCopiesChoice, console: Console
) -> list[Cache]:
    """Open the cache of every stage, and say which class is the positive one.

    Parameters
    ----------
    plan
        Its stages name sizes and recipes.
    cache
        A cache, or a folder of caches of which one fits each stage; or the address of either.
    positive
        As in :class:`~leukemia_models.runs.run_config.RunOptions`.
    copies
        Where shards of a cache in an object store are copied to.
    console
        Hears of the positive class, and of caches without looks.

    Raises
    ------
    UsageError, CacheError
        If one is missing, they do not hold the same images, or nothing tells the positive class.
    """
    caches = [_stage_cache(stage, cache, copies) for stage in plan.stages]
    for other in caches[1:]:
        _require_same_images(caches[0], other)
    without_looks = [each for each in caches if not each.manifest.has_looks]
    if without_looks:
        console.note(f"note: {without_looks[0].location}: {WITHOUT_LOOKS}")
    if how := comparison_note(len(caches[0].table)):
        console.note(f"note: {how}")
    console.note(positive_text(caches[0].manifest.classes, positive_of_caches(caches, positive)))
    return caches


def draft_runs(
    plan: TrainingPlan,
    caches: Sequence[Cache],
    options: RunOptions,
    process: TrainingProcess,
    *,
    is_fold: bool = False,
) -> list[RunDraft]:
    """Check all that can be wrong with a plan's runs before anything is computed or written.

    Parameters
    ----------
    plan
        What to train.
    caches
        One for each stage, from :func:`stage_caches`.
    options
        How the data are used.
    process
        What a run is given to work on.
    is_fold
        Whether the split is one of a cross-validation, for what is recommended where it is refused.

    Raises
    ------
    UsageError, CacheError, RunError
        If a cache cannot be split or trained on as asked; if subjects would be on both sides of the split and nobody
        allowed it; if weights to start from do not fit.
    """
    positive = positive_of_caches(caches, options.positive).name
    drafts: list[RunDraft] = []
    for stage, cache in zip(plan.stages, caches, strict=True):
        require_start(stage, plan.model_name, cache.manifest.classes)
        data = _split(stage, drafts, cache, options)
        _check(stage, data, options, process, is_fold=is_fold)
        config = _config(plan, len(drafts), data, positive, options, process.console)
        drafts.append(RunDraft(config, data, stage.augmentation))
    return drafts


def _stage_cache(stage: Stage, location: Location, copies: LocalCopiesChoice) -> Cache:
    try:
        cache = open_chosen_cache(location, copies, size_px=stage.size_px, recipe=stage.recipe)
    except UsageError as error:
        if stage.size_px is not None or stage.recipe is not None:
            raise
        raise UsageError(f"{error}\nor choose one by its size or recipe") from None
    if len(cache.manifest.classes) != NUM_CLASSES:
        raise UsageError(
            f"{cache.location} has {len(cache.manifest.classes)} classes ({', '.join(cache.manifest.classes)}): "
            "networks are trained and evaluated with two"
        )
    return cache


def _require_same_images(first: Cache, other: Cache) -> None:
    """A split must mean the same in every stage: nobody may learn in one what evaluates another."""
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


def _split(stage: Stage, earlier: Sequence[RunDraft], cache: Cache, options: RunOptions) -> SplitCache:
    manifest, spec = cache.manifest, options.split_spec
    codes = assign_split(spec, cache.table, options.split_seed, manifest.classes, manifest.subjects)
    return SplitCache(cache, spec, codes, _seen_before(stage, earlier, cache, codes))


def _seen_before(stage: Stage, earlier: Sequence[RunDraft], cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Where the split meets what the stage's first weights have seen; all stages have one split."""
    if stage.start.path is not None:
        return seen_before(stage.start.path, cache, codes)
    before = [draft.data.seen_before for draft in earlier if draft.config.stage == stage.start.stage != ""]
    return before[0] if before else NOTHING_SEEN_BEFORE


def _check(stage: Stage, data: SplitCache, options: RunOptions, process: TrainingProcess, *, is_fold: bool) -> None:
    require_parts(data, stage, options, is_fold=is_fold)
    require_no_leak(
        data.leaks,
        str(data.spec),
        allow_leak=options.allow_leak,
        advice=partial(leak_advice, data, stage, options, is_fold=is_fold),
        console=process.console,
    )
    require_memory(data, process)
    require_micro_batches(stage.batch_size, len(data.indices(TRAIN)), stage.settings, process.ranks.world_size)


def _config(
    plan: TrainingPlan, number: int, data: SplitCache, positive: str, options: RunOptions, console: Console
) -> RunConfig:
    stage, cache, indices = plan.stages[number], data.cache, data.indices(TRAIN)
    settings = replace(
        stage.settings,
        seed=_stage_seed(options.seed, number),
        num_classes=NUM_CLASSES,
        class_weights=_class_weights(stage.class_weights, cache.table.labels[indices]),
    )
    return RunConfig(
        model_name=plan.model_name,
        cache_dir=lasting_name(cache),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split=str(data.spec),
        split_seed=options.split_seed,
        batch_size=stage.batch_size,
        normalization=choose_normalization(cache, indices, options, console).to_dict(),
        settings=settings,
        augmentation=stage.augmentation.to_dict(),
        sampling=stage.sampling,
        start=_start_file(plan, stage),
        judging=plan.evaluation.to_dict(),
        stage=stage.name if plan.is_staged else "",
        class_weights=stage.class_weights,
        positive=positive,
        seen_before=data.seen_before,
    )


def choose_normalization(
    cache: Cache, indices: NDArray[np.int64], options: RunOptions, console: Console
) -> Normalization:
    """Return the normalisation that is asked for, checked against some training images.

    Parameters
    ----------
    cache, indices
        The training images.
    options
        ``normalize``, and ``force_normalize``, with which numbers that do not fit are used with a warning.
    console
        Hears that warning.

    Raises
    ------
    UsageError
        If the text names no normalisation, or the numbers do not fit the images.
    """
    asked = options.normalize
    if isinstance(asked, Normalization):
        normalization = asked
    else:
        normalization = train_statistics(cache, indices) if asked == TRAIN_STATISTICS else _parsed(asked)
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
    table = cache.table
    statistics = channel_statistics(
        table.channel_sums[indices], table.channel_square_sums[indices], cache.pixels_per_image
    )
    if statistics is None:
        raise UsageError("there is no image to train on")
    return Normalization(statistics.mean, statistics.std)


def _parsed(text: str) -> Normalization:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != _NUM_NUMBERS:
        raise UsageError(f"--normalize {text!r}: give train, or mean and std as six numbers: R,G,B,R,G,B")
    return Normalization.of(numbers[:3], numbers[3:])


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
