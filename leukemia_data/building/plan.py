"""The build plan: which shards are kept, which are made and from what, and which labels changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.planned_tasks import PlannedTasks, TasksToRun, default_capacity, sample_order, shard_bounds
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


def changed_meaning(
    columns: RecordColumns, match: PriorMatch, classes: Sequence[str], reading: Mapping[str, Any] | None
) -> Iterator[str]:
    """Return sentences on labels, subjects and options that differ from the earlier cache.

    Parameters
    ----------
    columns
        The source's records.
    match
        Their rows in the earlier cache.
    classes, reading
        Class names of the source, and how it was read.
    """
    manifest = match.prior.manifest
    if _is_comparable(manifest.reading) and reading is not None:
        yield from differences(Reading.from_dict(manifest.reading), Reading.from_dict(reading))
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
        now = texts.values[texts.codes[positions]]
        if not np.array_equal(column[rows], now):
            yield from _changes(title, _decoded(column[rows]), _decoded(now))


def _is_comparable(reading: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether a manifest has a reading of this release's form."""
    try:
        return reading is not None and bool(Reading.from_dict(reading))
    except (KeyError, TypeError, ValueError):
        return False


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


_STATE_BYTES = 4 * np.int64().nbytes


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
    tasks
        Per shard the task, created on demand, or None if every cache keeps the shard.
    quarantined
        Images known to be unusable: missing, or unusable at the last build and unchanged.
    notes
        Messages to the user.
    shard_capacity
        As set by the user, now or at an earlier build; None if it follows from the number of images.
    reading
        How the source was read, as stored in manifests.
    """

    name: str
    recipe: Recipe
    classes: tuple[str, ...]
    records: Sequence[Record]
    targets: tuple[TargetPlan, ...]
    tasks: PlannedTasks
    quarantined: tuple[QuarantinedImage, ...]
    notes: tuple[str, ...]
    shard_capacity: int | None
    reading: Mapping[str, Any] | None = None

    @property
    def tasks_to_run(self) -> TasksToRun:
        """The tasks without the gaps, in shard order."""
        return TasksToRun(self.tasks)

    @property
    def num_to_make(self) -> int:
        """Images of all tasks."""
        return int(self.tasks.sizes[self.tasks.numbers].sum())

    def bytes_to_write(self) -> int:
        """Size of the new shards and indexes: pixels and rows exact, headers rounded up."""
        row_bytes = self.tasks.columns.row_bytes
        indexes = len(self.targets) * shard_bytes(len(self.records), 0, row_bytes + _STATE_BYTES)
        sizes = self.tasks.sizes
        shards = sum(
            shard_bytes(num_samples, plan.target.size_px, row_bytes, plan.target.codec)
            for plan, is_lacking in zip(self.targets, self.tasks.is_lacking, strict=True)
            for num_samples in sizes[is_lacking].tolist()
        )
        return indexes + shards


def plan_build(
    *,
    name: str,
    cache_root: Path,
    recipe: Recipe,
    sizes_px: Sequence[int],
    classes: Sequence[str],
    records: Sequence[Record],
    opencv_version: str,
    shard_capacity: int | None = None,
    codec: str | None = None,
    quarantined: Sequence[QuarantinedImage] | None = None,
    recheck_ns: int | None = None,
    stored: Mapping[Path, StoredCache] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> BuildPlan:
    """Compare a source with the existing caches in ``cache_root/name/<size>-<fingerprint>``, one per size.

    Parameters
    ----------
    recipe, sizes_px, opencv_version
        The identity of the caches.
    classes, records, reading
        The source's listing, and how it was read (:meth:`leukemia_data.sources.reading.Reading.to_dict`).
    shard_capacity, codec
        See :class:`leukemia_data.building.build_request.BuildRequest`.
    quarantined
        Images known to be unusable from an earlier plan of this listing.
    recheck_ns
        Time (ns since the epoch) of a recheck: every file is read and its digest compared, and shards left by an
        unfinished build are ignored. None trusts the states of files.
    stored
        By directory: the caches in an object store; the directory holds copies of manifest and index.

    Raises
    ------
    CacheError
        If the earlier cache of this name shares no image with the source, or a codec's library is not installed.
    """
    notes: list[str] = []
    wanted = [_target(size_px, cache_root / name, recipe, opencv_version, stored) for size_px in sizes_px]
    priors = [load_prior(target, notes, _files(target, stored)) for target in wanted]
    targets = tuple(
        replace(each, codec=_choose_codec(codec, prior)) for each, prior in zip(wanted, priors, strict=True)
    )
    columns = RecordColumns.of(records)
    matches = _match(columns, targets, priors, recheck_ns)
    notes += _notes_on_matches(columns, matches, classes, reading)
    matches = tuple(match if match is not None and match.prior.manifest.has_looks else None for match in matches)
    bad = _find_unusable(columns, priors) if quarantined is None else _positions_of(columns, quarantined)
    decided = _decided_capacity(shard_capacity, priors)
    capacity = decided or default_capacity(len(columns))
    notes += _notes_on_new_cut(capacity, targets, priors)
    positions, bounds = _cut(columns, bad, capacity)
    pairs = zip(targets, matches, strict=True)
    kept = [find_kept(columns, positions, bounds, match, target.codec) for target, match in pairs]
    is_lacking = np.array([[shard is None for shard in shards] for shards in kept], np.bool_)
    tasks = PlannedTasks(recipe, columns, positions, bounds, targets, matches, is_lacking, recheck_ns)
    plans = tuple(TargetPlan(*each) for each in zip(targets, priors, map(tuple, kept), strict=True))
    unusable = tuple(QuarantinedImage(records[position].record_id, reason) for position, reason in bad)
    return BuildPlan(name, recipe, tuple(classes), records, plans, tasks, unusable, tuple(notes), decided, reading)


def _match(
    columns: RecordColumns, targets: Sequence[Target], priors: Sequence[PriorCache | None], recheck_ns: int | None
) -> tuple[PriorMatch | None, ...]:
    """Match the records with each earlier cache; a recheck ignores the states of files."""
    matches = [
        None if prior is None else match_prior(columns, target, prior)
        for target, prior in zip(targets, priors, strict=True)
    ]
    if recheck_ns is None:
        return tuple(matches)
    return tuple(None if match is None else match.distrusted() for match in matches)


def _notes_on_matches(
    columns: RecordColumns,
    matches: Sequence[PriorMatch | None],
    classes: Sequence[str],
    reading: Mapping[str, Any] | None,
) -> Iterator[str]:
    yield from _notes_on_states(matches)
    changed = (
        note for match in matches if match is not None for note in changed_meaning(columns, match, classes, reading)
    )
    yield from dict.fromkeys(changed)
    yield from _notes_on_looks(matches)


def _target(
    size_px: int, folder: Path, recipe: Recipe, opencv_version: str, stored: Mapping[Path, StoredCache] | None
) -> Target:
    fingerprint = cache_fingerprint(recipe, size_px, opencv_version)
    directory = folder / cache_dir_name(size_px, fingerprint)
    return Target(size_px, fingerprint, directory, stored_at=None if stored is None else stored[directory].url)


def _files(target: Target, stored: Mapping[Path, StoredCache] | None) -> Mapping[str, int] | None:
    return None if stored is None else stored[target.directory].files


def _choose_codec(wanted: str | None, prior: PriorCache | None) -> str:
    """Return the codec of a target, and import its library and that of the earlier one, to fail early."""
    earlier = RAW if prior is None else prior.manifest.codec
    for name in {earlier, wanted or earlier}:
        codec_named(name)
    return wanted or earlier


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


def _notes_on_states(matches: Sequence[PriorMatch | None]) -> Iterator[str]:
    """Messages on why files of unchanged size and time are read again."""
    known = [match for match in matches if match is not None]
    if not all(match.prior.index.has_change_times for match in known):
        yield (
            "the cache is of a release that did not record change times and numbers of files: every file is read once, "
            "and its digest decides"
        )
    num_restamped = int(np.any([match.restamped_N for match in known], axis=0).sum()) if known else 0
    if num_restamped:
        yield (
            f"{num_restamped:,} files have the size and modification time that they had, but another change time or "
            "number: read again, their digests decide"
        )


def _notes_on_looks(matches: Sequence[PriorMatch | None]) -> Iterator[str]:
    """Messages for a cache whose rows lack the looks of their images, and is therefore made again."""
    if not all(match is None or match.prior.manifest.has_looks for match in matches):
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
    doubtful = np.flatnonzero(is_doubtful).tolist()
    reasons = [(position, _why_unusable(columns.records[position])) for position in doubtful]
    return [(position, reason) for position, reason in reasons if reason is not None]


def _positions_of(columns: RecordColumns, quarantined: Sequence[QuarantinedImage]) -> list[tuple[int, str]]:
    reasons = {image.record_id: image.reason for image in quarantined}
    if not reasons:
        return []
    ids = (record.record_id for record in columns.records)
    return [(position, reasons[record_id]) for position, record_id in enumerate(ids) if record_id in reasons]


def _why_unusable(record: Record) -> str | None:
    try:
        decode_rgb(read_file(record.path).data)
    except ImageError as error:
        return str(error)
    return None
