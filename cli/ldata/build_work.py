"""The part of ``ldata build`` that has work to do: plan, run on an engine, report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click

from cli.ldata.cache_text import cache_lines, cache_summary
from cli.output import print_json, print_note
from cli.progress import progress_bar
from leukemia_data.building.build import BuildSummary, FailurePolicy, TaskRunner, run_build
from leukemia_data.building.plan import BuildPlan, plan_build
from leukemia_data.building.shard_maker import run_serially
from leukemia_data.errors import BuildError
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.sources.source import SourceListing

_MAX_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """A checked command line."""

    listing: SourceListing
    name: str
    cache_root: Path
    recipe: Recipe
    sizes_px: tuple[int, ...]
    opencv_version: str
    n_jobs: int
    max_bad: int | None
    listed_at_ns: int
    started_s: float


def build_and_report(request: BuildRequest, *, as_json: bool) -> None:
    """Run the build with a progress bar and print what it did."""
    plan = plan_build(
        name=request.name,
        cache_root=request.cache_root,
        recipe=request.recipe,
        sizes_px=request.sizes_px,
        classes=request.listing.classes,
        records=request.listing.records,
        opencv_version=request.opencv_version,
    )
    for note in plan.notes:
        print_note(f"note: {note}")
    num_to_make = sum(len(task.records) for task in plan.tasks if task is not None)
    try:
        with progress_bar(num_to_make, "building") as bar:
            summary = run_build(
                plan,
                run_tasks=_choose_engine(plan, request.n_jobs),
                policy=FailurePolicy(request.max_bad),
                listed_at_ns=request.listed_at_ns,
                package_version=version("leukemia-cells"),
                progress=bar.update,
            )
    except KeyboardInterrupt:
        raise BuildError("interrupted: finished shards are kept; the same command goes on where it stopped") from None
    _report(request, summary, time.perf_counter() - request.started_s, as_json)


def _choose_engine(plan: BuildPlan, n_jobs: int) -> TaskRunner:
    """Worker processes, or this process where there is one job or one shard to make."""
    num_tasks = sum(task is not None for task in plan.tasks)
    if n_jobs == 1 or num_tasks <= 1:
        return run_serially
    # joblib takes as long to load as a small build.
    from leukemia_data.building.process_engine import num_processes, run_in_processes

    return run_in_processes(num_processes(n_jobs))


def _report(request: BuildRequest, summary: BuildSummary, seconds: float, as_json: bool) -> None:
    caches = [(cache.directory, cache.manifest) for cache in summary.caches]
    num_images = len(request.listing.records)
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
        return
    click.echo(
        f"Built from {num_images:,} images in {seconds:.1f} s ({num_images / seconds:,.0f} images/s): "
        f"{summary.num_processed:,} preprocessed, {summary.num_copied:,} copied, {summary.num_kept:,} kept, "
        f"{len(summary.quarantined):,} quarantined"
    )
    for line in cache_lines(caches):
        click.echo(line)
    for image in summary.quarantined[:_MAX_LISTED]:
        click.echo(f"  quarantined: {image.record_id}: {image.reason}")
    if len(summary.quarantined) > _MAX_LISTED:
        click.echo(f"  and {len(summary.quarantined) - _MAX_LISTED} more: `ldata info --json` lists all")
    click.echo(f"Next: ldata stats {caches[0][0]}")
