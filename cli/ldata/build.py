"""``ldata build``, ``ldata plan`` and ``ldata commit``: from images to caches."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cli.console import CONSOLE, cache_lines, print_json, print_note, print_text
from cli.options import (
    LocalPath,
    allow_outside_option,
    cache_location_option,
    cache_root_option,
    json_option,
    local_copies_option,
    option_name,
    reading_options,
    recipe_option,
    root_option,
    source_argument,
)
from leukemia_data.building.build_caches import build_caches
from leukemia_data.building.build_request import BuildRequest, BuildSummary
from leukemia_data.building.engine import ENGINES, EngineChoice
from leukemia_data.caches.codec import CODECS
from leukemia_data.caches.manifest import cache_summary
from leukemia_data.errors import InterruptionError, UsageError
from leukemia_data.files.text import format_bytes
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source_choice import choose_source
from leukemia_data.stores.url import Location

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


_what_options = (
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
    root_option,
    allow_outside_option,
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
_failure_options = (
    click.option(
        "--on-error",
        type=click.Choice(["fail", "quarantine"]),
        default="fail",
        show_default=True,
        help="Unusable images: stop, or leave them out and list them.",
    ),
    click.option(
        "--max-bad",
        default="5%",
        show_default=True,
        help="With quarantine: fail when more images than N or P% are bad.",
    ),
)
_engine_options = (
    click.option(
        "--n-jobs",
        default=-1,
        show_default=True,
        help="Worker processes; -1 means one per core. Never changes a byte.",
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES.names()),
        default="local",
        show_default=True,
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
_job_options = (
    click.option(
        "--plan",
        "plan_path",
        type=LocalPath(path_type=Path, dir_okay=False),
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


def _with(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Add options to a command, in this order."""
    return lambda command: reduce(lambda each, option: option(each), reversed(options), command)


_BUILD_HELP = """Preprocess the images of SOURCE into one cache per --size.

SOURCE is a C-NMC folder in any published layout, any folder with one folder per class, or CSV tables with columns
Path[,label[,subject[,split]]]; either may lie in an object store (s3://, gs://, az://). Without SOURCE:
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
@_with(*_what_options, cache_location_option, local_copies_option)
@_with(*_engine_options, *_failure_options, _wait_option, *_job_options, json_option)
def build(
    source: tuple[ImagePlace, ...],
    sizes_px: tuple[int, ...],
    recipe_name: str,
    name: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    shard_size: str | None,
    codec: str | None,
    recheck: bool,
    cache_root: Location,
    local_copies: Path | None,
    n_jobs: int,
    engine: str,
    address: str | None,
    on_error: str,
    max_bad: str,
    wait: bool,
    plan_path: Path | None,
    share: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Build, or make a share of a job file."""
    started_s = time.perf_counter()
    if plan_path is not None or share is not None:
        _run_job(plan_path, share, EngineChoice(engine, address, n_jobs), as_json=as_json)
        return
    with _interruption(_KEPT):
        summary = build_caches(
            choose_source(source, os.environ, cache_root),
            sizes_px=sizes_px,
            recipe=recipe_name,
            cache_root=cache_root,
            name=name,
            root=root,
            allow_outside=allow_outside,
            reading=reading,
            codec=codec,
            shard_size=shard_size,
            engine=engine,
            address=address,
            n_jobs=n_jobs,
            on_error=on_error,
            max_bad=max_bad,
            wait=wait,
            recheck=recheck,
            copies_dir=local_copies,
            console=CONSOLE,
        )
    _print_summary(summary, time.perf_counter() - started_s, as_json=as_json)


