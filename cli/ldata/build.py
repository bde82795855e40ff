"""``ldata build``, ``ldata plan`` and ``ldata commit``: from images to caches."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import click

from cli.console import CONSOLE, codec_text, print_result
from cli.options import (
    FILE,
    OptionValue,
    cache_location_option,
    cache_root_option,
    given_options,
    json_option,
    local_copies_option,
    reading_options,
    recipe_option,
    source_argument,
    table_options,
    with_options,
)
from leukemia_data.building.build_caches import BuildOptions, build_caches
from leukemia_data.building.build_request import BuildRequest, BuildSummary, BuiltCache
from leukemia_data.building.engine import ENGINES, EngineChoice
from leukemia_data.caches.codec import CODECS, RAW
from leukemia_data.caches.manifest import cache_summary
from leukemia_data.errors import InterruptionError, UsageError
from leukemia_data.files.text import format_bytes
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source_choice import choose_source

_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})")
_MAY_STAND_BESIDE_PLAN = {"plan_path", "share", "engine", "address", "n_jobs", "as_json"}
_KEPT = "interrupted: finished shards are kept; the same command goes on where it stopped"
_MAX_LISTED = 20


def _parse_share(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SHARE.fullmatch(text)
    if match is None:
        raise UsageError(f"--task {text!r}: give the number of a share and of all shares, such as 3/40")
    share, num_shares = int(match[1]), int(match[2])
    if not 1 <= share <= num_shares:
        raise UsageError(f"--task {text}: shares count from 1 to their number")
    return share, num_shares


_what_options = with_options(
    source_argument,
    click.option(
        "--size",
        "sizes_px",
        type=int,
        multiple=True,
        help="Side of the cached images in px, repeatable.  [default: 224]",
    ),
    recipe_option,
    click.option("--name", help="Name of the cache (default: that of the source's folder)."),
    table_options,
    reading_options,
    click.option(
        "--shard-size",
        metavar="N|auto",
        help="Images a shard holds at the most; auto: as many as suit their number. Kept for later builds.",
    ),
    click.option(
        "--codec",
        type=click.Choice(CODECS.names()),
        help="How to store the pixels: raw, or compressed without loss.  [default: as the cache is, raw for a new one]",
    ),
    click.option(
        "--recheck",
        is_flag=True,
        help="Read every file, also those that look as they did at the last build, and let their digests decide.",
    ),
)
_failure_options = with_options(
    click.option(
        "--on-error",
        type=click.Choice(["fail", "quarantine"]),
        default="fail",
        help="Unusable images: stop, or leave them out and list them.",
    ),
    click.option("--max-bad", default="5%", help="With quarantine: fail when more images than N or P% are bad."),
)
_engine_options = with_options(
    click.option("--n-jobs", default=-1, help="Worker processes; -1 means one per core. Never changes a byte."),
    click.option(
        "--engine",
        type=click.Choice(ENGINES.names()),
        default="local",
        help="What runs the work: processes of this machine, or a Dask or Ray cluster. Never changes a byte.",
    ),
    click.option(
        "--address",
        help="Cluster to use: HOST:PORT, tcp://HOST:PORT or a scheduler file (.json) of Dask; auto, HOST:PORT or "
        "ray://HOST:PORT of Ray. Without it, a cluster of --n-jobs workers on this machine that ends with the build.",
    ),
)
_wait_option = click.option(
    "--wait", is_flag=True, help="Wait while another process works on the same cache, instead of leaving."
)
_job_options = with_options(
    click.option(
        "--plan",
        "plan_path",
        type=FILE,
        help="Make a share of the shards of this plan, instead of SOURCE; see `ldata plan`.",
    ),
    click.option(
        "--task",
        "share",
        metavar="I/N",
        callback=_parse_share,
        help="With --plan: the I-th (from 1) of N equal shares. Any of them may run again, at once, anywhere.",
    ),
)


_BUILD_HELP = """Preprocess the images of SOURCE into one cache per --size.

