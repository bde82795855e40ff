"""The build plan: which shards are kept, which are made and from what, and which labels changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.planned_tasks import PlannedTasks, default_capacity, sample_order, shard_bounds
from leukemia_data.building.prior import (
    ABSENT,
    KeptShard,
    PriorCache,
    PriorMatch,
    RecordColumns,
    find_kept,
    load_prior,
    match_prior,
)
from leukemia_data.building.shard_task import Target
from leukemia_data.caches.codec import RAW, codec_named
from leukemia_data.caches.manifest import CAPACITY_BY_COUNT, QuarantinedImage, cache_dir_name
from leukemia_data.caches.shard import shard_bytes
from leukemia_data.decoding.decode import decode_rgb, read_file
from leukemia_data.errors import ImageError, listed
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import cache_fingerprint
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SIZE
from leukemia_data.sources.reading import Reading, differences

if TYPE_CHECKING:
    from leukemia_data.caches.remote_cache import StoredCache


_MAX_CHANGES = 4
_NO_NAME = "none"


def changed_meaning(columns: RecordColumns, match: PriorMatch, inputs: PlanInputs) -> Iterator[str]:
    """Return sentences on labels, subjects and options that differ from the earlier cache.

    `columns` are the source's records, `match` their rows in the earlier cache.
    """
    manifest, classes = match.prior.manifest, inputs.classes
    if manifest.understood is not None and inputs.reading is not None:
        yield from differences(manifest.understood, Reading.from_dict(inputs.reading))
    elif list(manifest.classes) != list(classes):
        # The order of the classes alone may differ, which no image shows.
        yield f"classes {listed(manifest.classes)}, now {listed(classes)}"
    positions = np.flatnonzero(match.rows_N != ABSENT)
    rows, table = match.rows_N[positions], match.prior.index.table
    before = _names(manifest.classes)[table.labels[rows]]
    yield from _changes("class", before, _names(classes)[columns.labels[positions]])
    for title, column, texts in (
        ("subject", table.subjects, columns.subjects),
        ("split", table.splits, columns.splits),
    ):
        now = texts.at(positions)
        if not np.array_equal(column[rows], now):
            yield from _changes(title, _decoded(column[rows]), _decoded(now))


def _names(classes: Sequence[str]) -> NDArray[np.object_]:
    """Class names by label; the last one is for -1, an unknown label."""
    return np.array([*classes, _NO_NAME], object)


def _decoded(texts: NDArray[np.bytes_]) -> NDArray[np.object_]:
    values, codes = np.unique(texts, return_inverse=True)
    decoded = [value.decode("utf-8", "surrogateescape") or _NO_NAME for value in values.tolist()]
    return np.array(decoded, object)[codes]


def _changes(title: str, before: NDArray[np.object_], now: NDArray[np.object_]) -> Iterator[str]:
    is_other = before != now
    num_changed = int(is_other.sum())
    if not num_changed:
        return
    pairs = Counter(zip(before[is_other].tolist(), now[is_other].tolist(), strict=True))
    shown = listed((f"{old} -> {new} {count:,}" for (old, new), count in pairs.most_common()), most=_MAX_CHANGES)
    yield f"{num_changed:,} of {len(before):,} images that the cache holds get another {title}: {shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What a build plan follows from, apart from the images and the existing caches.

    Attributes
    ----------
    name, cache_root
        The caches are in ``cache_root/name/<size>-<fingerprint>``, one per size.
    recipe, sizes_px, opencv_version
        The identity of the caches.
    classes, reading
        The source's classes, and how it was read (:meth:`leukemia_data.sources.reading.Reading.to_dict`).
    shard_capacity, codec
        See :class:`leukemia_data.building.build_request.BuildRequest`.
    recheck_ns
        Time (ns since the epoch) of a recheck: every file is read and its digest compared, and shards left by an
        unfinished build are ignored. None trusts the states of files.
    """

    name: str
    cache_root: Path
    recipe: Recipe
    sizes_px: tuple[int, ...]
    classes: tuple[str, ...]
    opencv_version: str
    shard_capacity: int | None = None
    codec: str | None = None
    recheck_ns: int | None = None
    reading: Mapping[str, Any] | None = None

    def target(self, size_px: int, codec: str = RAW) -> Target:
        """Return the cache of a size, in a folder."""
        fingerprint = cache_fingerprint(self.recipe, size_px, self.opencv_version)
        return Target(size_px, fingerprint, self.cache_root / self.name / cache_dir_name(size_px, fingerprint), codec)


