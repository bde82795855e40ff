"""Run a build plan and commit what it made."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import h5py
import numpy as np

from leukemia_data import __version__
from leukemia_data.building.build_request import BuildSummary, BuiltCache
from leukemia_data.building.garbage import clear_receipts
from leukemia_data.building.plan import BuildPlan, TargetPlan
from leukemia_data.building.prior import KeptShard
from leukemia_data.building.shard_task import ShardResult, TaskRunner
from leukemia_data.caches.codec import codec_named
from leukemia_data.caches.hdf5_file import SampleIndex, write_index
from leukemia_data.caches.manifest import Manifest, QuarantinedImage, ShardEntry, is_whole, save_manifest, source_state
from leukemia_data.errors import BuildError
from leukemia_data.files.atomic import sync_directory, sync_file
from leukemia_data.files.limits import is_disk_full
from leukemia_data.records.fingerprint import LOOKS_VERSION
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable, is_settled, settled, state_at, states_array


class CommitTarget(Protocol):
    """Receives the finished shards and manifests of a build."""

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if the plan cannot be carried out: shards to keep are gone, or there is too little room."""
        ...

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Raise BuildError if a shard that a worker reported is missing."""
        ...

    def flush(self, path: Path) -> None:
        """Make a finished shard durable."""
        ...

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Publish a manifest, after its shards and index are written to `directory`."""
        ...


class DiskCommitTarget:
    """The directories of the plan themselves; see :class:`CommitTarget`.

    With `is_made`, the shards are on disk already, so no free space is checked for them.
    """

    def __init__(self, *, is_made: bool = False) -> None:
        self._is_made = is_made

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if a shard to keep is missing, or there is too little room."""
        for target in plan.targets:
            for kept in target.kept:
                if kept is not None and not is_whole(target.target.directory, kept.entry):
                    raise BuildError(
                        f"{target.target.directory / kept.entry.name} vanished while this build was being planned: "
                        "another build and gc were faster; build again"
                    )
        directory = plan.targets[0].target.directory
        needed, free = plan.bytes_to_write(), shutil.disk_usage(directory).free
        if needed > free and not self._is_made:
            raise BuildError(
                f"not enough room at {directory}: the build writes {needed:,} bytes, {free:,} are free; "
                "make room, name another place with --cache, or build one --size at a time"
            )

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Raise BuildError if the shard is missing here: workers may see another file system."""
        if not is_whole(directory, entry):
            raise BuildError(
                f"{directory / entry.name} was made by a worker but is not there: do all workers see this folder?"
            )

    def flush(self, path: Path) -> None:
        """Block until the shard is on disk."""
        sync_file(path)

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Replace the manifest, then remove the receipts."""
        sync_directory(directory)
        save_manifest(directory, manifest)
        clear_receipts(directory)


_MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """Maximal unusable images, which are left out and listed in the manifest; None fails at the first one."""

    max_bad: int | None = None

    def check(self, bad: Sequence[QuarantinedImage], num_records: int) -> None:
        """Raise BuildError, naming the images and reasons, when there are too many."""
        if len(bad) <= (self.max_bad or 0):
            return
        lines = "".join(f"\n  {image.record_id}: {image.reason}" for image in bad[:_MAX_LISTED])
        rest = f"\n  and {len(bad) - _MAX_LISTED} more" if len(bad) > _MAX_LISTED else ""
        if self.max_bad is None:
            remedy = "repair or remove them, or leave them out with --on-error quarantine"
        else:
            remedy = f"more than --max-bad allows ({self.max_bad})"
        raise BuildError(
            f"{len(bad)} of {num_records} images cannot be used: {remedy}. "
            f"What is finished is kept for the next build.{lines}{rest}"
        )


def run_locked_build(
    plan: BuildPlan,
    *,
    run_tasks: TaskRunner,
    policy: FailurePolicy,
    listed_at_ns: int,
    progress: Callable[[int], object],
    commit_target: CommitTarget | None = None,
) -> BuildSummary:
    """Make the missing shards of a build plan and commit its caches. The caller holds their locks.

    Parameters
    ----------
    run_tasks
        Engine that runs the tasks; the bytes do not depend on it.
    listed_at_ns
        Clock when the source was listed (ns since the epoch).
    progress
        Called with the number of images that each finished shard adds.
    commit_target
        Where the caches are committed; the plan's directories by default.

    Raises
    ------
    BuildError
        If there is no image, too little room, too many images are unusable, or the disk fills up. Earlier caches stay
        as they were, finished shards are kept for the next build.
    """
    if not plan.records:
        raise BuildError(f"{plan.inputs.name}: the source has no images; what is to be cached?")
    commit_target = DiskCommitTarget() if commit_target is None else commit_target
    policy.check(plan.quarantined, len(plan.records))
    commit_target.check(plan)
    results = _run_tasks(plan, run_tasks, policy, progress, commit_target)
    bad = (*plan.quarantined, *(failure for result in results.values() for failure in result.failures))
    policy.check(bad, len(plan.records))
    if len(bad) == len(plan.records):
        raise BuildError(f"none of the {len(bad)} images can be used, the first because: {bad[0].reason}")
    bad = tuple(sorted(bad, key=lambda image: image.record_id))
    caches = tuple(_commit(plan, target, results, bad, listed_at_ns, commit_target) for target in plan.targets)
    num_made = sum(result.num_records for result in results.values())
    return BuildSummary(
        caches=caches,
        num_images=len(plan.records),
        num_processed=sum(result.num_processed for result in results.values()),
        num_copied=sum(result.num_copied for result in results.values()),
        num_kept=len(plan.records) - len(plan.quarantined) - num_made,
        quarantined=bad,
    )


def library_versions() -> dict[str, str]:
    """Return the releases of all libraries that affect the bytes, as recorded in manifests."""
    return {
        "leukemia-cells": __version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _run_tasks(
    plan: BuildPlan,
    run_tasks: TaskRunner,
    policy: FailurePolicy,
    progress: Callable[[int], object],
    commit_target: CommitTarget,
) -> dict[int, ShardResult]:
    """Results by shard number. Shards are flushed to disk in the background while later ones are computed."""
    numbers = plan.tasks.numbers
    results: dict[int, ShardResult] = {}
    num_bad = len(plan.quarantined)
    flushes: list[Future[None]] = []
    with write_faults_named(plan.targets[0].target.directory):
        with ThreadPoolExecutor(max_workers=1) as flusher:
            for position, result in run_tasks(plan.tasks):
                results[numbers[position]] = result
                for target in plan.tasks.targets_of(numbers[position]):
                    if target.size_px in result.entries:
                        entry = result.entries[target.size_px]
                        commit_target.check_made(target.directory, entry)
                        flushes.append(flusher.submit(commit_target.flush, target.directory / entry.name))
                progress(result.num_records)
                num_bad += len(result.failures)
                if policy.max_bad is not None and num_bad > policy.max_bad:
                    break
        for flush in flushes:
            flush.result()
    return results


@contextmanager
def write_faults_named(directory: Path) -> Iterator[None]:
    """Turn an OSError of writing shards into a BuildError that names the file, or else `directory`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise BuildError(
                f"the disk is full ({error.filename or directory}): make room and build again; finished shards are kept"
            ) from error
        raise BuildError(f"a shard could not be written: {error}; finished shards are kept") from error