SOURCE is a C-NMC folder in any published layout, any folder with one folder per class, or CSV tables with columns
Path[,label[,subject[,split]]]; either may be in an object store (s3://, gs://, az://). Without SOURCE:
$LDATA_SOURCE, else ./data, else a built-in sample of generated cells. How SOURCE was understood is printed first;
what can be read in several ways is refused with the options that choose (`ldata scan` shows all). Building again
costs only what is new or changed; a build that was stopped goes on where it stopped.

\b
Examples:
  ldata build C-NMC_Leukemia --size 128 --size 224
  ldata build train.csv valid.csv resnet_18_test.csv --root lab3 --name lab
  ldata build my-cells --recipe raw --on-error quarantine --max-bad 20
  ldata build ALL-four-classes --class-level 2 --exclude Segmented --recipe photo
  ldata build my-cells --codec zstd --shard-size 1024 --wait
  ldata build s3://bucket/C-NMC_Leukemia --cache s3://bucket/caches --size 224
  ldata build my-cells --engine dask --address tcp://head:8786
  ldata build --plan cells.plan --task 3/40
"""


@click.command("build", help=_BUILD_HELP)
@_what_options
@cache_location_option
@local_copies_option
@_engine_options
@_failure_options
@_wait_option
@_job_options
@json_option
def build(
    source: tuple[ImagePlace, ...],
    plan_path: Path | None,
    share: tuple[int, int] | None,
    as_json: bool,
    **options: Unpack[BuildOptions],
) -> None:
    """Build, or make a share of a job file."""
    started_s = time.perf_counter()
    if plan_path is not None or share is not None:
        engine = EngineChoice(options["engine"], options["address"], options["n_jobs"])
        _run_job(plan_path, share, engine, as_json=as_json)
        return
    with _interruption(_KEPT):
        choice = choose_source(source, os.environ, options["cache_root"])
        options["console"] = CONSOLE
        summary = build_caches(choice, **options)
    _print_summary(summary, time.perf_counter() - started_s, as_json=as_json)


@click.command("plan")
@_what_options
@cache_root_option
@_wait_option
@click.option("--out", type=FILE, required=True, help="The plan, a file to write.")
@json_option
def plan(source: tuple[ImagePlace, ...], cache_root: Path, out: Path, as_json: bool, **options: OptionValue) -> None:
    """Plan what `ldata build` would do with SOURCE, for the jobs of a batch system.

    Jobs make the shards of the plan in any number of shares, `ldata commit` makes the caches of them: the same bytes as
    one `ldata build`. All of them must see the source, the caches and the plan under the same absolute paths.

    \b
    Examples:
      ldata plan C-NMC_Leukemia --size 224 --cache /shared/caches --out cells.plan
      ldata build --plan cells.plan --task 1/40     # ... and so on, to 40/40, in any order
      ldata commit cells.plan
    """
    # Loads OpenCV, HDF5 and joblib: not for --help.
    from leukemia_data.building.jobs import plan_jobs

    choice = choose_source(source, os.environ, cache_root)
    request = BuildRequest.of(choice, cache_root=cache_root.absolute(), console=CONSOLE, **options)
    planned = plan_jobs(request, out.absolute())
    size = format_bytes(planned.num_bytes)
    lines = (
        f"{planned.num_shards:,} shards to make of {planned.num_images:,} images, {size} to write: {planned.path}",
        f"Next: ldata build --plan {planned.path} --task I/N   with I from 1 to N, in any order",
        f"Then: ldata commit {planned.path}",
    )
    print_result(planned, lines, as_json=as_json)


@click.command("commit")
@click.argument("plan_path", metavar="PLAN", type=FILE)
@_failure_options
@_wait_option
@json_option
def commit(plan_path: Path, on_error: str, max_bad: str, wait: bool, as_json: bool) -> None:
    """Commit the caches of PLAN, when all its shards are made.

    Before, this says which are not, with the commands that make them, and changes nothing. Each new shard is read once.

    \b
    Examples:
      ldata commit cells.plan
      ldata commit cells.plan --on-error quarantine --max-bad 20
    """
    started_s = time.perf_counter()
    from leukemia_data.building.jobs import commit_jobs

    with _interruption("interrupted: what the jobs made is kept; the same command commits it"):
        summary = commit_jobs(plan_path.absolute(), on_error=on_error, max_bad=max_bad, wait=wait, console=CONSOLE)
    _print_summary(summary, time.perf_counter() - started_s, as_json=as_json)


@contextmanager
def _interruption(text: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(text) from None


def _run_job(plan_path: Path | None, share: tuple[int, int] | None, engine: EngineChoice, *, as_json: bool) -> None:
    started_s = time.perf_counter()
    if plan_path is None or share is None:
        raise UsageError("--plan and --task belong together: --plan PLAN --task I/N")
    decided = [option for name, option in given_options().items() if name not in _MAY_STAND_BESIDE_PLAN]
    if decided:
        raise UsageError(f"{', '.join(decided)}: not with --plan, which has decided that (or its commit will)")
    from leukemia_data.building.jobs import run_job

    with _interruption(_KEPT):
        done = run_job(plan_path.absolute(), *share, engine, CONSOLE)
    seconds = time.perf_counter() - started_s
    for failure in done.failures[:_MAX_LISTED]:
        CONSOLE.note(f"unusable: {failure.record_id}: {failure.reason}")
    line = (
        f"Share {done.share} of {done.num_shares}: {done.num_shards:,} shards in {seconds:.1f} s, "
        f"{done.num_processed:,} images preprocessed, {done.num_found:,} found made, {len(done.failures):,} unusable"
    )
    print_result({**done.to_dict(), "seconds": round(seconds, 3)}, [line], as_json=as_json)


def _print_summary(summary: BuildSummary, seconds: float, *, as_json: bool) -> None:
    times = {"seconds": round(seconds, 3)}
    if summary.is_changed:
        times["images_per_s"] = round(summary.num_images / seconds, 1)
    caches = [cache_summary(cache.directory, cache.manifest) for cache in summary.caches]
    print_result({**summary.to_dict(), **times, "caches": caches}, _summary_lines(summary, seconds), as_json=as_json)


def _summary_lines(summary: BuildSummary, seconds: float) -> Iterator[str]:
    if not summary.is_changed:
        yield f"Nothing to do: {summary.num_images:,} images unchanged ({seconds:.2f} s)"
        yield from map(_cache_line, summary.caches)
        return
    quarantined = summary.quarantined
    yield (
        f"Built from {summary.num_images:,} images in {seconds:.1f} s ({summary.num_images / seconds:,.0f} images/s): "
        f"{summary.num_processed:,} preprocessed, {summary.num_copied:,} copied, {summary.num_kept:,} kept, "
        f"{len(quarantined):,} quarantined"
    )
    yield from map(_cache_line, summary.caches)
    for image in quarantined[:_MAX_LISTED]:
        yield f"  quarantined: {image.record_id}: {image.reason}"
    if len(quarantined) > _MAX_LISTED:
        yield f"  and {len(quarantined) - _MAX_LISTED} more: `ldata info --json` lists all"
    yield f"Next: ldata stats {summary.caches[0].directory}"


def _cache_line(cache: BuiltCache) -> str:
    manifest = cache.manifest
    codec = "" if manifest.codec == RAW else f", {codec_text(manifest)} smaller"
    return (
        f"  {manifest.size_px:>4} px  {cache.directory}  {manifest.num_samples:,} images, "
        f"{format_bytes(manifest.num_bytes)} in {len(manifest.shards)} shards{codec}"
    )