@dataclass(frozen=True)
class TargetPlan:
    """One cache: its earlier state, and per shard the kept one, or None if a task makes it."""

    target: Target
    prior: PriorCache | None
    kept: tuple[KeptShard | None, ...]


@dataclass(frozen=True)
class BuildPlan:
    """Everything that a build will do.

    Attributes
    ----------
    records
        The source's listing.
    targets
        One per size, all with the same number of shards.
    quarantined
        Images known to be unusable: missing, or unusable at the last build and unchanged.
    notes
        Messages to the user.
    shard_capacity
        As set by the user, now or at an earlier build; None if it follows from the number of images.
    """

    inputs: PlanInputs
    records: Sequence[Record]
    targets: tuple[TargetPlan, ...]
    tasks: PlannedTasks
    quarantined: tuple[QuarantinedImage, ...]
    notes: tuple[str, ...]
    shard_capacity: int | None

    @property
    def num_to_make(self) -> int:
        """Images of all tasks."""
        return sum(self.tasks.num_records())

    def bytes_to_write(self) -> int:
        """Size of the new shards and indexes: pixels and rows exact, headers rounded up."""
        row_bytes = self.tasks.columns.row_bytes
        indexes = len(self.targets) * shard_bytes(len(self.records), 0, row_bytes + 4 * np.int64().nbytes)
        shards = sum(
            shard_bytes(num_samples, plan.target.size_px, row_bytes, plan.target.codec)
            for plan, is_lacking in zip(self.targets, self.tasks.is_lacking, strict=True)
            for num_samples in self.tasks.sizes[is_lacking].tolist()
        )
        return indexes + shards


def plan_build(
    inputs: PlanInputs,
    records: Sequence[Record],
    *,
    quarantined: Sequence[QuarantinedImage] | None = None,
    stored: Mapping[Path, StoredCache] | None = None,
) -> BuildPlan:
    """Compare a source with the existing caches.

    Parameters
    ----------
    records
        The source's listing.
    quarantined
        Images known to be unusable from an earlier plan of this listing.
    stored
        By directory: the caches in an object store; the directory holds copies of manifest and index.

    Raises
    ------
    CacheError
        If the earlier cache of this name shares no image with the source, or a codec's library is not installed.
    """
    notes: list[str] = []
    found = [_target_and_prior(inputs, size_px, stored, notes) for size_px in inputs.sizes_px]
    targets, priors = (tuple(each) for each in zip(*found, strict=True))
    columns = RecordColumns.of(records)
    matches = tuple(
        None if prior is None else match_prior(columns, target, prior, is_recheck=inputs.recheck_ns is not None)
        for target, prior in found
    )
    notes += _notes_on_matches(columns, [match for match in matches if match is not None], inputs)
    matches = tuple(match if match is not None and match.prior.manifest.has_looks else None for match in matches)
    bad = _find_unusable(columns, priors) if quarantined is None else _positions_of(columns, quarantined)
    decided = _decided_capacity(inputs.shard_capacity, priors)
    capacity = decided or default_capacity(len(columns))
    notes += _notes_on_new_cut(capacity, targets, priors)
    positions, bounds = _cut(columns, bad, capacity)
    kept = [
        tuple(find_kept(columns, positions, bounds, match, target.codec))
        for target, match in zip(targets, matches, strict=True)
    ]
    is_lacking = np.array([[shard is None for shard in shards] for shards in kept], np.bool_)
    tasks = PlannedTasks(inputs.recipe, columns, positions, bounds, targets, matches, is_lacking, inputs.recheck_ns)
    plans = tuple(map(TargetPlan, targets, priors, kept))
    unusable = tuple(QuarantinedImage(records[position].record_id, reason) for position, reason in bad)
    return BuildPlan(inputs, records, plans, tasks, unusable, tuple(notes), decided)


