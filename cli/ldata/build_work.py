"""The part of ``ldata build`` that has work to do: plan, run on an engine, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cli.ldata.cache_text import cache_lines, cache_summary
from cli.ldata.engine_choice import EngineChoice
from cli.ldata.wanted_caches import ListedSource, WantedCaches, print_unchanged
from cli.output import print_json, print_note, print_reading, print_text, print_waiting
from cli.progress import progress_bar
from leukemia_data.building.build import BuildSummary, FailurePolicy, run_locked_build
from leukemia_data.building.plan import BuildPlan, plan_build
from leukemia_data.caches.manifest import Manifest
from leukemia_data.errors import BuildError
from leukemia_data.files.lock import lock_caches
from leukemia_data.operations.recipe import Recipe
from leukemia_data.scanning.frame_finding import Framing
from leukemia_data.scanning.frame_notes import cautions, frame_caution
from leukemia_data.scanning.scan import with_frames
from leukemia_data.sources.reading import Reading
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.building.build import CacheHome
    from leukemia_data.caches.remote_cache import StoredCache

_MAX_LISTED = 20
_MAX_READING_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """A checked command line.

    Attributes
    ----------
    listed, list_now
        The source as it was listed, and how to list it anew.
    allowed_bad
        From the number of images to the number that may be unusable; None to fail at the first.
    wait
        Wait for another build or gc of the same caches, instead of leaving.
    recheck
        Read every file, whatever its state.
    """

    listed: ListedSource
    list_now: Callable[[], ListedSource]
    name: str
    wanted: WantedCaches
    engine: EngineChoice
    allowed_bad: Callable[[int], int] | None
    started_s: float
    wait: bool
    recheck: bool = False

    @property
    def seconds(self) -> float:
        """Time since the command began."""
        return time.perf_counter() - self.started_s


def build_and_report(request: BuildRequest, *, as_json: bool) -> None:
    """Run the build with a progress bar and print what it did.

    Everything from the plan on happens under the locks of all caches: what is planned is what is there.
    """
    on_busy = print_waiting if request.wait else None
    try:
        with lock_caches(request.wanted.directories(request.name), on_busy=on_busy):
            listed, current = newest_state(request)
            summary = None if len(current) == len(request.wanted.sizes_px) else _build(request, listed)
    except KeyboardInterrupt:
        raise BuildError("interrupted: finished shards are kept; the same command goes on where it stopped") from None
    num_images = len(listed.listing.records)
    if summary is None:
        print_unchanged(current, num_images, request.seconds, as_json=as_json)
    else:
        report_build(summary, num_images, request.seconds, as_json)


def newest_state(request: BuildRequest) -> tuple[ListedSource, Mapping[Location, Manifest]]:
    """The source, and the caches that hold it in exactly this state; none of them if all files shall be read.

    Both are found out anew if another build committed since the listing was begun, maybe a later state of the source.
    """
    before, now = request.listed.commits, request.wanted.commits()
    directories = request.wanted.directories(request.name)
    if all(before.get(directory) == now.get(directory) for directory in directories):
        return request.listed, {}
    listed = request.list_now()
    return listed, {} if request.recheck else request.wanted.current(request.name, listed.listing)


def plan_request(
    request: BuildRequest, listed: ListedSource, stored: Mapping[Path, StoredCache] | None = None
) -> BuildPlan:
    """Say how a listing was understood, and plan a build of it, into caches in a store where they are given."""
    wanted = request.wanted
    listing = with_frames(listed.listing, Framing(wanted.recipe, wanted.sizes_px[0]))
    _print_reading(listing.reading, wanted.recipe, wanted.sizes_px[0])
    plan = plan_build(
        name=request.name,
        cache_root=wanted.cache_root,
        recipe=wanted.recipe,
        sizes_px=wanted.sizes_px,
        classes=listing.classes,
        records=listing.records,
        opencv_version=wanted.opencv_version,
        shard_capacity=wanted.shard_capacity,
        codec=wanted.codec,
        recheck_ns=listed.listed_at_ns if request.recheck else None,
        stored=stored,
        reading=listing.reading.to_record(),
    )
    for note in plan.notes:
        print_note(f"note: {note}")
    return plan


def _print_reading(reading: Reading, recipe: Recipe, size_px: int) -> None:
    # What the frames tell of the classes is said when the build is done, where it is not lost among other lines.
    said = cautions(reading, recipe, size_px, with_finding=False)
    print_reading(reading.short_lines(_MAX_READING_LINES - len(said)))
    for caution in said:
        print_note(f"note: {caution}")


def _build(request: BuildRequest, listed: ListedSource) -> BuildSummary:
    stored = request.wanted.stored(request.name)
    plan = plan_request(request, listed, stored)
    with progress_bar(plan.num_to_make, "building") as bar:
        return run_locked_build(
            plan,
            run_tasks=request.engine.runner(len(plan.tasks_to_run)),
            policy=FailurePolicy(request.allowed_bad(len(plan.records)) if request.allowed_bad else None),
            listed_at_ns=listed.listed_at_ns,
            package_version=version("leukemia-cells"),
            progress=bar.update,
            home=_home(stored),
        )


def _home(stored: Mapping[Path, StoredCache] | None) -> CacheHome | None:
    if stored is None:
        return None
    # Loads fsspec.
    from leukemia_data.building.stored_home import StoredHome

    return StoredHome(stored)


def report_build(summary: BuildSummary, num_images: int, seconds: float, as_json: bool) -> None:
    """Print what a build or a commit did."""
    caches = [(cache.directory, cache.manifest) for cache in summary.caches]
    manifest = summary.caches[0].manifest
    telling = frame_caution(manifest.understood, manifest.recipe) if manifest.understood else None
    if as_json:
        print_json(
            {
                "changed": True,
                "num_images": num_images,
                "num_processed": summary.num_processed,
                "num_copied": summary.num_copied,
                "num_kept": summary.num_kept,
                "quarantined": [asdict(image) for image in summary.quarantined],
                "seconds": round(seconds, 3),
                "images_per_s": round(num_images / seconds, 1),
                "caches": [cache_summary(*cache) for cache in caches],
            }
        )
        _warn(telling)
        return
    print_text(
        f"Built from {num_images:,} images in {seconds:.1f} s ({num_images / seconds:,.0f} images/s): "
        f"{summary.num_processed:,} preprocessed, {summary.num_copied:,} copied, {summary.num_kept:,} kept, "
        f"{len(summary.quarantined):,} quarantined"
    )
    for line in cache_lines(caches):
        print_text(line)
    for image in summary.quarantined[:_MAX_LISTED]:
        print_text(f"  quarantined: {image.record_id}: {image.reason}")
    if len(summary.quarantined) > _MAX_LISTED:
        print_text(f"  and {len(summary.quarantined) - _MAX_LISTED} more: `ldata info --json` lists all")
    print_text(f"Next: ldata stats {caches[0][0]}")
    _warn(telling)


def _warn(caution: str | None) -> None:
    if caution is not None:
        print_note(f"warning: {caution}")
