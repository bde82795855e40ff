"""Summary of a cache: description, counts, and statistics for normalisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache, Split, statistics_of
from leukemia_data.caches.statistics import ChannelStatistics, report_estimator
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import UsageError
from leukemia_data.records.record import NO_FOLD, UNKNOWN_LABEL
from leukemia_data.splitting.split_spec import DEFAULT_SPLIT

WHOLE = "all"
"""Name of the part with all samples, and of the split that divides nothing."""
_UNLABELLED = "unlabelled"


def describe_cache(cache: Cache) -> dict[str, Any]:
    """Return the values that ``ldata info`` shows, as JSON values."""
    manifest, table = cache.manifest, cache.table
    names = {UNKNOWN_LABEL: _UNLABELLED, **dict(enumerate(manifest.classes))}
    splits = {
        text.decode("utf-8", "surrogateescape") or "none": count
        for text, count in Counter(table.splits.tolist()).items()
    }
    folds = Counter(table.folds[table.folds != NO_FOLD].tolist())
    return {
        "directory": str(cache.location),
        "name": manifest.name,
        "size_px": manifest.size_px,
        "fingerprint": manifest.fingerprint,
        "num_samples": len(cache),
        "num_subjects": _num_named(table.subjects),
        "images_per_class": {names[label]: count for label, count in sorted(Counter(table.labels.tolist()).items())},
        "given_splits": splits,
        "given_folds": {str(fold): folds[fold] for fold in sorted(folds)},
        "num_bytes": manifest.num_bytes,
        "num_shards": len(manifest.shards),
        "shard_capacity": manifest.shard_capacity,
        "codec": manifest.codec,
        "compression_ratio": round(manifest.compression_ratio, 3),
        "recipe": manifest.recipe.to_dict(),
        "reading": None if manifest.reading is None else dict(manifest.reading),
        "quarantined": [asdict(image) for image in manifest.quarantined],
        "library_versions": dict(manifest.library_versions),
    }


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Numbers of images and subjects of a part, also by class name (``unlabelled`` last)."""

    images: int
    subjects: int
    images_per_class: Mapping[str, int]
    subjects_per_class: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AppliedSplit:
    """A split of a cache: name, seed, and the leak statement of reports with its limits."""

    name: str
    seed: int
    stamp: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """Counts and channel statistics of a cache.

    Attributes
    ----------
    cache
        Its location.
    size_px, recipe, classes
        Side of its images, name of its recipe, and its class names in the order of labels.
    split
        The split, or None.
    counts
        Of the whole cache (``all``) and of the split's parts.
    statistics
        Mean and standard deviation of ``all`` images and, with a split, of its part ``train``.
    """

    cache: str
    size_px: int
    recipe: str
    classes: tuple[str, ...]
    split: AppliedSplit | None
    counts: Mapping[str, PartCounts]
    statistics: Mapping[str, ChannelStatistics]

    @property
    def part(self) -> str:
        """The part for normalisation: ``train``, or ``all`` without a split."""
        return "train" if "train" in self.statistics else WHOLE

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "classes": list(self.classes)}


def cache_statistics(
    cache: Cache, split: str | None = None, seed: int = 0, *, console: Console = NULL_CONSOLE
) -> CacheStatistics:
    """Count images, classes and subjects, and compute exact mean and standard deviation per channel.

    Computed from the sums stored with each image, without reading pixels.

    Parameters
    ----------
    cache
        An opened cache.
    split
        Name of a split, as :func:`~leukemia_data.splitting.split_spec.parse_split` reads it, or ``all`` for none. None
        for the subject split; if the cache does not allow it, ``all`` with a note.
    seed
        Of the split.

    Raises
    ------
    UsageError
        If the split is impossible, or the part for normalisation has no images.
    CacheError
        If the stored sums are inconsistent.
    """
    divided, applied = _divide(cache, split, seed, console), None
    parts = _parts(cache, divided)
    if divided is not None:
        note = "" if cache.manifest.has_looks else WITHOUT_LOOKS
        applied = AppliedSplit(split or DEFAULT_SPLIT, seed, divided.stamp, note)
    return CacheStatistics(
        cache=str(cache.location),
        size_px=cache.size_px,
        recipe=cache.manifest.recipe.name,
        classes=cache.manifest.classes,
        split=applied,
        counts={name: _counts(cache, indices) for name, indices in parts.items() if name == WHOLE or len(indices)},
        statistics={name: statistics_of(cache, parts[name]) for name in (WHOLE, "train") if name in parts},
    )


def estimate_as_report(
    cache: Cache, split: str | None, seed: int, batch_size: int, *, console: Console = NULL_CONSOLE
) -> ChannelStatistics:
    """Return the first report's (wrong) mean and standard deviation of the part for normalisation.

    The arguments are those of :func:`cache_statistics`, and the batch size that the result depends on; see
    :func:`~leukemia_data.caches.statistics.report_estimator`.
    """
    parts = _parts(cache, _divide(cache, split, seed, console))
    indices, table = parts.get("train", parts[WHOLE]), cache.table
    sums, square_sums = table.channel_sums[indices], table.channel_square_sums[indices]
    estimate = report_estimator(sums, square_sums, cache.pixels_per_image, batch_size)
    if estimate is None:
        raise UsageError("there is no image in this part of the split")
    return estimate


def _divide(cache: Cache, split: str | None, seed: int, console: Console) -> Split | None:
    """The named split; by default the subject split, or None if the cache does not allow one."""
    if split == WHOLE:
        return None
    try:
        return cache.split(split or DEFAULT_SPLIT, seed)
    except UsageError as error:
        if split is not None:
            raise
        console.note(f"note: numbers of the whole cache only, because no split was named and {error}")
        return None


def _parts(cache: Cache, split: Split | None) -> dict[str, NDArray[np.int64]]:
    parts = [] if split is None else [split.train, split.valid, split.test]
    return {WHOLE: np.arange(len(cache), dtype=np.int64), **{part.name: part.indices for part in parts}}


def _counts(cache: Cache, indices: NDArray[np.int64]) -> PartCounts:
    labels, subjects = cache.table.labels[indices], cache.table.subjects[indices]
    names = [*enumerate(cache.manifest.classes), (UNKNOWN_LABEL, _UNLABELLED)]
    return PartCounts(
        images=len(indices),
        subjects=_num_named(subjects),
        images_per_class={name: int((labels == label).sum()) for label, name in names},
        subjects_per_class={name: _num_named(subjects[labels == label]) for label, name in names},
    )


def _num_named(subjects: NDArray[np.bytes_]) -> int:
    return len({subject for subject in subjects.tolist() if subject})