def _target_and_prior(
    inputs: PlanInputs, size_px: int, stored: Mapping[Path, StoredCache] | None, notes: list[str]
) -> tuple[Target, PriorCache | None]:
    """The cache of a size and its earlier state. Imports the codecs of both, to fail early."""
    target, files = inputs.target(size_px), None
    if stored is not None:
        cache = stored[target.directory]
        target, files = replace(target, stored_at=cache.url), cache.files
    prior = load_prior(target, notes, files)
    earlier = RAW if prior is None else prior.manifest.codec
    wanted = inputs.codec or earlier
    for name in {earlier, wanted}:
        codec_named(name)
    return replace(target, codec=wanted), prior


def _decided_capacity(wanted: int | None, priors: Sequence[PriorCache | None]) -> int | None:
    """The capacity set by the user, now or earlier; None if it follows from the number of images."""
    if wanted is not None:
        return None if wanted == CAPACITY_BY_COUNT else wanted
    recorded = (prior.manifest.shard_capacity for prior in priors if prior is not None)
    return next((capacity for capacity in recorded if capacity is not None), None)


def _notes_on_new_cut(capacity: int, targets: Sequence[Target], priors: Sequence[PriorCache | None]) -> Iterator[str]:
    """Messages for earlier caches with another shard size, whose pixels will be copied."""
    how = "pixels are copied, not preprocessed again" if all(priors) else "all is preprocessed again for the new size"
    for target, prior in zip(targets, priors, strict=True):
        if prior is None:
            continue
        num_listed = prior.manifest.num_samples + len(prior.manifest.quarantined)
        earlier = prior.manifest.shard_capacity or default_capacity(num_listed)
        if earlier != capacity:
            yield (
                f"the {target.size_px} px cache was cut into shards of up to {earlier:,} images and is cut anew, up to "
                f"{capacity:,}: {how}, and `ldata gc` then frees the earlier shards"
            )


def _notes_on_matches(columns: RecordColumns, matches: Sequence[PriorMatch], inputs: PlanInputs) -> Iterator[str]:
    """Messages on changed labels, and on why unchanged files are read again or shards made again."""
    if not all(match.prior.index.has_change_times for match in matches):
        yield (
            "the cache is of a release that did not record change times and numbers of files: every file is read once, "
            "and its digest decides"
        )
    num_restamped = int(np.any([match.restamped_N for match in matches], axis=0).sum())
    if num_restamped:
        yield (
            f"{num_restamped:,} files have the size and modification time that they had, but another change time or "
            "number: read again, their digests decide"
        )
    yield from dict.fromkeys(note for match in matches for note in changed_meaning(columns, match, inputs))
    if not all(match.prior.manifest.has_looks for match in matches):
        yield (
            "the cache is of a release that kept no looks of its images, by which near-identical ones are found: every "
            "shard is made anew"
        )


def _cut(
    columns: RecordColumns, bad: Sequence[tuple[int, str]], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the usable records in sample order, and the shard bounds among them.

    Shards are cut before unusable images are removed, so that they do not depend on what an earlier build knew.
    """
    order = sample_order(columns.id_hashes, lambda position: columns.records[position].record_id)
    bounds = shard_bounds(columns.id_hashes[order], capacity)
    is_bad = np.zeros(len(columns), np.bool_)
    is_bad[[position for position, _ in bad]] = True
    num_usable_before = np.concatenate(([0], np.cumsum(~is_bad[order])))
    return order[~is_bad[order]], np.unique(num_usable_before[bounds]).astype(np.int64)


def _find_unusable(columns: RecordColumns, priors: Sequence[PriorCache | None]) -> list[tuple[int, str]]:
    """Positions of images known to be unusable, with reasons; images quarantined earlier are tried again."""
    before = {image.record_id for prior in priors if prior is not None for image in prior.manifest.quarantined}
    is_doubtful = columns.states[:, SIZE] < 0
    if before:
        is_doubtful |= np.fromiter((record.record_id in before for record in columns.records), np.bool_, len(columns))
    unusable = []
    for position in np.flatnonzero(is_doubtful).tolist():
        try:
            decode_rgb(read_file(columns.records[position].path).data)
        except ImageError as error:
            unusable.append((position, str(error)))
    return unusable


def _positions_of(columns: RecordColumns, quarantined: Sequence[QuarantinedImage]) -> list[tuple[int, str]]:
    reasons = {image.record_id: image.reason for image in quarantined}
    ids = (record.record_id for record in columns.records) if reasons else ()
    return [(position, reasons[record_id]) for position, record_id in enumerate(ids) if record_id in reasons]