def _commit(
    plan: BuildPlan,
    target_plan: TargetPlan,
    results: Mapping[int, ShardResult],
    bad: tuple[QuarantinedImage, ...],
    listed_at_ns: int,
    commit_target: CommitTarget,
) -> BuiltCache:
    """Write the index, then the manifest, then remove the receipts."""
    inputs, target = plan.inputs, target_plan.target
    shards: list[ShardEntry] = []
    parts: list[SampleIndex] = []
    for number, kept in enumerate(target_plan.kept):
        entry, part = _shard_rows(target_plan, kept, results.get(number))
        if entry is not None:
            shards.append(entry)
            parts.append(part)
    states = np.concatenate([states_array([], 0), *(part.source_states for part in parts)])
    table = SampleTable.concatenate([part.table for part in parts])
    index = SampleIndex(table, settled(states, listed_at_ns))
    # The source's state, by which the next build sees that nothing changed, unless files have to be read again.
    is_known = is_settled(index.source_states).all()
    state = source_state(inputs.classes, _indexed_records(plan, index, bad), inputs.reading) if is_known else None
    manifest = Manifest(
        name=inputs.name,
        size_px=target.size_px,
        fingerprint=target.fingerprint,
        recipe=inputs.recipe,
        classes=inputs.classes,
        shards=tuple(shards),
        index=write_index(target.directory, index),
        quarantined=bad,
        library_versions={**library_versions(), **codec_named(target.codec).library_versions},
        source_state=state,
        codec=target.codec,
        shard_capacity=plan.shard_capacity,
        reading=inputs.reading,
        looks_version=LOOKS_VERSION,
    )
    commit_target.commit(target.directory, manifest)
    return BuiltCache(target.stored_at or target.directory, manifest, sum(kept is None for kept in target_plan.kept))


def _shard_rows(
    target_plan: TargetPlan, kept: KeptShard | None, result: ShardResult | None
) -> tuple[ShardEntry | None, SampleIndex]:
    """A shard's manifest entry and index rows, from the earlier cache or from the task that made it."""
    size_px = target_plan.target.size_px
    if kept is not None and target_plan.prior is not None:
        return kept.entry, target_plan.prior.index.rows(slice(kept.first_row, kept.end_row))
    if result is None:
        raise BuildError("the build was stopped before all shards were made")
    return result.entries.get(size_px), SampleIndex(result.tables[size_px], result.source_states)


def _indexed_records(plan: BuildPlan, index: SampleIndex, bad: Sequence[QuarantinedImage]) -> Iterator[Record]:
    """The records with the file states that the index holds; quarantined ones as they were listed."""
    columns, left_out = plan.tasks.columns, {image.record_id for image in bad}
    positions = plan.tasks.positions_M
    if left_out:
        is_used = [plan.records[position].record_id not in left_out for position in positions.tolist()]
        positions = positions[np.array(is_used, np.bool_)]
    is_other = np.zeros(len(positions), np.bool_)
    for listed, committed in zip(columns.states.T, index.source_states.T, strict=True):
        is_other |= listed[positions] != committed
    other_row_of = dict(zip(positions[is_other].tolist(), np.flatnonzero(is_other).tolist(), strict=True))
    for position, record in enumerate(plan.records):
        row = other_row_of.get(position)
        yield record if row is None else replace(record, state=state_at(index.source_states, row))
