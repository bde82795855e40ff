"""Build caches from a listed source, under the caches' locks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.build_request import BuildRequest, BuildSummary, ListedSource, MaxBad
from leukemia_data.building.engine import EngineChoice
from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.console import Console
from leukemia_data.files.lock import lock_caches, note_waiting
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import installed_opencv_version, opencv_conflict
from leukemia_data.scanning.frame_notes import SizedRecipe, cautions, frame_caution
from leukemia_data.scanning.scan import with_frames
from leukemia_data.sources.reading import Reading

if TYPE_CHECKING:
    from leukemia_data.caches.remote_cache import StoredCache

_MAX_READING_LINES = 12


def build_listed(request: BuildRequest, listed: ListedSource, engine: EngineChoice, max_bad: MaxBad) -> BuildSummary:
    """Build the caches of a request.

    Raises
    ------
    BuildError
        If the build fails, see :func:`leukemia_data.building.build.run_locked_build`.
    CacheError
        If the caches are locked and the request does not wait, or an earlier cache was made from other images.
    """
    engine.check()
    with locked(request, listed, "build"):
        listed, unchanged = newest_state(request, listed)
        return unchanged or _run(request, listed, engine, max_bad)


def locked(request: BuildRequest, listed: ListedSource, work: str) -> AbstractContextManager[None]:
    """Hold the locks of a request's caches."""
    on_busy = partial(note_waiting, request.console) if request.wait else None
    return lock_caches(request.directories(listed.listing), work, on_busy=on_busy)


def newest_state(request: BuildRequest, listed: ListedSource) -> tuple[ListedSource, BuildSummary | None]:
    """Return the listing, and the summary if the caches are up to date, else None.

    The source is listed again if another build committed since the listing was begun.
    """
    before, now = listed.commits, request.place.commits(request.dir_names)
    if all(before.get(directory) == now.get(directory) for directory in request.directories(listed.listing)):
        return listed, None
    listed = request.list_now()
    return listed, request.unchanged(listed.listing)


def plan_listed(
    request: BuildRequest, listed: ListedSource, stored: Mapping[Path, StoredCache] | None = None
) -> BuildPlan:
    """Write notes on how the source was read, and return the build plan; `stored` are the caches in a store, if any."""
    listing = with_frames(listed.listing, SizedRecipe(request.recipe, request.sizes_px[0]))
    _note_reading(listing.reading, request.recipe, request.sizes_px[0], request.console)
    inputs = PlanInputs(
        name=request.cache_name(listing),
        cache_root=request.place.root,
        recipe=request.recipe,
        sizes_px=request.sizes_px,
        classes=listing.classes,
        opencv_version=installed_opencv_version(),
        shard_capacity=request.shard_capacity,
        codec=request.codec,
        recheck_ns=listed.listed_at_ns if request.recheck else None,
        reading=listing.reading.to_record(),
    )
    plan = plan_build(inputs, listing.records, stored=stored)
    for text in plan.notes:
        request.console.note(f"note: {text}")
    if plan.num_to_make and (conflict := opencv_conflict()):
        request.console.warn(conflict)
    return plan


def _run(request: BuildRequest, listed: ListedSource, engine: EngineChoice, max_bad: MaxBad) -> BuildSummary:
    stored, commit_target = request.place.stored(request.directories(listed.listing)), None
    if stored is not None:
        # Imports fsspec.
        from leukemia_data.building.store_commit import StoreCommitTarget

        commit_target = StoreCommitTarget(stored)
    plan = plan_listed(request, listed, stored)
    with request.console.progress(plan.num_to_make, "building") as bar:
        summary = run_locked_build(
            plan,
            run_tasks=engine.runner(len(plan.tasks)),
            policy=FailurePolicy(max_bad.of(len(plan.records))),
            listed_at_ns=listed.listed_at_ns,
            progress=bar.update,
            commit_target=commit_target,
        )
    return with_caution(summary, request.console)


def with_caution(summary: BuildSummary, console: Console) -> BuildSummary:
    """Return the summary with a caution if frames alone separate the classes; also warn the console.

    Called last, so that the warning is not lost among other lines.
    """
    manifest = summary.caches[0].manifest
    caution = frame_caution(manifest.understood, manifest.recipe) if manifest.understood else None
    if caution is not None:
        console.warn(caution)
    return replace(summary, caution=caution)


def _note_reading(reading: Reading, recipe: Recipe, size_px: int, console: Console) -> None:
    notes = cautions(reading, recipe, size_px, with_finding=False)
    for line in reading.short_lines(_MAX_READING_LINES - len(notes)):
        console.note(line if line.startswith("note: ") else f"  {line}")
    for text in notes:
        console.note(f"note: {text}")