@click.command("plan")
@_with(*_what_options, cache_root_option, _wait_option)
@click.option("--out", type=LocalPath(path_type=Path, dir_okay=False), required=True, help="The plan, a file to write.")
@json_option
def plan(
    source: tuple[ImagePlace, ...],
    sizes_px: tuple[int, ...],
    recipe_name: str,
    name: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    shard_size: str | None,
    codec: str | None,
    recheck: bool,
    cache_root: Path,
    wait: bool,
    out: Path,
    as_json: bool,
) -> None:
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

    request = BuildRequest.of(
        choose_source(source, os.environ, cache_root),
        sizes_px=sizes_px,
        recipe=recipe_name,
        cache_root=cache_root.absolute(),
        name=name,
        root=root,
        allow_outside=allow_outside,
        reading=reading,
        codec=codec,
        shard_size=shard_size,
        wait=wait,
        recheck=recheck,
        console=CONSOLE,
    )
    planned = plan_jobs(request, out.absolute())
    if as_json:
        print_json(planned.to_dict())
        return
    size = format_bytes(planned.num_bytes)
    print_text(
        f"{planned.num_shards:,} shards to make of {planned.num_images:,} images, {size} to write: {planned.path}"
    )
    print_text(f"Next: ldata build --plan {planned.path} --task I/N   with I from 1 to N, in any order")
    print_text(f"Then: ldata commit {planned.path}")


@click.command("commit")
@click.argument("plan_path", metavar="PLAN", type=LocalPath(path_type=Path, dir_okay=False))
@_with(*_failure_options, _wait_option, json_option)
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
    """Say what an interrupted command leaves."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(text) from None


def _run_job(plan_path: Path | None, share: tuple[int, int] | None, engine: EngineChoice, *, as_json: bool) -> None:
    started_s = time.perf_counter()
    if plan_path is None or share is None:
        raise UsageError("--plan and --task belong together: --plan PLAN --task I/N")
    _check_beside_plan(click.get_current_context())
    from leukemia_data.building.jobs import run_job

    with _interruption(_KEPT):
        done = run_job(plan_path.absolute(), *share, engine, CONSOLE)
    seconds = time.perf_counter() - started_s
    for failure in done.failures[:_MAX_LISTED]:
        print_note(f"unusable: {failure.record_id}: {failure.reason}")
    if as_json:
        print_json({**done.to_dict(), "seconds": round(seconds, 3)})
        return
    print_text(
        f"Share {done.share} of {done.num_shares}: {done.num_shards:,} shards in {seconds:.1f} s, "
        f"{done.num_processed:,} images preprocessed, {done.num_found:,} found made, {len(done.failures):,} unusable"
    )


def _check_beside_plan(context: click.Context) -> None:
    """Refuse options for what a plan has decided already."""
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    decided = ["SOURCE" if name == "source" else _option(name) for name in given if name not in _MAY_STAND_BESIDE_PLAN]
    if decided:
        raise UsageError(f"{', '.join(decided)}: not with --plan, which has decided that (or its commit will)")


def _option(name: str) -> str:
    return option_name({"sizes_px": "size", "cache_root": "cache"}.get(name, name))


def _print_summary(summary: BuildSummary, seconds: float, *, as_json: bool) -> None:
    caches = [(cache.directory, cache.manifest) for cache in summary.caches]
    if as_json:
        times: dict[str, float] = {"seconds": round(seconds, 3)}
        if summary.is_changed:
            times["images_per_s"] = round(summary.num_images / seconds, 1)
        print_json({**summary.to_dict(), **times, "caches": [cache_summary(*cache) for cache in caches]})
        return
    for line in _summary_lines(summary, seconds):
        print_text(line)


def _summary_lines(summary: BuildSummary, seconds: float) -> Sequence[str]:
    caches = cache_lines([(cache.directory, cache.manifest) for cache in summary.caches])
    if not summary.is_changed:
        return [f"Nothing to do: {summary.num_images:,} images unchanged ({seconds:.2f} s)", *caches]
    quarantined = summary.quarantined
    lines = [
        f"Built from {summary.num_images:,} images in {seconds:.1f} s ({summary.num_images / seconds:,.0f} images/s): "
        f"{summary.num_processed:,} preprocessed, {summary.num_copied:,} copied, {summary.num_kept:,} kept, "
        f"{len(quarantined):,} quarantined",
        *caches,
        *(f"  quarantined: {image.record_id}: {image.reason}" for image in quarantined[:_MAX_LISTED]),
    ]
    if len(quarantined) > _MAX_LISTED:
        lines.append(f"  and {len(quarantined) - _MAX_LISTED} more: `ldata info --json` lists all")
    return [*lines, f"Next: ldata stats {summary.caches[0].directory}"]
